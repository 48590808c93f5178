"""Named recipes: each a function that returns a resolved configuration tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from crossdim.foundation.settings import with_overrides
from crossdim.pipelines.jobs.recipe import Recipe
from crossdim.pipelines.recipes import images, volumes
from crossdim.storage_schema.errors import UsageError, unknown_name

#: A new recipe is a function and a line here.
RECIPES: dict[str, Callable[[], Recipe]] = {
    "xray-pseudo3d": images.xray_pseudo3d,
    "xray-pseudo3d:tiny": images.xray_pseudo3d_tiny,
    "ct-superpatches": volumes.ct_superpatches,
    "mixed-superpatches": volumes.mixed_superpatches,
    "mixed-superpatches:tiny": volumes.mixed_superpatches_tiny,
}


def resolve(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name with ``path=value`` overrides applied.

    Raises:
        UsageError: for an unknown name or setting, with the nearest ones.
    """
    if name not in RECIPES:
        raise UsageError(unknown_name("recipe", name, RECIPES))
    return with_overrides(RECIPES[name](), overrides)
