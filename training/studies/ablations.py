"""What of the pseudo-3D view matters: window, stride, layout, order, and two controls that are no im2col at all.

CDSSL-P3D's own ablations could not be read; this grid is ours. One thing is changed at a time. Sides of views move to the
nearest ones whose grid the backbone can pool, so arms differ a little in pixels, and where windows overlap in voxels; the
table of the study says how many voxels each arm's views have.
"""

from __future__ import annotations

from dataclasses import replace

from crossdim.storage_schema.errors import UsageError
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.methods.cdssl_p3d import CdsslP3D
from crossdim.training.methods.lift import Lift, Repeated, Slice, Unrolled, fits
from crossdim.training.studies.base import Arm, Study

#: Window and stride; 4 and 4 is the default.
WINDOWS = ((2, 2), (2, 1), (3, 3), (4, 4), (4, 2), (6, 6), (6, 3), (8, 8), (8, 4))


def lifts() -> dict[str, Lift]:
    """The arms by name."""
    return {
        **{f"k{k}-s{s}": Unrolled(geometry=Pseudo3D(window=k, stride=s)) for k, s in WINDOWS},
        "k4-s4-serpentine": Unrolled(geometry=Pseudo3D(depth_order="serpentine")),
        "k8-s8-window": Unrolled(geometry=Pseudo3D(window=8, stride=8, layout="window")),
        "repeated": Repeated(),
        "slice": Slice(),
    }


def pseudo3d_ablation(config: Pretraining) -> Study:
    """One arm for every lift.

    Raises:
        UsageError: if the method lifts no images.
    """
    if not isinstance(config.method, CdsslP3D):
        raise UsageError(f"this study changes how images become volumes, which {config.method.kind} does not do")
    method = config.method
    arms = (Arm(name=name, config=replace(config, method=_with(method, lift))) for name, lift in lifts().items())
    return Study(title="pseudo-3D, one change at a time", arms=tuple(arms))


def _with(method: CdsslP3D, lift: Lift) -> CdsslP3D:
    multiple = method.backbone.side_multiple
    wide, near = (nearest_side(lift, side, multiple) for side in (method.flat.global_side, method.flat.local_side))
    return replace(method, lift=lift, flat=replace(method.flat, global_side=wide, local_side=near))


def nearest_side(lift: Lift, side: int, multiple: int) -> int:
    """The side nearest to ``side`` of an image that becomes a plane of multiples of ``multiple``; the smaller of two as near."""
    return min((s for s in range(1, 4 * side) if fits(lift, s, multiple)), key=lambda s: (abs(s - side), s))
