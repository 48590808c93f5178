"""CDSSL-P3D: images as pseudo-3D and true volumes through one 3D network, with the PCRLv2 objective.

Our implementation of Gao et al. (arXiv 2406.00947). The part of the paper that was available to us names the
transformation, the joint training and PCRLv2 as the base of the objective; k, s, view sizes and mixing are our choices.
Views follow PCRLv2's tables. An image is folded back from its stored pseudo-3D form, distorted in 2D, and unrolled again,
because a flip or a rotation of a pseudo-3D volume is not a flip or a rotation of the image. Depth flips are for true
volumes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crossdim.storage_schema.errors import RunError, describe_unknown_name
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Array, Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.backbones.unet3d import UNet3DSettings
from crossdim.training.data.collate import Batch, Views
from crossdim.training.data.views import Floats, image_of, normalise, views_2d_torch, views_3d_torch
from crossdim.training.data.views.boxes import Side3
from crossdim.training.data.views.filters_torch import to_unit_range
from crossdim.training.data.views.packing import pack, unpack
from crossdim.training.data.views.resize import resize_box, sides
from crossdim.training.data.views.source import stored_image
from crossdim.training.data.views.views_2d import Plan2D, make_views_2d
from crossdim.training.data.views.views_3d import Corruption, Plan3D, make_views_3d
from crossdim.training.methods.base import MethodConfig
from crossdim.training.methods.cdssl_views import (
    GLOBAL_SIDE_2D,
    GLOBAL_SIDE_3D,
    LOCAL_SIDE_2D,
    LOCAL_SIDE_3D,
    Views2D,
    Views3D,
)
from crossdim.training.methods.image_to_volume import (
    ImageToVolume,
    Unrolled,
    check_fits,
    decode_geometry,
    encode_geometry,
    to_volumes,
    to_volumes_torch,
)
from crossdim.training.methods.pyramid import PyramidNet, views_of_batch
from crossdim.training.objectives.pcrlv2 import LevelMode

#: Prefixes of the tensors that hold the plans of global and of local views.
GLOBAL, LOCAL = "global", "local"
Render = Literal["auto", "workers", "device"]
#: Geometry for plain images, whose datasets have none.
IMAGE_VIEW = Pseudo3D()


@dataclass(frozen=True, kw_only=True, slots=True)
class CdsslP3D(MethodConfig):
    """Settings of CDSSL-P3D.

    The names ``flat``, ``solid`` and ``lift`` are stored in the configurations of runs.

    Attributes:
        backbone: the 3D network.
        level_mode: which levels of the decoder are compared in a step: one at random, or all.
        flat: views of images.
        solid: views of volumes.
        lift: how an image becomes a volume; None for the geometry of its dataset.
        render: where views are rendered from their plans: by NumPy in loader threads (``workers``), or for the whole batch
            on the ``device``. Plans are the same, pixels agree up to rounding, and noise is drawn by the device's own
            generator. ``auto`` is the device if it is a GPU and all images of the run become volumes alike; what it chose is
            recorded, and kept by a resume.
    """

    kind: ClassVar[str] = "cdssl-p3d"
    accepts: ClassVar[frozenset[Presentation]] = frozenset(Presentation)
    # Batch norm of the projections is undefined for one sample; two become 1 and -1 in every channel, without a gradient.
    min_rank_batch: ClassVar[int] = 3
    compares: ClassVar[bool] = True

    backbone: BackboneSettings = field(default_factory=UNet3DSettings)
    level_mode: LevelMode = "random"
    flat: Views2D = field(default_factory=Views2D)
    solid: Views3D = field(default_factory=Views3D)
    lift: ImageToVolume | None = None
    render: Render = "auto"

    def __post_init__(self) -> None:
        if self.render not in get_args(Render):
            raise RunError(describe_unknown_name("value of render", self.render, get_args(Render)))
        if self.lift is not None:
            self._check_fits(self.lift)

    def _check_fits(self, lift: ImageToVolume) -> None:
        for side in (self.flat.global_side, self.flat.local_side):
            check_fits(lift, side, self.backbone.side_multiple)

    def _image_to_volume(self, pseudo3d: Pseudo3D | None) -> ImageToVolume:
        """The conversion for the images of a dataset.

        Raises:
            GeometryError: if the network cannot pool the views that it makes.
        """
        lift = self.lift or Unrolled(geometry=pseudo3d or IMAGE_VIEW)
        self._check_fits(lift)
        return lift

    def _to_volumes(self, images_NHW: Floats, lift: ImageToVolume) -> Floats:
        return to_volumes(images_NHW, lift, self.backbone.side_multiple)

    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """Draw two corrupted global views, the first one also clean, and six local views; or a source and plans for the device.

        Source: PCRLv2's views (code); images are distorted in 2D before they are unrolled (ours).

        Args:
            sample: as stored.
            pseudo3d: geometry of the dataset's pseudo-3D views; None for superpatches and plain images.
            rng: generator of the sample's position in the run.

        Returns:
            ``view1``, ``view2``, ``clean1`` and ``local`` as arrays, or the stored source and the fields of the plans.
        """
        if sample.presentation is Presentation.SUPERPATCH:
            return self._draw_3d(sample, rng)
        return self._draw_2d(sample, pseudo3d or IMAGE_VIEW, rng)

    def for_devices(self, geometries: frozenset[Pseudo3D], *, use_gpu: bool) -> CdsslP3D:
        """The same settings with ``render`` chosen, if it was ``auto``.

        Args:
            geometries: of the pseudo-3D views of the run's datasets; a batch on the device holds images of one.
            use_gpu: whether each worker has a GPU.

        Returns:
            Settings without ``auto``.
        """
        if self.render != "auto":
            return self
        alike = self.lift is not None or len(geometries) <= 1
        return replace(self, render="device" if use_gpu and alike else "workers")

    def rendered_by_workers(self) -> CdsslP3D:
        """The same settings with ``render`` of workers."""
        return replace(self, render="workers")

    def _draw_2d(self, sample: Sample, spec: Pseudo3D, rng: np.random.Generator) -> Views:
        f, lift, stored_HW = self.flat, self._image_to_volume(spec), stored_image(sample, spec)
        global_plan, local_plan = f.plans((stored_HW.shape[0], stored_HW.shape[1]), rng)
        if self.render == "device":
            return (
                _source_arrays(stored_HW, sample)
                | pack(global_plan, GLOBAL)
                | pack(local_plan, LOCAL)
                | {"geometry": encode_geometry(spec)}
            )
        image_HW = sample.scaling.unit(stored_HW)
        clean, corrupted = make_views_2d(image_HW, global_plan, f.global_side, f.hole_side)
        _, local = make_views_2d(image_HW, local_plan, f.local_side, f.hole_side)
        first, second, target = self._to_volumes(np.stack([*corrupted, clean[0]]), lift)
        return {"view1": first, "view2": second, "clean1": target, "local": self._to_volumes(local, lift)}

    def _draw_3d(self, sample: Sample, rng: np.random.Generator) -> Views:
        s, stored_DHW = self.solid, sample.array[0]
        global_plan, local_plan = s.plans(sides(stored_DHW), sample.key, rng)
        if self.render == "device":
            return (
                _source_arrays(stored_DHW, sample)
                | _pack_plan(global_plan, s.global_side, GLOBAL)
                | _pack_plan(local_plan, s.local_side, LOCAL)
            )
        volume_DHW = sample.scaling.unit(stored_DHW)
        clean, corrupted = make_views_3d(volume_DHW, global_plan, s.global_side, GLOBAL_SIDE_3D)
        _, local = make_views_3d(volume_DHW, local_plan, s.local_side, LOCAL_SIDE_3D)
        return {"view1": corrupted[0][None], "view2": corrupted[1][None], "clean1": clean[0][None], "local": local[:, None]}

    @torch.no_grad()
    def render_views(self, batch: Batch) -> dict[str, Tensor]:
        """Render the views of a batch that was drawn for the device; in float32, whatever the networks run in."""
        tensors = batch.tensors
        source = tensors["source"]
        with torch.autocast(source.device.type, enabled=False):
            unit = to_unit_range(source, tensors["scale"])
            return self._render_2d(unit, tensors) if "geometry" in tensors else self._render_3d(unit, tensors)

    def _render_2d(self, images_BHW: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        f, shapes = self.flat, tensors["shape"]
        lift = self.lift or Unrolled(geometry=decode_geometry(tensors["geometry"]))

        def as_volumes(views_BVHW: Tensor) -> Tensor:
            volumes = to_volumes_torch(views_BVHW.flatten(0, 1), lift, self.backbone.side_multiple)
            return volumes.view(*views_BVHW.shape[:2], *volumes.shape[1:])

        clean, corrupted = views_2d_torch.make_views_2d(
            images_BHW, shapes, unpack(Plan2D, tensors, GLOBAL), f.global_side, GLOBAL_SIDE_2D, f.hole_side
        )
        local_plan = unpack(Plan2D, tensors, LOCAL)
        _, local = views_2d_torch.make_views_2d(images_BHW, shapes, local_plan, f.local_side, LOCAL_SIDE_2D, f.hole_side)
        first, second, target = as_volumes(torch.cat([corrupted, clean[:, :1]], dim=1)).unbind(1)
        return {"view1": first, "view2": second, "clean1": target, "local": as_volumes(local)}

    def _render_3d(self, volumes_BDHW: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        s = self.solid
        clean, corrupted = _render_boxes(volumes_BDHW, tensors, GLOBAL, s.global_boxes, s.global_side, GLOBAL_SIDE_3D)
        _, local = _render_boxes(volumes_BDHW, tensors, LOCAL, s.local_boxes, s.local_side, LOCAL_SIDE_3D)
        return {"view1": corrupted[:, :1], "view2": corrupted[:, 1:], "clean1": clean[:, :1], "local": local[:, :, None]}

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The whole image at the global side as a volume, or the whole superpatch as a cube of the global width.

        Args:
            sample: as stored.
            pseudo3d: as for :meth:`draw`.

        Returns:
            ``x``, normalised, and ``target`` in unit range; (C, D, H, W) each.
        """
        if sample.presentation is Presentation.SUPERPATCH:
            cube = sample.unit()[0]
            side = self.solid.global_side[2]
            target = resize_box(cube, (0, 0, 0), sides(cube), (side, side, side))[None]
            return {"x": normalise(target), "target": target}
        size = (self.flat.global_side, self.flat.global_side)
        shown = Image.fromarray(image_of(sample, pseudo3d or IMAGE_VIEW)).resize(size, Image.Resampling.BILINEAR)
        image = np.asarray(shown)
        x, target = self._to_volumes(np.stack([normalise(image), image]), self._image_to_volume(pseudo3d))
        return {"x": x, "target": target}

    def encoder_geometry(self, pseudo3d: Pseudo3D | None) -> Pseudo3D | None:
        """The geometry of ``lift``, if it unrolls; the dataset's if there is no ``lift``."""
        if self.lift is None:
            return pseudo3d
        return self.lift.geometry if isinstance(self.lift, Unrolled) else None

    def build(self) -> PyramidNet:
        """The network."""
        return PyramidNet(self.backbone, self.level_mode, self.render_views if self.render == "device" else views_of_batch)


def _source_arrays(stored: Array, sample: Sample) -> Views:
    """What the device needs besides the plans: stored values, their own size in a padded batch, and their scale."""
    shape = np.array(stored.shape, np.int64)
    return {"source": stored, "shape": shape, "scale": np.array(sample.scaling.unit_factors())}


def _pack_plan(plan: Plan3D, side: Side3, prefix: str) -> Views:
    """A plan as named arrays, its placement as boxes and affine maps."""
    placement = plan.placement
    return pack(plan.corruption, prefix) | pack(placement.boxes, prefix) | {f"{prefix}.affine": placement.affine(side)}


def _render_boxes(
    volumes_BDHW: Tensor, tensors: dict[str, Tensor], prefix: str, sizes: Sequence[Side3], side: Side3, reference: Side3
) -> tuple[Tensor, Tensor]:
    """Clean and corrupted views of one kind, (B, V, D, H, W) each, from the plans of a batch."""
    start, size, affine = (tensors[f"{prefix}.{name}"] for name in ("start", "size", "affine"))
    clean = views_3d_torch.resample(views_3d_torch.resize_boxes(volumes_BDHW, start, size, sizes, side), affine)
    return clean, views_3d_torch.corrupt(clean, unpack(Corruption, tensors, prefix), reference)
