"""The recipes of ``prepare`` with what goes in and comes out, for lists and help, which import no reader. A test checks them."""

from __future__ import annotations

from typing import NamedTuple


class RecipeSummary(NamedTuple):
    """A recipe in one line.

    Attributes:
        takes: formats that it reads.
        makes: what is published.
        how: the settings that distinguish it.
    """

    takes: str
    makes: str
    how: str


_IMAGES, _VOLUMES = (
    "BMP, DICOM, JPEG, NumPy, PNG, TIFF, WebP images",
    "DICOM series, MetaImage, NIfTI, NRRD, NumPy volume, TIFF volume",
)

#: Every name in ``recipes.RECIPES``.
RECIPE_SUMMARIES = {
    "xray-pseudo3d": RecipeSummary(_IMAGES, "pseudo3d", "longest side at most 1024 pixels; window 4, stride 4"),
    "xray-pseudo3d:tiny": RecipeSummary(_IMAGES, "pseudo3d", "longest side at most 192 pixels; window 4, stride 4"),
    "ct-superpatches": RecipeSummary(_VOLUMES, "superpatch", "CT at 1 mm, -1000..1000 HU; cubes of 128 voxels"),
    "mixed-superpatches": RecipeSummary(_VOLUMES, "superpatch", "every modality at 1 mm; cubes of 128 voxels"),
    "mixed-superpatches:tiny": RecipeSummary(_VOLUMES, "superpatch", "every modality at 2 mm; cubes of 64 voxels"),
}
RECIPE_NAMES = tuple(RECIPE_SUMMARIES)
