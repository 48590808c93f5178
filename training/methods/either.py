"""Views for networks that take images as images and volumes as volumes: stored pseudo-3D is folded back, nothing is lifted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.data.collate import Views
from crossdim.training.data.views import Floats, image_of, normalised
from crossdim.training.data.views.boxes import Side3, box_pair
from crossdim.training.data.views.flat import draw_flat, flat_views
from crossdim.training.data.views.solid import box_resampled, draw_solid, solid_views

#: Fallback geometry for plain images, which carry none of their own.
IMAGE_VIEW = Pseudo3D()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageViews:
    """Square views of an image: side in pixels, share of the image that they cover (torchvision's 0.08 .. 1 by default)."""

    side: int = 224
    area: tuple[float, float] = (0.08, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeViews:
    """Views of a volume, and the boxes they are cut from, voxels (D, H, W)."""

    side: Side3 = (64, 64, 64)
    boxes: tuple[Side3, ...] = ((64, 96, 96), (96, 96, 96), (64, 64, 64))


@dataclass(frozen=True, kw_only=True, slots=True)
class EitherViews:
    """Two distorted views of whatever a sample is, and the whole of it. Distortions are PCRLv2's, without holes and swaps."""

    flat: ImageViews = field(default_factory=ImageViews)
    solid: VolumeViews = field(default_factory=VolumeViews)

    def pair(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Two views, (1, H, W) or (1, D, H, W), normalised."""
        if sample.presentation is Presentation.SUPERPATCH:
            volume, s = sample.unit()[0], self.solid
            boxes = box_pair(sides(volume), s.boxes, rng)
            _, (one, two) = solid_views(volume, draw_solid(boxes, s.side, 0, rng), s.side)
        else:
            image, f = image_of(sample, pseudo3d or IMAGE_VIEW), self.flat
            plan = draw_flat((image.shape[0], image.shape[1]), rng, count=2, side=f.side, area=f.area, holes=0)
            _, (one, two) = flat_views(image, plan, f.side, 0)
        return one[None], two[None]

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The whole image or superpatch at the size of the views."""
        if sample.presentation is Presentation.SUPERPATCH:
            cube = sample.unit()[0]
            target = box_resampled(cube, (0, 0, 0), sides(cube), self.solid.side)
        else:
            image = Image.fromarray(image_of(sample, pseudo3d or IMAGE_VIEW))
            target = np.asarray(image.resize((self.flat.side, self.flat.side), Image.Resampling.BILINEAR))
        return {"x": normalised(target)[None], "target": target[None]}


def sides(volume_DHW: Floats) -> Side3:
    """(D, H, W)."""
    return volume_DHW.shape[0], volume_DHW.shape[1], volume_DHW.shape[2]
