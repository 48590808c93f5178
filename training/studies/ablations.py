"""Ablation of the pseudo-3D view: window, stride, layout, order, and two controls that are not im2col.

CDSSL-P3D's own ablations were not available to us; this grid is ours. One thing is changed at a time. The sides of views
move to the nearest ones that the backbone can pool, so arms differ a little in pixels, and where windows overlap also in
voxels; the table of the study states the number of voxels of each arm's views.
"""

from __future__ import annotations

from dataclasses import replace

from crossdim.storage_schema.errors import UsageError
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.methods.cdssl_p3d import CdsslP3D
from crossdim.training.methods.image_to_volume import ImageToVolume, Repeated, Slice, Unrolled, fits
from crossdim.training.studies.base import Arm, Study

#: Window and stride; 4 and 4 is the default.
WINDOWS = ((2, 2), (2, 1), (3, 3), (4, 4), (4, 2), (6, 6), (6, 3), (8, 8), (8, 4))


def ways() -> dict[str, ImageToVolume]:
    """How images become volumes, by the name of the arm."""
    return {
        **{f"k{k}-s{s}": Unrolled(geometry=Pseudo3D(window=k, stride=s)) for k, s in WINDOWS},
        "k4-s4-serpentine": Unrolled(geometry=Pseudo3D(depth_order="serpentine")),
        "k8-s8-window": Unrolled(geometry=Pseudo3D(window=8, stride=8, layout="window")),
        "repeated": Repeated(),
        "slice": Slice(),
    }


def pseudo3d_ablation(config: Pretraining) -> Study:
    """One arm for every way in which an image becomes a volume.

    Raises:
        UsageError: if the method does not convert images to volumes.
    """
    if not isinstance(config.method, CdsslP3D):
        raise UsageError(f"this study changes how images become volumes, which {config.method.kind} does not do")
    method = config.method
    arms = (Arm(name=name, config=replace(config, method=_set_way(method, lift))) for name, lift in ways().items())
    return Study(title="pseudo-3D, one change at a time", arms=tuple(arms))


def _set_way(method: CdsslP3D, lift: ImageToVolume) -> CdsslP3D:
    multiple = method.backbone.side_multiple
    global_side, local_side = (nearest_side(lift, side, multiple) for side in (method.flat.global_side, method.flat.local_side))
    return replace(method, lift=lift, flat=replace(method.flat, global_side=global_side, local_side=local_side))


def nearest_side(lift: ImageToVolume, side: int, multiple: int) -> int:
    """The side nearest to a given one at which the plane of the volume has sides that are multiples of a number.

    Args:
        lift: how the image becomes a volume.
        side: of the image, pixels.
        multiple: the number.

    Returns:
        Pixels; the smaller of two that are equally near.
    """
    return min((s for s in range(1, 4 * side) if fits(lift, s, multiple)), key=lambda s: (abs(s - side), s))
