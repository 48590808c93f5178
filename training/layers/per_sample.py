"""Convolution of every image with its own plane, mixed from the taps of one shared 3D kernel: equivalent forms, and the cheapest.

Each form saves only its inputs for the backward pass: planes and windows are recomputed, a few at a time.

Axes: B batch, C channel, H height, W width, O output channel, I input channel of a group, P taps of a plane, Q taps of a kernel,
L output pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from crossdim.storage_schema.errors import GeometryError, describe_unknown_name
from crossdim.training.layers.circulant import Term, build_mixing
from crossdim.training.layers.conv_geometry import ConvGeometry
from crossdim.training.layers.unfold import PIECE, multiply_unfolded, unfold_and_multiply, unfold_taps

Form = Literal["auto", "planes", "windows", "shared"]
#: Largest kernel, in taps, for which one product over all taps is faster than two, over depth and over the plane. Measured.
DENSE_TAPS = 27
#: With at most so many output pixels and at least so many channel pairs, products are faster than grouped convolution. CPUs.
FEW_PIXELS, MANY_PAIRS = 14 * 14, 256 * 128
#: With at most so many output pixels, mixing windows is faster than mixing weights; its backward pass too. Measured on CPUs.
SHARED_PIXELS, SHARED_PIXELS_TRAINING = 4 * 4, 7 * 7


def convolve_each(x_BCHW: Tensor, weights_3d: Tensor, terms: list[Term], geometry: ConvGeometry, form: Form = "auto") -> Tensor:
    """Convolve each image with its own planes.

    Args:
        x_BCHW: already padded unless with zeros.
        weights_3d: (O, I, Z, Y, X), shared by all.
        terms: of :func:`crossdim.training.layers.circulant.build_middle_terms`, for each sample.
        geometry: its padding is with zeros and remains to be done.
        form: ``mix_planes`` computes a plane for each pair of channels and sample and uses a grouped convolution; ``windows``
            does it for some output channels at a time and multiplies with unfolded windows; ``shared`` mixes the windows
            and not the weights, so that there are no weights per sample, at Z times the multiplications. ``auto`` takes the
            cheapest.

    Returns:
        (B, O, H', W'), in the images' dtype, or autocast's.

    Raises:
        GeometryError: if the form does not exist, or is ``windows`` or ``shared`` and there are groups.
    """
    if form not in get_args(Form):
        raise GeometryError(describe_unknown_name("form", form, get_args(Form)))
    if form in ("windows", "shared") and geometry.groups != 1:
        raise GeometryError(f"form {form} takes one group of channels; found {geometry.groups}")
    chosen = choose_form(x_BCHW, weights_3d, geometry) if form == "auto" else form
    dtype = x_BCHW.dtype
    if torch.is_autocast_enabled(x_BCHW.device.type) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x_BCHW.device.type)
    # Shifts are computed in float32 at least; so are planes, which are sums of Q numbers. Only the convolution is in bfloat16.
    with torch.autocast(x_BCHW.device.type, enabled=False):
        wide = weights_3d.to(terms[0][0].dtype)
        x = x_BCHW.to(dtype)
        if chosen == "windows":
            return unfold_and_multiply(x, wide, build_mixing(terms), geometry)
        if type(x.shape[0]) is not int or x.shape[0] == 0:
            # A convolution needs at least one group, but a batch may be empty, or of unknown size to an exporter.
            return multiply_unfolded(unfold_taps(x, geometry), wide.flatten(2), build_mixing(terms), geometry.groups)
        if chosen == "shared":
            return _convolve_in_pieces(
                partial(_convolve_shared, geometry=geometry), x, wide, [build_mixing(terms)], _numbers_of_windows(x, geometry)
            )
        numbers = geometry.plane_taps * wide.shape[0] * wide.shape[1]
        return _convolve_in_pieces(
            partial(_convolve_planes, geometry=geometry), x, wide, [t for term in terms for t in term], numbers
        )


def choose_form(x_BCHW: Tensor, weights_3d: Tensor, geometry: ConvGeometry) -> Form:
    """Choose the form that should be fastest, by thresholds that were measured on CPUs.

    Args:
        x_BCHW: images.
        weights_3d: (O, I, Z, Y, X).
        geometry: of the convolution.

    Returns:
        ``planes``, ``windows`` or ``shared``.
    """
    pixels = _pixels(x_BCHW, geometry)
    many = weights_3d[:, :, 0, 0, 0].numel() >= MANY_PAIRS
    if geometry.groups > 1 or weights_3d[0, 0].numel() > DENSE_TAPS or not many or pixels > FEW_PIXELS:
        return "planes"
    return "shared" if pixels <= (SHARED_PIXELS_TRAINING if torch.is_grad_enabled() else SHARED_PIXELS) else "windows"


def mix_planes(weights_3d: Tensor, terms: list[Term]) -> Tensor:
    """The plane of every sample for every pair of channels.

    Args:
        weights_3d: (O, I, Z, Y, X).
        terms: of :func:`crossdim.training.layers.circulant.build_middle_terms`.

    Returns:
        (B, O, I, Y, X).
    """
    out_channels, in_channels, _, *plane = weights_3d.shape
    batch = terms[0][0].shape[0]
    if weights_3d[0, 0].numel() <= DENSE_TAPS:
        mixed = build_mixing(terms).flatten(0, 1) @ weights_3d.flatten(2).flatten(0, 1).t()
        return mixed.view(batch, *plane, out_channels, in_channels).permute(0, 3, 4, 1, 2)
    slices_ZNP = weights_3d.flatten(3).flatten(0, 1).transpose(0, 1).flatten(1)
    middles = [((row @ slices_ZNP).view(batch, out_channels * in_channels, -1), map_) for row, map_ in terms]
    return (
        torch.stack([middle @ map_.transpose(1, 2) for middle, map_ in middles])
        .sum(0)
        .view(batch, out_channels, in_channels, *plane)
    )


def _convolve_in_pieces(
    function: Callable[..., Tensor], x_BCHW: Tensor, weights_3d: Tensor, of_samples: list[Tensor], numbers_of_sample: int
) -> Tensor:
    """Apply the function to a few samples at a time; the backward pass recomputes intermediate results."""
    if torch.compiler.is_compiling():
        return function(x_BCHW, weights_3d, *of_samples)
    samples = max(1, PIECE // numbers_of_sample)
    call = partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False) if torch.is_grad_enabled() else function
    pieces = zip(*(torch.split(tensor, samples) for tensor in (x_BCHW, *of_samples)), strict=True)
    results = [call(x, weights_3d, *rest) for x, *rest in pieces]
    return results[0] if len(results) == 1 else torch.cat(results)


def _convolve_planes(x_BCHW: Tensor, weights_3d: Tensor, *flat_terms: Tensor, geometry: ConvGeometry) -> Tensor:
    terms = list(zip(flat_terms[::2], flat_terms[1::2], strict=True))
    batch, _, *sides = x_BCHW.shape
    each = mix_planes(weights_3d, terms).flatten(0, 1).to(x_BCHW.dtype).contiguous()
    result = functional.conv2d(
        x_BCHW.reshape(1, -1, *sides),
        each,
        None,
        geometry.stride[1:],
        geometry.padding[1:],
        geometry.dilation[1:],
        batch * geometry.groups,
    )
    return result.view(batch, -1, *result.shape[2:])


def _convolve_shared(x_BCHW: Tensor, weights_3d: Tensor, mixing_BPQ: Tensor, geometry: ConvGeometry) -> Tensor:
    window = unfold_taps(x_BCHW, geometry)
    batch, taps, _, height, width = window.shape
    # Pixels outermost, then channels, taps innermost, as in the weights, so that no product needs a transposed matrix.
    rows = window.permute(0, 3, 4, 2, 1).reshape(batch, -1, taps) @ mixing_BPQ.to(window.dtype)
    result = rows.view(batch * height * width, -1) @ weights_3d.flatten(1).to(window.dtype).t()
    return result.view(batch, height, width, -1).permute(0, 3, 1, 2).contiguous()


def _numbers_of_windows(x_BCHW: Tensor, geometry: ConvGeometry) -> int:
    """Numbers in the mixed windows of a sample."""
    return math.prod(geometry.kernel) * x_BCHW.shape[1] * _pixels(x_BCHW, geometry)


def _pixels(x_BCHW: Tensor, geometry: ConvGeometry) -> int:
    """Output pixels of an image."""
    height, width = (geometry.output_side(axis, x_BCHW.shape[axis + 1], geometry.padding[axis]) for axis in (1, 2))
    return height * width
