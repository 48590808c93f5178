"""CDSSL-P3D: images as pseudo-3D and true volumes through one 3D network, with the PCRLv2 objective.

Our implementation of Gao et al. (arXiv 2406.00947): the paper's text that could be read names the transformation, the
joint training and PCRLv2 as the objective's base; k, s, view sizes and mixing are our choices. Views follow PCRLv2's
tables. An image is folded back from its stored pseudo-3D form, distorted in 2D, and unrolled again: a flip or a turn of
a pseudo-3D volume is no flip or turn of the image. Depth flips are for true volumes only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crossdim.storage_schema.errors import GeometryError, RunError
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Array, Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.backbones.unet3d import UNet3DSettings
from crossdim.training.data.collate import Batch, Views
from crossdim.training.data.views import Floats, flat_torch, image_of, normalised, solid_torch
from crossdim.training.data.views.boxes import Boxes, Side3, box_pair, sub_boxes
from crossdim.training.data.views.filters_torch import unit_range
from crossdim.training.data.views.flat import FlatPlan, draw_flat, flat_views
from crossdim.training.data.views.solid import Corruption, SolidPlan, box_resampled, draw_solid, solid_views
from crossdim.training.data.views.source import stored_image, unit_factors
from crossdim.training.data.views.travel import packed, unpacked
from crossdim.training.methods.base import MethodConfig
from crossdim.training.methods.lift import Lift, Unrolled, decoded, encoded, lifted, lifted_torch, require_fitting
from crossdim.training.methods.pyramid import PyramidNet, as_drawn
from crossdim.training.objectives.pcrlv2 import LevelMode

NUM_LOCAL = 6  # code: PCRLv2
NUM_HOLES = 3  # code: PCRLv2, global views only
#: Under which names the plans of global and of local views travel to the device.
WIDE, NEAR = "global", "local"
Render = Literal["workers", "device"]
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

    def plans(self, shape_HW: tuple[int, int], rng: np.random.Generator) -> tuple[FlatPlan[Array], FlatPlan[Array]]:
        """Plans of the global and of the local views of an image."""
        wide = draw_flat(shape_HW, rng, count=2, side=self.global_side, area=self.global_area, holes=NUM_HOLES)
        near = draw_flat(shape_HW, rng, count=NUM_LOCAL, side=self.local_side, area=self.local_area, holes=0)
        return wide, near


@dataclass(frozen=True, kw_only=True, slots=True)
class Views3D:
    """Sides of the 3D views and of the boxes they are cut from, voxels, (D, H, W).

    Defaults: code, PCRLv2 luna_preprocess.py lines 128-130, there (x, y, z) with z last. The smallest local box of 8^3 is
    kept; boxes are drawn online from superpatches (ours), unless ``frozen_pairs`` says how many a sample has: 16 in PCRLv2.
    Then a sample always shows the same sets of boxes, in every run and on every rank; turns and distortions stay fresh.
    """

    global_side: Side3 = (32, 64, 64)
    local_side: Side3 = (16, 16, 16)
    global_boxes: tuple[Side3, ...] = ((64, 96, 96), (96, 96, 96), (64, 112, 112), (32, 64, 64))
    local_boxes: tuple[Side3, ...] = ((16, 32, 32), (16, 16, 16), (32, 32, 32), (8, 8, 8))
    swaps: int = 100
    frozen_pairs: int | None = None

    def __post_init__(self) -> None:
        if self.frozen_pairs is not None and self.frozen_pairs < 1:
            raise GeometryError(f"frozen_pairs is at least 1, or none for boxes drawn online; found {self.frozen_pairs}")

    def boxes(self, shape_DHW: Side3, key: str, rng: np.random.Generator) -> tuple[Boxes, Boxes]:
        """Global and local boxes of a volume; ``key`` is the sample's, 32 hex digits."""
        if self.frozen_pairs is not None:
            rng = np.random.default_rng([int(key, 16), int(rng.integers(self.frozen_pairs)), 0xB0C5])
        pair = box_pair(shape_DHW, self.global_boxes, rng)
        return pair, sub_boxes(pair, shape_DHW, self.local_boxes, NUM_LOCAL, rng)

    def plans(self, shape_DHW: Side3, key: str, rng: np.random.Generator) -> tuple[SolidPlan, SolidPlan]:
        """Plans of the global and of the local views of a volume."""
        pair, near = self.boxes(shape_DHW, key, rng)
        return draw_solid(pair, self.global_side, self.swaps, rng), draw_solid(near, self.local_side, 0, rng)


@dataclass(frozen=True, kw_only=True, slots=True)
class CdsslP3D(MethodConfig):
    """CDSSL-P3D in full: network and views.

    Attributes:
        lift: how an image becomes a volume; None for the geometry of its dataset.
        render: where views are made of what chance decided: by NumPy in loader threads, or for the whole batch on the device.
            Plans are equal, pixels agree to rounding, noise is drawn by the device's own generator.
    """

    kind: ClassVar[str] = "cdssl-p3d"
    accepts: ClassVar[frozenset[Presentation]] = frozenset(Presentation)
    # Batch norm of the projections is undefined for one sample; two it makes 1 and -1 in every channel, without a gradient.
    min_rank_batch: ClassVar[int] = 3

    backbone: BackboneSettings = field(default_factory=UNet3DSettings)
    level_mode: LevelMode = "random"
    flat: Views2D = field(default_factory=Views2D)
    solid: Views3D = field(default_factory=Views3D)
    lift: Lift | None = None
    render: Render = "workers"

    def __post_init__(self) -> None:
        if self.render not in get_args(Render):
            raise RunError(f"views are rendered by {' or '.join(get_args(Render))}; found {self.render!r}")
        if self.lift is not None:
            self._require_fitting(self.lift)

    def _require_fitting(self, lift: Lift) -> None:
        for side in (self.flat.global_side, self.flat.local_side):
            require_fitting(lift, side, self.backbone.side_multiple)

    def _lift_of(self, pseudo3d: Pseudo3D | None) -> Lift:
        """The lift of images of a dataset.

        Raises:
            GeometryError: if the network cannot pool the views that it makes.
        """
        lift = self.lift or Unrolled(geometry=pseudo3d or IMAGE_VIEW)
        self._require_fitting(lift)
        return lift

    def _lifted(self, images_NHW: Floats, lift: Lift) -> Floats:
        return lifted(images_NHW, lift, self.backbone.side_multiple)

    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """Two corrupted global views, the clean first one, six local views; or, for the device, a source and its plans."""
        if sample.presentation is Presentation.SUPERPATCH:
            return self._solid_drawn(sample, rng)
        return self._flat_drawn(sample, pseudo3d or IMAGE_VIEW, rng)

    def _flat_drawn(self, sample: Sample, spec: Pseudo3D, rng: np.random.Generator) -> Views:
        f, lift, stored_HW = self.flat, self._lift_of(spec), stored_image(sample, spec)
        wide, near = f.plans((stored_HW.shape[0], stored_HW.shape[1]), rng)
        if self.render == "device":
            return _sent(stored_HW, sample) | packed(wide, WIDE) | packed(near, NEAR) | {"geometry": encoded(spec)}
        image_HW = sample.scaling.unit(stored_HW)
        clean, spoilt = flat_views(image_HW, wide, f.global_side, f.hole_side)
        _, local = flat_views(image_HW, near, f.local_side, f.hole_side)
        first, second, target = self._lifted(np.stack([*spoilt, clean[0]]), lift)
        return {"view1": first, "view2": second, "clean1": target, "local": self._lifted(local, lift)}

    def _solid_drawn(self, sample: Sample, rng: np.random.Generator) -> Views:
        s, stored_DHW = self.solid, sample.array[0]
        wide, near = s.plans(_sides(stored_DHW), sample.key, rng)
        if self.render == "device":
            places = {
                f"{WIDE}.affine": wide.placement.affine(s.global_side),
                f"{NEAR}.affine": near.placement.affine(s.local_side),
            }
            return _sent(stored_DHW, sample) | packed(wide.corruption, WIDE) | packed(near.corruption, NEAR) | places
        volume_DHW = sample.scaling.unit(stored_DHW)
        clean, spoilt = solid_views(volume_DHW, wide, s.global_side)
        _, local = solid_views(volume_DHW, near, s.local_side)
        return {"view1": spoilt[0][None], "view2": spoilt[1][None], "clean1": clean[0][None], "local": local[:, None]}

    @torch.no_grad()
    def rendered(self, batch: Batch) -> dict[str, Tensor]:
        """The views of a batch that was drawn for the device; in float32 whatever the networks run in."""
        tensors = batch.tensors
        source = tensors["source"]
        with torch.autocast(source.device.type, enabled=False):
            unit = unit_range(source, tensors["scale"])
            return self._flat_rendered(unit, tensors) if "geometry" in tensors else self._solid_rendered(unit, tensors)

    def _flat_rendered(self, images_BHW: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        f, shapes = self.flat, tensors["shape"]
        lift = self.lift or Unrolled(geometry=decoded(tensors["geometry"]))

        def as_volumes(views_BVHW: Tensor) -> Tensor:
            volumes = lifted_torch(views_BVHW.flatten(0, 1), lift, self.backbone.side_multiple)
            return volumes.view(*views_BVHW.shape[:2], *volumes.shape[1:])

        clean, spoilt = flat_torch.flat_views(images_BHW, shapes, unpacked(FlatPlan, tensors, WIDE), f.global_side, f.hole_side)
        _, local = flat_torch.flat_views(images_BHW, shapes, unpacked(FlatPlan, tensors, NEAR), f.local_side, f.hole_side)
        first, second, target = as_volumes(torch.cat([spoilt, clean[:, :1]], dim=1)).unbind(1)
        return {"view1": first, "view2": second, "clean1": target, "local": as_volumes(local)}

    def _solid_rendered(self, volumes_BDHW: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        s, shapes = self.solid, tensors["shape"]
        clean = solid_torch.resampled(volumes_BDHW, shapes, tensors[f"{WIDE}.affine"], s.global_side)
        near = solid_torch.resampled(volumes_BDHW, shapes, tensors[f"{NEAR}.affine"], s.local_side)
        spoilt = solid_torch.corrupted(clean, unpacked(Corruption, tensors, WIDE))
        local = solid_torch.corrupted(near, unpacked(Corruption, tensors, NEAR))
        return {"view1": spoilt[:, :1], "view2": spoilt[:, 1:], "clean1": clean[:, :1], "local": local[:, :, None]}

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The whole image resized to the global side and lifted, or the whole superpatch on a cube of the global width."""
        if sample.presentation is Presentation.SUPERPATCH:
            cube = sample.unit()[0]
            side = self.solid.global_side[2]
            target = box_resampled(cube, (0, 0, 0), _sides(cube), (side, side, side))[None]
            return {"x": normalised(target), "target": target}
        size = (self.flat.global_side, self.flat.global_side)
        shown = Image.fromarray(image_of(sample, pseudo3d or IMAGE_VIEW)).resize(size, Image.Resampling.BILINEAR)
        image = np.asarray(shown)
        x, target = self._lifted(np.stack([normalised(image), image]), self._lift_of(pseudo3d))
        return {"x": x, "target": target}

    def seen_as(self, pseudo3d: Pseudo3D | None) -> Pseudo3D | None:
        """The lift's geometry, where it is one; the dataset's without a lift."""
        if self.lift is None:
            return pseudo3d
        return self.lift.geometry if isinstance(self.lift, Unrolled) else None

    def build(self) -> PyramidNet:
        """The network."""
        return PyramidNet(self.backbone, self.level_mode, self.rendered if self.render == "device" else as_drawn)


def _sent(stored: Array, sample: Sample) -> Views:
    """What the device needs beside the plans: stored numbers, their own size in a padded batch, and what they mean."""
    shape = np.array(stored.shape, np.int64)
    return {"source": stored, "shape": shape, "scale": unit_factors(sample.scaling)}


def _sides(volume_DHW: Array) -> Side3:
    return volume_DHW.shape[0], volume_DHW.shape[1], volume_DHW.shape[2]
