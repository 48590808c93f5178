"""What reconstructing methods share: the same crops of the same samples, and the size of their codes.

Masked autoencoders, AE, VAE and VQ-VAE are compared on equal views: for one seed and order, all of them see the same voxels.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.storage_schema.pseudo3d import Pseudo3D, unroll
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.data.collate import Batch, Views
from crossdim.training.data.views import Floats, image_of
from crossdim.training.layers.tokens import Counts
from crossdim.training.methods.base import Method

#: Geometry for plain images, whose datasets have none.
IMAGE_VIEW = Pseudo3D()
#: Bits of a voxel and of a number in a code.
FLOAT_BITS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Crops:
    """What is cut from a sample. No flips and no rotations (ours: none are known of MAESIL).

    The names of the fields are stored in the configurations of runs.

    Attributes:
        solid_side (voxels): side of the cube cut from a superpatch; at a random place if the superpatch is larger.
        flat_side (pixels): side that a random square of an image is resized to before it is unrolled.
        flat_area: smallest and largest fraction of the image that the square covers (as usual for masked autoencoders, but
            square).
        noise: deviation of Gaussian noise added to the input and not to the target, in unit range (NEMESIS; 0 for MAESIL).
    """

    solid_side: int = 128
    flat_side: int = 256
    flat_area: tuple[float, float] = (0.2, 1.0)
    noise: float = 0.0

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            solid_side=self.solid_side >= 1,
            flat_side=self.flat_side >= 1,
            flat_area=0 < self.flat_area[0] <= self.flat_area[1] <= 1,
            noise=self.noise >= 0,
        ):
            raise GeometryError(f"crops need sides of at least 1, areas in (0, 1] and noise of at least 0; found {found}")

    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """Draw view ``x`` in unit range, (C, D, H, W), and the clean ``target`` if ``x`` is noisy.

        Args:
            sample: as stored.
            pseudo3d: geometry of the dataset's pseudo-3D views.
            rng: source of the draws.

        Returns:
            ``x``, and ``target`` if ``x`` is noisy; (C, D, H, W), float32.

        Raises:
            GeometryError: if a superpatch is smaller than the cube.
        """
        if sample.presentation is Presentation.SUPERPATCH:
            room = self._room(sample)
            clean = self._cube(sample, tuple(rng.integers(0, np.add(room, 1))))
        else:
            spec = pseudo3d or IMAGE_VIEW
            clean = unroll(self._square(image_of(sample, spec), rng)[None], spec)
        if not self.noise:
            return {"x": clean}
        corrupted = clean + np.float32(self.noise) * rng.standard_normal(clean.shape, dtype=np.float32)
        return {"x": corrupted, "target": clean}

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The middle cube, or the whole image resized to the square and unrolled.

        Args:
            sample: as stored.
            pseudo3d: geometry of the dataset's pseudo-3D views.

        Returns:
            ``x`` and ``target``, the same array.
        """
        if sample.presentation is Presentation.SUPERPATCH:
            x = self._cube(sample, tuple(room // 2 for room in self._room(sample)))
        else:
            spec = pseudo3d or IMAGE_VIEW
            x = unroll(self._resize(image_of(sample, spec))[None], spec)
        return {"x": x, "target": x}

    def _square(self, image_HW: Floats, rng: np.random.Generator) -> Floats:
        height, width = image_HW.shape
        side = min(height, width, math.sqrt(rng.uniform(*self.flat_area) * height * width))
        top, left = rng.uniform(0, height - side), rng.uniform(0, width - side)
        return self._resize(image_HW, (left, top, left + side, top + side))

    def _resize(self, image_HW: Floats, edges: tuple[float, float, float, float] | None = None) -> Floats:
        side = (self.flat_side, self.flat_side)
        return np.asarray(Image.fromarray(image_HW).resize(side, Image.Resampling.BILINEAR, box=edges))

    def _room(self, sample: Sample) -> tuple[int, ...]:
        room = tuple(side - self.solid_side for side in sample.array.shape[1:])
        if min(room) < 0:
            raise GeometryError(
                f"sample {sample.key}: cubes of {self.solid_side}^3 do not fit into an array of {sample.array.shape}"
            )
        return room

    def _cube(self, sample: Sample, start: tuple[int, ...]) -> Floats:
        # Cropped before scaling, so that only the crop is converted to floats.
        return sample.scaling.unit(sample.array[(slice(None), *(slice(s, s + self.solid_side) for s in start))])


def sides_of(x_CDHW: Floats) -> Counts:
    """The three spatial sides of a view."""
    _, depth, height, width = x_CDHW.shape
    return depth, height, width


def target_of(batch: Batch) -> Tensor:
    """The tensor that a batch is to be reconstructed to."""
    return batch.tensors.get("target", batch.tensors["x"])


class Restorer(Method):
    """A method whose network turns a volume into a code, and the code into a reconstruction of the volume."""

    @abstractmethod
    def code_bits(self, shape_DHW: Counts) -> float:
        """Size of the code of a volume in bits: 32 per number, log2 K for an index of K entries."""

    def compression(self, shape_DHW: Counts) -> float:
        """How many times smaller the code is than the volume in float32; below 1 if it is larger.

        A reconstruction error says little without it: a code larger than its input can hold all of it.
        """
        return math.prod(shape_DHW) * self.encoder_spec.in_channels * FLOAT_BITS / self.code_bits(shape_DHW)
