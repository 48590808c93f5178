"""CDSSL-P3D: images as pseudo-3D and true volumes through one 3D network, with the PCRLv2 objective.

Our implementation of Gao et al. (arXiv 2406.00947): the paper's text that could be read names the transformation, the
joint training and PCRLv2 as the objective's base; k, s, view sizes and mixing are our choices. Views follow PCRLv2's
tables. An image is folded back from its stored pseudo-3D form, distorted in 2D, and unrolled again: a flip or a turn of
a pseudo-3D volume is no flip or turn of the image. Depth flips are for true volumes only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from PIL import Image

from storage_schema.pseudo3d import Pseudo3D, unroll
from storage_schema.sample import Sample
from storage_schema.vocabulary import Presentation
from training.backbones.base import BackboneSettings
from training.backbones.unet3d import UNet3DSettings
from training.data import views as v
from training.data.collate import Views
from training.methods.base import MethodConfig
from training.methods.pyramid import PyramidNet
from training.objectives.pcrlv2 import LevelMode

NUM_LOCAL = 6  # code: PCRLv2
#: Fallback geometry for plain images, which carry none of their own.
IMAGE_VIEW = Pseudo3D()


@dataclass(frozen=True, kw_only=True, slots=True)
class Views2D:
    """Sides of the 2D views, pixels. Defaults: code, PCRLv2 data.py; after k = 4 they are (16, 56, 56) and (16, 24, 24)."""

    global_side: int = 224
    local_side: int = 96
    global_area: tuple[float, float] = (0.3, 1.0)
    local_area: tuple[float, float] = (0.05, 0.3)
    hole_side: int = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Views3D:
    """Sides of the 3D views and of the boxes they are cut from, voxels, (D, H, W).

    Defaults: code, PCRLv2 luna_preprocess.py lines 128-130, there (x, y, z) with z last. The smallest local box of 8^3 is
    kept; boxes are drawn online from superpatches, not frozen in 16 pairs a scan (ours).
    """

    global_side: tuple[int, int, int] = (32, 64, 64)
    local_side: tuple[int, int, int] = (16, 16, 16)
    global_boxes: tuple[tuple[int, int, int], ...] = ((64, 96, 96), (96, 96, 96), (64, 112, 112), (32, 64, 64))
    local_boxes: tuple[tuple[int, int, int], ...] = ((16, 32, 32), (16, 16, 16), (32, 32, 32), (8, 8, 8))
    swaps: int = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class CdsslP3D(MethodConfig):
    """CDSSL-P3D in full: network and views."""

    kind: ClassVar[str] = "cdssl-p3d"
    accepts: ClassVar[frozenset[Presentation]] = frozenset(Presentation)
    # BatchNorm1d of the projections is undefined for one sample.
    min_rank_batch: ClassVar[int] = 2

    backbone: BackboneSettings = field(default_factory=UNet3DSettings)
    level_mode: LevelMode = "random"
    flat: Views2D = field(default_factory=Views2D)
    solid: Views3D = field(default_factory=Views3D)

    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """Two corrupted global views, the clean first one, six local views."""
        if sample.presentation is Presentation.SUPERPATCH:
            return self._solid_views(sample.unit()[0], rng)
        spec = pseudo3d or IMAGE_VIEW
        return self._flat_views(v.image_of(sample, spec), spec, rng)

    def _flat_views(self, image_HW: v.Floats, spec: Pseudo3D, rng: np.random.Generator) -> Views:
        f = self.flat

        def clean(side: int, area: tuple[float, float]) -> v.Floats:
            return v.turned(v.crop_resized(image_HW, rng, side, area), rng, 10)

        ones = [clean(f.global_side, f.global_area) for _ in range(2)]
        # Cutout after normalisation, so that holes are the mean; on a pixel permutation both commute with unrolling.
        spoilt = [v.cut_out(v.normalised(v.photometric(one, rng)), rng, 3, f.hole_side) for one in ones]
        local = [v.normalised(v.photometric(clean(f.local_side, f.local_area), rng)) for _ in range(NUM_LOCAL)]
        first, second, target, *crops = (unroll(x[None], spec) for x in (*spoilt, ones[0], *local))
        return {"view1": first, "view2": second, "clean1": target, "local": np.stack(crops)}

    def _solid_views(self, volume_DHW: v.Floats, rng: np.random.Generator) -> Views:
        s = self.solid
        shape = volume_DHW.shape
        boxes = v.box_pair((shape[0], shape[1], shape[2]), s.global_boxes, rng)
        ones = [v.box_resampled(volume_DHW, box, s.global_side, rng) for box in boxes]
        crops = v.sub_boxes(*boxes, (shape[0], shape[1], shape[2]), s.local_boxes, NUM_LOCAL, rng)
        local = [v.corrupted(v.box_resampled(volume_DHW, crop, s.local_side, rng), rng, 0) for crop in crops]
        first, second = (v.corrupted(one, rng, s.swaps) for one in ones)
        return {"view1": first[None], "view2": second[None], "clean1": ones[0][None], "local": np.stack(local)[:, None]}

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The whole image resized to the global side and unrolled, or the whole superpatch on a cube of the global width."""
        if sample.presentation is Presentation.SUPERPATCH:
            cube = sample.unit()[0]
            side = self.solid.global_side[2]
            box = v.Box(start=(0, 0, 0), size=(cube.shape[0], cube.shape[1], cube.shape[2]))
            target = v.box_resampled(cube, box, (side, side, side), None)[None]
            return {"x": v.normalised(target), "target": target}
        spec = pseudo3d or IMAGE_VIEW
        size = (self.flat.global_side, self.flat.global_side)
        image = np.asarray(Image.fromarray(v.image_of(sample, spec)).resize(size, Image.Resampling.BILINEAR))
        target = unroll(image[None], spec)
        return {"x": v.normalised(target), "target": target}

    def build(self) -> PyramidNet:
        """The network."""
        return PyramidNet(self.backbone, self.level_mode)
