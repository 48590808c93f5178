"""Sizes of the views of CDSSL-P3D, and the plans that are drawn with them.

Source: PCRLv2 (code): sides, areas, boxes and numbers of views; distortions are of the published sizes at the published sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from crossdim.storage_schema.errors import GeometryError, RunError, describe_unknown_name
from crossdim.storage_schema.sample import Array
from crossdim.training.data.views.boxes import Boxes, LocalBox, Side3, draw_box_pair, draw_local_boxes
from crossdim.training.data.views.views_2d import Plan2D, draw_plan_2d
from crossdim.training.data.views.views_3d import Plan3D, draw_plan_3d

NUM_LOCAL = 6  # code: PCRLv2
NUM_HOLES = 3  # code: PCRLv2, global views only
#: Sides of PCRLv2's views, for which it gives blur, noise and swapped patches.
GLOBAL_SIDE_2D, LOCAL_SIDE_2D = 224, 96
GLOBAL_SIDE_3D: Side3 = (32, 64, 64)
LOCAL_SIDE_3D: Side3 = (16, 16, 16)


@dataclass(frozen=True, kw_only=True, slots=True)
class Views2D:
    """Sizes of the 2D views. Defaults: code, PCRLv2 data.py; with k = 4 they become (16, 56, 56) and (16, 24, 24).

    Attributes:
        global_side (pixels): side of the two global views.
        local_side (pixels): side of the local views.
        global_area: smallest and largest fraction of the image that a global view covers.
        local_area: smallest and largest fraction of the image that a local view covers.
        hole_side (pixels): side of cut-out squares.
    """

    global_side: int = GLOBAL_SIDE_2D
    local_side: int = LOCAL_SIDE_2D
    global_area: tuple[float, float] = (0.3, 1.0)
    local_area: tuple[float, float] = (0.05, 0.3)
    hole_side: int = 32

    def plans(self, shape_HW: tuple[int, int], rng: np.random.Generator) -> tuple[Plan2D[Array], Plan2D[Array]]:
        """Draw the plans of the global and of the local views of an image.

        Args:
            shape_HW: of the image, pixels.
            rng: source of the draws.

        Returns:
            The plan of the 2 global views, and that of the ``NUM_LOCAL`` local views.
        """
        global_plan = draw_plan_2d(
            shape_HW, rng, count=2, side=self.global_side, reference=GLOBAL_SIDE_2D, area=self.global_area, holes=NUM_HOLES
        )
        local_plan = draw_plan_2d(
            shape_HW, rng, count=NUM_LOCAL, side=self.local_side, reference=LOCAL_SIDE_2D, area=self.local_area, holes=0
        )
        return global_plan, local_plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Views3D:
    """Sizes of the 3D views and of the boxes that they are cut from, voxels, (D, H, W).

    Defaults: code, PCRLv2 luna_preprocess.py lines 128-130, there (x, y, z) with z last. The smallest local box of 8^3 is kept.

    Attributes:
        global_side (voxels): sides of the two global views.
        local_side (voxels): sides of the local views.
        global_boxes (voxels): sizes from which global boxes are drawn.
        local_boxes (voxels): sizes from which local boxes are drawn.
        local_box: where local boxes lie: ``published`` with their first corners in the hull of the global pair, enlarged by 3
            voxels, or in that ``hull`` whole (ours).
        swaps: pairs of patches that are swapped in a global view.
        frozen_pairs: None draws new boxes each time (ours). A number (16 in PCRLv2) limits each sample to so many sets of
            boxes, the same in every run and on every rank; rotations and corruptions remain random.
    """

    global_side: Side3 = GLOBAL_SIDE_3D
    local_side: Side3 = LOCAL_SIDE_3D
    global_boxes: tuple[Side3, ...] = ((64, 96, 96), (96, 96, 96), (64, 112, 112), (32, 64, 64))
    local_boxes: tuple[Side3, ...] = ((16, 32, 32), (16, 16, 16), (32, 32, 32), (8, 8, 8))
    local_box: LocalBox = "published"
    swaps: int = 100
    frozen_pairs: int | None = None

    def __post_init__(self) -> None:
        if self.local_box not in get_args(LocalBox):
            raise RunError(describe_unknown_name("value of local_box", self.local_box, get_args(LocalBox)))
        if self.frozen_pairs is not None and self.frozen_pairs < 1:
            raise GeometryError(f"frozen_pairs is at least 1, or none for boxes drawn online; found {self.frozen_pairs}")

    def boxes(self, shape_DHW: Side3, key: str, rng: np.random.Generator) -> tuple[Boxes, Boxes]:
        """Draw the global and local boxes of a volume.

        Args:
            shape_DHW: of the volume, voxels.
            key: of the sample, 32 hex digits.
            rng: source of the draws.

        Returns:
            The 2 global boxes, and the ``NUM_LOCAL`` local boxes.
        """
        if self.frozen_pairs is not None:
            rng = np.random.default_rng([int(key, 16), int(rng.integers(self.frozen_pairs)), 0xB0C5])
        pair = draw_box_pair(shape_DHW, self.global_boxes, rng)
        return pair, draw_local_boxes(pair, shape_DHW, self.local_boxes, NUM_LOCAL, rng, corners=self.local_box)

    def plans(self, shape_DHW: Side3, key: str, rng: np.random.Generator) -> tuple[Plan3D, Plan3D]:
        """Draw the plans of the global and of the local views of a volume.

        Args:
            shape_DHW: of the volume, voxels.
            key: of the sample, 32 hex digits.
            rng: source of the draws.

        Returns:
            The plan of the 2 global views, and that of the ``NUM_LOCAL`` local views.
        """
        pair, local_boxes = self.boxes(shape_DHW, key, rng)
        return (
            draw_plan_3d(pair, self.global_side, GLOBAL_SIDE_3D, self.swaps, rng),
            draw_plan_3d(local_boxes, self.local_side, LOCAL_SIDE_3D, 0, rng),
        )
