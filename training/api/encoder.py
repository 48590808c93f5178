"""A trained encoder that prepares its own input: normalised, unrolled and padded as in training."""

from __future__ import annotations

import io
import os
from itertools import islice
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossdim.foundation.location import split_query
from crossdim.storage_schema.errors import GeometryError, RunError, StorageError, describe_unknown_name
from crossdim.storage_schema.names import escape_name
from crossdim.storage_schema.pseudo3d import LUMA_RGB, Pseudo3D
from crossdim.training.api.inputs import Axes, Input, split_inputs
from crossdim.training.api.store import open_bucket_at
from crossdim.training.backbones import load_encoder as read_encoder
from crossdim.training.backbones.base import PER_SAMPLE, UNIT_RANGE, EncoderSpec
from crossdim.training.layers.crossd import CrossDConv
from crossdim.training.layers.dual_norm import select_statistics
from crossdim.training.layers.pseudo3d import fold_torch, unroll_torch

#: Inputs that go through the network together.
BATCH = 16
#: Values further from 0..1 than this are in other units.
UNIT_TOLERANCE = 0.5


class Encoder:
    """A trained encoder, in evaluation mode. Made by :func:`crossdim.load_encoder`.

    What :meth:`prepare` does to each input, and so :meth:`embed`:

    1. It is normalised as in training, over the whole input: zero mean and unit deviation, or nothing.
    2. An image is unrolled with the encoder's own pseudo-3D geometry. An encoder that takes images as they are, as Cross-D's,
       gets the image instead, also of a stored pseudo-3D view, which is folded back.
    3. Zeros are added behind its ends until each side is a multiple of ``spec.side_multiple``; to an image before it is
       unrolled, so that the sides of its view are. After normalisation, zero is the mean.

    Nothing is resized: an encoder knows structures at the size at which it was trained on them.

    Attributes:
        module: the network: (B, C, D, H, W), or (B, C, H, W) if :attr:`takes_images`, to the deepest feature map.
        spec: what it is and how it is fed.
        geometry: of the pseudo-3D views that it was trained on; None if it saw none.
        takes_images: whether it takes images as they are.
    """

    def __init__(self, module: nn.Module, spec: EncoderSpec) -> None:
        if spec.normalisation not in (PER_SAMPLE, UNIT_RANGE):
            raise RunError(describe_unknown_name("normalisation", spec.normalisation, (PER_SAMPLE, UNIT_RANGE)))
        self.module, self.spec = module, spec
        self.geometry = Pseudo3D(**spec.pseudo3d) if spec.pseudo3d else None
        self.takes_images = any(isinstance(layer, CrossDConv | nn.Conv2d) for layer in module.modules())

    @property
    def num_features(self) -> int:
        """F of what :meth:`embed` returns."""
        return self.spec.num_features

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    def to(self, device: torch.device | str) -> Encoder:
        """Move the network; returns the encoder itself."""
        self.module.to(device)
        return self

    @torch.no_grad()
    def embed(self, data: Any, *, axes: Axes | None = None) -> Tensor:
        """Features of inputs of any size: the mean of the deepest map over space.

        Args:
            data: a NumPy array or a tensor in unit range; a sample of a dataset; a batch of a loader; or several samples, as a
                dataset or a list.
            axes: of an array or a tensor, one of HW, CHW, BCHW, DHW, CDHW, BCDHW. None tells them apart: 2 axes are an
                image; 3 an image if the first has ``in_channels`` or 3 entries, otherwise a volume; 4 images if the second
                has ``in_channels`` entries, a volume with channels if only the first has; 5 a batch of volumes.

        Returns:
            (B, F) float32, without gradients, on the encoder's device. The network runs in evaluation mode, and is left in the
            mode that it was in.

        Raises:
            GeometryError: if axes or channels do not fit, a value is not finite, or an image is given to an encoder that was
                trained on volumes alone.
            TypeError: for data of another kind, such as a path.
        """
        modes = {layer: layer.training for layer in self.module.modules()}
        self.module.eval()
        try:
            inputs = split_inputs(data, self.spec.in_channels, axes)
            found = [part for chunk in iter(lambda: list(islice(inputs, BATCH)), []) for part in self._features(chunk)]
        finally:
            for layer, mode in modes.items():
                layer.training = mode
        return torch.stack(found) if found else torch.empty(0, self.num_features, device=self.device)

    def _features(self, inputs: list[Input]) -> list[Tensor]:
        """Features of each input; equal sizes share a pass through the network."""
        groups: dict[tuple[bool, torch.Size], list[int]] = {}
        prepared = [self._prepare_one(one) for one in inputs]
        for number, (one, x) in enumerate(zip(inputs, prepared, strict=True)):
            groups.setdefault((self._is_flat(one), x.shape), []).append(number)
        found: dict[int, Tensor] = {}
        for (flat, _), numbers in groups.items():
            self._select(flat)
            deepest = self.module(torch.stack([prepared[number] for number in numbers]))
            found.update(zip(numbers, deepest.flatten(2).mean(dim=2).float(), strict=True))
        return [found[number] for number in range(len(inputs))]

    def prepare(self, data: Any, *, axes: Axes | None = None) -> Tensor:
        """Inputs as the network takes them, for training on: ``encoder.module(encoder.prepare(batch)).flatten(2).mean(2)``.

        Args:
            data: as :meth:`embed` takes it.
            axes: as there.

        Returns:
            (B, C, D, H, W), or (B, C, H, W) for images of an encoder that takes them, on the encoder's device.

        Raises:
            GeometryError: as :meth:`embed`; and if inputs differ in size or kind, so that no tensor holds all of them.
        """
        inputs = list(split_inputs(data, self.spec.in_channels, axes))
        prepared = [self._prepare_one(one) for one in inputs]
        if len({(x.shape, self._is_flat(one)) for one, x in zip(inputs, prepared, strict=True)}) != 1:
            shapes = ", ".join(sorted({str(tuple(x.shape)) for x in prepared})) or "no input"
            raise GeometryError(f"one tensor holds inputs of one size and kind; found {shapes}. Crop them alike, or take embed")
        self._select(self._is_flat(inputs[0]))
        return torch.stack(prepared)

    @staticmethod
    def _is_flat(one: Input) -> bool:
        return one.is_image or one.view_of is not None

    def _select(self, flat: bool) -> None:
        select_statistics(self.module, "pseudo3d" if flat else "superpatch")

    def _prepare_one(self, one: Input) -> Tensor:
        x, view_of = one.values.to(self.device), one.view_of
        if not x.isfinite().all():
            raise GeometryError(f"an input of shape {tuple(x.shape)} holds NaN or infinite values; its features would be NaN")
        if view_of is not None and (self.takes_images or view_of != self.geometry):
            x, view_of = _fold(x, view_of), None
        if x.ndim == 3 and x.shape[0] == 3 and self.spec.in_channels == 1:
            x = torch.tensordot(torch.tensor(LUMA_RGB, device=x.device), x, dims=1)[None]
        x = self._normalise(x)
        if x.ndim == 3 and not self.takes_images:
            x = self._unroll(x)
        if x.shape[0] != self.spec.in_channels:
            raise GeometryError(f"the encoder takes {self.spec.in_channels} channels; found {tuple(one.values.shape)}")
        return _pad(x, self.spec.side_multiple)

    def _normalise(self, x: Tensor) -> Tensor:
        if self.spec.normalisation == PER_SAMPLE:
            deviation = x.std(correction=0)
            return (x - x.mean()) / torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
        least, most = x.aminmax()
        if least < -UNIT_TOLERANCE or most > 1 + UNIT_TOLERANCE:
            raise GeometryError(
                f"the encoder takes values in unit range, 0..1; found {least:.4g}..{most:.4g}. A sample's unit() gives them"
            )
        return x

    def _unroll(self, image_CHW: Tensor) -> Tensor:
        geometry = self.geometry
        if geometry is None:
            raise GeometryError("the encoder was trained on volumes alone and knows no way to unroll an image; give it volumes")
        sides = [_side_that_tiles(side, geometry, self.spec.side_multiple) for side in image_CHW.shape[1:]]
        missing = [wanted - side for wanted, side in zip(sides, image_CHW.shape[1:], strict=True)]
        return unroll_torch(functional.pad(image_CHW, (0, missing[1], 0, missing[0]))[None], geometry)[0]

    def __repr__(self) -> str:
        s = self.spec
        images = "as they are" if self.takes_images else "not taken"
        if self.geometry:
            images = f"unrolled, window {self.geometry.window} at stride {self.geometry.stride}"
        return (
            f"Encoder {s.backbone}: {s.in_channels} channels to {s.num_features} features; sides are multiples of "
            f"{s.side_multiple}; images {images}; normalisation: {s.normalisation}"
        )


def _fold(view_CDHW: Tensor, geometry: Pseudo3D) -> Tensor:
    """Fold a stored view back to its image."""
    if not geometry.reversible:
        raise GeometryError(
            f"a pseudo-3D view of window {geometry.window} and stride {geometry.stride} cannot be folded exactly; give the image"
        )
    height, width = (side * geometry.window for side in view_CDHW.shape[-2:])
    return fold_torch(view_CDHW[None], geometry, height, width)[0]


def _side_that_tiles(side: int, geometry: Pseudo3D, multiple: int) -> int:
    """The smallest side, not below ``side``, along which windows tile the image and their number is a multiple."""
    wanted = multiple if geometry.layout == "offset" else 1
    windows = max(1, -(-(side + 2 * geometry.padding - geometry.window) // geometry.stride) + 1)
    windows = -(-windows // wanted) * wanted
    return (windows - 1) * geometry.stride + geometry.window - 2 * geometry.padding


def _pad(x: Tensor, multiple: int) -> Tensor:
    """Pad with zeros at the ends of the spatial axes, so that all are multiples."""
    ends = [end for side in reversed(x.shape[1:]) for end in (0, -side % multiple)]
    return functional.pad(x, ends) if any(ends) else x


def load_encoder(url: str | PathLike[str], **store_options: Any) -> Encoder:
    """Load the encoder of a run.

    Args:
        url: the folder of a run, or its ``encoder.pt``: a path or any fsspec URL.
        **store_options: as :func:`crossdim.open` takes them.

    Returns:
        The encoder, on the CPU, in evaluation mode.

    Raises:
        StorageError: if there is none, or its bytes are not those that were written.
        RunError: if this release cannot build it.
    """
    from crossdim.training.run_dir.layout import ENCODER

    base, query = split_query(fspath(url))
    if base.endswith(".pt") and not os.path.isdir(base):
        folder, slash, name = base.rpartition("/")
        bucket, path = open_bucket_at((folder or slash or ".") + query, store_options), escape_name(name)
    else:
        bucket, path = open_bucket_at(url, store_options), ENCODER
    if not bucket.exists(path):
        raise StorageError(
            f"{bucket.where(path)} does not exist; a run writes {ENCODER} with its first checkpoint. Name the folder of a "
            "run, or the file itself"
        )
    return Encoder(*read_encoder(io.BytesIO(bucket.read(path)), bucket.where(path)))
