"""Views for networks that take images as images and volumes as volumes; stored pseudo-3D is folded back to the image."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.data.collate import Views
from crossdim.training.data.views import Floats, image_of, normalise
from crossdim.training.data.views.boxes import Side3, draw_box_pair
from crossdim.training.data.views.resize import resize_box, sides
from crossdim.training.data.views.views_2d import draw_plan_2d, make_views_2d
from crossdim.training.data.views.views_3d import draw_plan_3d, make_views_3d

#: Geometry for plain images, whose datasets have none.
IMAGE_VIEW = Pseudo3D()
#: Sides of views at which the distortions have their published sizes; in smaller views they are smaller.
IMAGE_SIDE = 224
VOLUME_SIDE: Side3 = (64, 64, 64)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageViews:
    """Square views of an image.

    Attributes:
        side (pixels): side of a view.
        area: smallest and largest fraction of the image that a view covers (torchvision's 0.08 .. 1 by default).
    """

    side: int = IMAGE_SIDE
    area: tuple[float, float] = (0.08, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeViews:
    """Views of a volume, voxels (D, H, W).

    Attributes:
        side (voxels): sides of a view.
        boxes (voxels): sizes that views are cut from.
    """

    side: Side3 = VOLUME_SIDE
    boxes: tuple[Side3, ...] = ((64, 96, 96), (96, 96, 96), (64, 64, 64))


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleViews:
    """Two distorted views of an image or a volume, and the whole of it. Distortions are PCRLv2's, without holes and swaps.

    The names ``flat`` and ``solid`` are stored in the configurations of runs.

    Attributes:
        flat: views of images.
        solid: views of volumes.
    """

    flat: ImageViews = field(default_factory=ImageViews)
    solid: VolumeViews = field(default_factory=VolumeViews)

    def pair(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw two normalised views of a sample.

        Args:
            sample: as stored.
            pseudo3d: geometry of the dataset's pseudo-3D views.
            rng: source of the draws.

        Returns:
            Two arrays, (1, H, W) or (1, D, H, W).
        """
        if sample.presentation is Presentation.SUPERPATCH:
            volume, s = sample.unit()[0], self.solid
            boxes = draw_box_pair(sides(volume), s.boxes, rng)
            plan_3d = draw_plan_3d(boxes, s.side, VOLUME_SIDE, 0, rng)
            _, (one, two) = make_views_3d(volume, plan_3d, s.side, VOLUME_SIDE)
        else:
            image, f = image_of(sample, pseudo3d or IMAGE_VIEW), self.flat
            shape_HW = (image.shape[0], image.shape[1])
            plan = draw_plan_2d(shape_HW, rng, count=2, side=f.side, reference=IMAGE_SIDE, area=f.area, holes=0)
            _, (one, two) = make_views_2d(image, plan, f.side, 0)
        return one[None], two[None]

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The whole image or superpatch at the size of the views.

        Args:
            sample: as stored.
            pseudo3d: geometry of the dataset's pseudo-3D views.

        Returns:
            ``x``, normalised, and ``target`` in unit range.
        """
        if sample.presentation is Presentation.SUPERPATCH:
            cube = sample.unit()[0]
            target = resize_box(cube, (0, 0, 0), sides(cube), self.solid.side)
        else:
            image = Image.fromarray(image_of(sample, pseudo3d or IMAGE_VIEW))
            target = np.asarray(image.resize((self.flat.side, self.flat.side), Image.Resampling.BILINEAR))
        return {"x": normalise(target)[None], "target": target[None]}
