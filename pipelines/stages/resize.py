"""Bring images to a size that windows tile."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from crossdim.pipelines.readers.raw import add_note
from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.errors import SampleError, UsageError, list_wrong_settings
from crossdim.storage_schema.pseudo3d import Pseudo3D, to_gray
from crossdim.storage_schema.sample import Array, Sample

Crop = Literal["centre", "refuse"]
#: Rows that are held in floating point at a time; any number gives the same image.
_STRIP_ROWS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """How large an image may be, and whether rows and columns that no window tiles are cropped on both sides.

    Attributes:
        max_side (pixels): longest side that an image may have; larger ones are reduced.
        crop: rows and columns that no window covers: cropped on both sides (``centre``), or the image is refused
            (``refuse``).
    """

    max_side: int
    crop: Crop = "centre"

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            max_side=self.max_side >= 1,
            crop=self.crop in ("centre", "refuse"),
        ):
            raise UsageError(f"fit needs max_side >= 1 and crop centre or refuse; found {found}")


def fit(sample: Sample, config: Fit, spec: Pseudo3D) -> Sample:
    """Bring an image to a size that windows tile: gray if the view needs it, shrunk to the longest side allowed, then cropped.

    Args:
        sample: (C, H, W), uint8 or uint16.
        config: sizes.
        spec: the pseudo-3D view that the image will be unrolled to.

    Returns:
        (C, H', W'), same dtype; ``extra`` states the size of the image, the note what was cut.

    Raises:
        SampleError: rule ``too_small`` if not even one window fits, ``does_not_tile`` if rows or columns would be cut and
            ``crop`` refuses it.
    """
    image_CHW = _to_gray(sample.array) if spec.channel_mode == "gray" else sample.array
    image_CHW = shrink(image_CHW, config.max_side)
    top, left, height, width = find_tiling_box(image_CHW.shape[1], image_CHW.shape[2], spec)
    cut = (image_CHW.shape[1] - height, image_CHW.shape[2] - width)
    if any(cut) and config.crop == "refuse":
        raise SampleError(
            "does_not_tile", f"{image_CHW.shape[1]}x{image_CHW.shape[2]} leaves {cut[0]} rows and {cut[1]} columns to no window"
        )
    image_CHW = np.ascontiguousarray(image_CHW[:, top : top + height, left : left + width])
    ratio = None if image_CHW.shape[1:] == sample.array.shape[1:] else f"from {sample.array.shape[1]}x{sample.array.shape[2]}"
    crop = f"cut {cut[0]} rows and {cut[1]} columns" if any(cut) else None
    extra = {**sample.extra, "image_height": height, "image_width": width}
    return add_note(replace(sample, array=image_CHW, extra=extra, spacing_mm=None), ratio, crop)


@dataclass(frozen=True, kw_only=True, slots=True)
class FitStage(Stage):
    """:func:`fit` with its settings. It runs in the decoder process, so that images come back at the size that is published."""

    name: ClassVar[str] = "fit"
    in_decoder: ClassVar[bool] = True

    config: Fit
    spec: Pseudo3D

    def __call__(self, sample: Sample) -> Sample:
        """The image, fitted."""
        return fit(sample, self.config, self.spec)

    def preprocessing(self) -> dict[str, object]:
        """Sizes; the stage that makes the view records its geometry."""
        return {self.name: asdict(self.config)}


def _to_gray(image_CHW: Array) -> Array:
    """:func:`to_gray` by strips of rows: the whole image in 64 bits would need several times its memory."""
    strips = range(0, image_CHW.shape[1], _STRIP_ROWS)
    return np.concatenate([to_gray(image_CHW[:, start : start + _STRIP_ROWS]) for start in strips], axis=1)


def shrink(image_CHW: Array, max_side: int) -> Array:
    """Shrink an image with Lanczos, whose support grows with the ratio so that nothing aliases.

    Args:
        image_CHW: (C, H, W), uint8 or uint16.
        max_side: of the longer side, pixels; smaller images are returned as they are.

    Returns:
        (C, H', W'), same dtype and range.
    """
    height, width = image_CHW.shape[1:]
    if max(height, width) <= max_side:
        return image_CHW
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    planes = [_resize(plane, size) for plane in image_CHW]
    # Lanczos overshoots at edges; the image keeps its own range.
    fitted: Array = np.clip(np.rint(np.stack(planes)), image_CHW.min(), image_CHW.max()).astype(image_CHW.dtype)
    return fitted


def _resize(plane_HW: Array, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Resize one plane to (width, height): rows in strips, then columns, bit for bit as Pillow does with the whole."""
    width, height = size
    narrow = []
    for start in range(0, plane_HW.shape[0], _STRIP_ROWS):
        strip = plane_HW[start : start + _STRIP_ROWS].astype(np.float32)
        narrow.append(np.asarray(Image.fromarray(strip).resize((width, len(strip)), Image.Resampling.LANCZOS)))
    whole = Image.fromarray(np.concatenate(narrow))
    return np.asarray(whole.resize((width, height), Image.Resampling.LANCZOS))


def find_tiling_box(height: int, width: int, spec: Pseudo3D) -> tuple[int, int, int, int]:
    """Find the largest centred box that windows tile.

    Args:
        height: rows of the image, pixels.
        width: columns of the image, pixels.
        spec: geometry of the view.

    Returns:
        Top, left, height and width, pixels.

    Raises:
        SampleError: rule ``too_small`` if not even one window fits.
    """
    reach = spec.window - 2 * spec.padding
    if min(height, width) < max(reach, 1):
        raise SampleError("too_small", f"{height}x{width} pixels are less than one window of {spec.window}")
    left_over = [(side - reach) % spec.stride for side in (height, width)]
    return left_over[0] // 2, left_over[1] // 2, height - left_over[0], width - left_over[1]
