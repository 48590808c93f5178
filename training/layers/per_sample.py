"""Convolution of every image with its own plane, mixed from the taps of one shared 3D kernel: equal forms, and which is cheapest.

Each form keeps for the backward pass only what it was given: planes and windows are made again, a few at a time.

Axes: B batch, C channel, H height, W width, O output channel, I input channel of a group, P taps of a plane, Q taps of a kernel,
L output pixels.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from storage_schema.errors import GeometryError, unknown_name
from training.layers.circulant import Term, mixing
from training.layers.geometry import Geometry

Form = Literal["auto", "planes", "windows", "shared"]
#: Largest kernel, in taps, for which all taps at once beat depth first, plane second: one product instead of two. Measured.
DENSE_TAPS = 27
#: Up to this many output pixels, and from this many channel pairs on, products of windows beat grouped convolution. Measured.
FEW_PIXELS, MANY_PAIRS = 14 * 14, 256 * 128
#: Numbers in the planes that exist at one time: larger pieces leave the cache, and memory is asked for anew. Measured.
PIECE = 2**22
SAMPLES_OF_PIECE = 8


def convolve_each(x_BCHW: Tensor, weights_3d: Tensor, terms: list[Term], geometry: Geometry, form: Form = "auto") -> Tensor:
    """Convolve each image with its own planes.

    Args:
        x_BCHW: padded already where the padding mode is not zeros.
        weights_3d: (O, I, Z, Y, X), shared by all.
        terms: of :func:`training.layers.circulant.shifted_middle`, for each sample.
        geometry: its padding is that of zeros, which remains to be done.
        form: ``planes`` synthesises a plane for each pair of channels and sample and convolves in groups; ``windows`` does it
            for some output channels at a time and multiplies with unfolded windows; ``shared`` mixes the windows and not the
            weights, so that there are no weights of a sample, at Z times the multiplications. ``auto`` takes the cheapest.

    Raises:
        GeometryError: if the form does not exist, or is ``windows`` or ``shared`` and there are groups.
    """
    if form not in get_args(Form):
        raise GeometryError(unknown_name("form", form, get_args(Form)))
    if form in ("windows", "shared") and geometry.groups != 1:
        raise GeometryError(f"form {form} takes one group of channels; found {geometry.groups}")
    chosen = cheapest(x_BCHW, weights_3d, geometry) if form == "auto" else form
    dtype = x_BCHW.dtype
    if torch.is_autocast_enabled(x_BCHW.device.type) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x_BCHW.device.type)
    # Shifts are computed in float32 at least; so are planes, which are sums of Q numbers. Only the convolution is in bfloat16.
    with torch.autocast(x_BCHW.device.type, enabled=False):
        wide = weights_3d.to(terms[0][0].dtype)
        if chosen == "planes" and (type(x_BCHW.shape[0]) is not int or x_BCHW.shape[0] == 0):
            # Groups of a convolution are a number above 0; a batch may be empty, or unknown to an exporter.
            return _multiplied(windows(x_BCHW.to(dtype), geometry), wide.flatten(2), mixing(terms), geometry.groups)
        if chosen == "planes":
            return _kept_small(
                partial(_with_planes, geometry=geometry), x_BCHW.to(dtype), wide, *(t for term in terms for t in term)
            )
        if chosen == "shared":
            return _kept_small(partial(_with_shared, geometry=geometry), x_BCHW.to(dtype), wide, mixing(terms))
        return _with_windows(x_BCHW.to(dtype), wide, mixing(terms), geometry)


def cheapest(x_BCHW: Tensor, weights_3d: Tensor, geometry: Geometry) -> Form:
    """The form that should be fastest: by arithmetic where it decides, else by measurement on CPUs."""
    pixels = geometry.output_side(1, x_BCHW.shape[2], geometry.padding[1]) * geometry.output_side(
        2, x_BCHW.shape[3], geometry.padding[2]
    )
    taps = weights_3d[0, 0].numel()
    if geometry.groups > 1 or taps > DENSE_TAPS:
        return "planes"
    if taps * pixels < geometry.plane_taps * (taps + pixels):
        return "shared"
    return "windows" if pixels <= FEW_PIXELS and weights_3d[:, :, 0, 0, 0].numel() >= MANY_PAIRS else "planes"


def planes(weights_3d: Tensor, terms: list[Term]) -> Tensor:
    """The plane of every sample for every pair of channels, (B, O, I, Y, X)."""
    out_channels, in_channels, _, *plane = weights_3d.shape
    batch = terms[0][0].shape[0]
    if weights_3d[0, 0].numel() <= DENSE_TAPS:
        mixed = mixing(terms).flatten(0, 1) @ weights_3d.flatten(2).flatten(0, 1).t()
        return mixed.view(batch, *plane, out_channels, in_channels).permute(0, 3, 4, 1, 2)
    slices_ZNP = weights_3d.flatten(3).flatten(0, 1).transpose(0, 1).flatten(1)
    middles = [((row @ slices_ZNP).view(batch, out_channels * in_channels, -1), map_) for row, map_ in terms]
    return (
        torch.stack([middle @ map_.transpose(1, 2) for middle, map_ in middles])
        .sum(0)
        .view(batch, out_channels, in_channels, *plane)
    )


def _kept_small(function: Any, *inputs: Tensor) -> Tensor:
    """The function's result, whose backward pass computes it again instead of keeping what lies between."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        result: Tensor = function(*inputs)
        return result
    kept: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return kept


def _with_planes(x_BCHW: Tensor, weights_3d: Tensor, *flat_terms: Tensor, geometry: Geometry) -> Tensor:
    terms = list(zip(flat_terms[::2], flat_terms[1::2], strict=True))
    batch, _, *sides = x_BCHW.shape
    each = planes(weights_3d, terms).flatten(0, 1).to(x_BCHW.dtype).contiguous()
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


def _with_shared(x_BCHW: Tensor, weights_3d: Tensor, mixing_BPQ: Tensor, geometry: Geometry) -> Tensor:
    window = windows(x_BCHW, geometry)
    batch, _, _, height, width = window.shape
    mixed = mixing_BPQ.transpose(1, 2).to(window.dtype) @ window.flatten(2)
    flat = weights_3d.flatten(2).transpose(1, 2).flatten(1).to(window.dtype)
    return (flat @ mixed.view(batch, -1, height * width)).view(batch, len(flat), height, width)


def windows(x_BCHW: Tensor, geometry: Geometry) -> Tensor:
    """What each tap of a plane sees, (B, P, C, H', W')."""
    _, rows, columns = geometry.kernel
    height, width = (geometry.output_side(axis, x_BCHW.shape[axis + 1], geometry.padding[axis]) for axis in (1, 2))
    top, left = geometry.padding[1:]
    x_BCHW = functional.pad(x_BCHW, (left, left, top, top))
    taps = [
        x_BCHW[:, :, _reach(row, height, geometry, 1), _reach(column, width, geometry, 2)]
        for row in range(rows)
        for column in range(columns)
    ]
    return torch.stack(taps, dim=1)


def _reach(tap: int, outputs: int, geometry: Geometry, axis: int) -> slice:
    start = tap * geometry.dilation[axis]
    return slice(start, start + (outputs - 1) * geometry.stride[axis] + 1, geometry.stride[axis])


def _with_windows(x_BCHW: Tensor, weights_3d: Tensor, mixing_BPQ: Tensor, geometry: Geometry) -> Tensor:
    if torch.compiler.is_compiling():
        return _multiplied(windows(x_BCHW, geometry), weights_3d.flatten(2), mixing_BPQ)
    result: Tensor = _WindowProducts.apply(x_BCHW, weights_3d, mixing_BPQ, geometry)  # type: ignore[no-untyped-call]
    return result


def _synthesised(weights_OIQ: Tensor, mixing_BPQ: Tensor, dtype: torch.dtype) -> Tensor:
    """Planes laid out for products with windows, (B, O, P I)."""
    outputs, batch = weights_OIQ.shape[0], mixing_BPQ.shape[0]
    mixed = torch.bmm(mixing_BPQ.flatten(0, 1).expand(outputs, -1, -1), weights_OIQ.transpose(1, 2))
    return mixed.to(dtype).view(outputs, batch, mixing_BPQ.shape[1] * weights_OIQ.shape[1]).transpose(0, 1)


def _multiplied(window_BPCHW: Tensor, weights_OIQ: Tensor, mixing_BPQ: Tensor, groups: int = 1) -> Tensor:
    each = _synthesised(weights_OIQ, mixing_BPQ, window_BPCHW.dtype)
    batch, taps, channels, height, width = window_BPCHW.shape
    grouped = window_BPCHW.view(batch, taps, groups, channels // groups, height * width).transpose(1, 2)
    outputs = weights_OIQ.shape[0]
    each = each.reshape(batch * groups, outputs // groups, each.shape[2])
    return torch.bmm(each, grouped.reshape(batch * groups, each.shape[2], height * width)).view(batch, outputs, height, width)


class _WindowProducts(torch.autograd.Function):
    """Pieces of few samples and few output channels, so that planes never exist all at once, forward or backward."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, weights_3d: Tensor, mixing_BPQ: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x_BCHW, weights_3d, mixing_BPQ)
        ctx.geometry = geometry
        weights = weights_3d.flatten(2)
        rows = []
        for x, mix in zip(torch.split(x_BCHW, SAMPLES_OF_PIECE), torch.split(mixing_BPQ, SAMPLES_OF_PIECE), strict=True):
            window = windows(x, geometry)
            rows.append(
                torch.cat(
                    [_multiplied(window, some, mix) for some in torch.split(weights, _outputs_of_piece(weights, mix))], dim=1
                )
            )
        return torch.cat(rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_BOHW: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x_BCHW, weights_3d, mixing_BPQ = ctx.saved_tensors
        weights = weights_3d.flatten(2)
        grad_weights = torch.zeros_like(weights)
        grads_x, grads_mixing = [], []
        pieces = (torch.split(tensor, SAMPLES_OF_PIECE) for tensor in (x_BCHW, mixing_BPQ, grad_BOHW))
        for x, mix, grad in zip(*pieces, strict=True):
            of_x, of_mixing = _backward_of_samples(x, mix, grad, weights, grad_weights, ctx.geometry)
            grads_x.append(of_x)
            grads_mixing.append(of_mixing)
        return torch.cat(grads_x), grad_weights.view_as(weights_3d), torch.cat(grads_mixing), None


def _outputs_of_piece(weights_OIQ: Tensor, mixing_BPQ: Tensor) -> int:
    """Output channels at a time."""
    return max(1, PIECE // (mixing_BPQ.shape[0] * mixing_BPQ.shape[1] * weights_OIQ.shape[1]))


def _backward_of_samples(
    x_BCHW: Tensor, mixing_BPQ: Tensor, grad_BOHW: Tensor, weights_OIQ: Tensor, grad_weights_OIQ: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    """Gradients of a few samples and of their mixing; that of the weights is added to what is there."""
    with torch.enable_grad():
        x = x_BCHW.detach().requires_grad_()
        window = windows(x, geometry)
    flat = window.detach().flatten(3).flatten(1, 2)
    batch, taps, _ = mixing_BPQ.shape
    mix = mixing_BPQ.flatten(0, 1)
    grad_window, grad_mixing = torch.zeros_like(flat), torch.zeros_like(mix)
    step = _outputs_of_piece(weights_OIQ, mixing_BPQ)
    for weights, grad_weights, grad in zip(
        torch.split(weights_OIQ, step),
        torch.split(grad_weights_OIQ, step),
        torch.split(grad_BOHW.flatten(2), step, dim=1),
        strict=True,
    ):
        grad_window.baddbmm_(_synthesised(weights, mixing_BPQ, flat.dtype).transpose(1, 2), grad)
        grad_each = torch.bmm(grad, flat.transpose(1, 2)).to(mix.dtype)
        by_output = grad_each.transpose(0, 1).reshape(len(weights), batch * taps, -1)
        grad_weights.baddbmm_(by_output.transpose(1, 2), mix.expand(len(weights), -1, -1))
        grad_mixing += torch.bmm(by_output, weights).sum(0)
    (grad_x,) = torch.autograd.grad(window, x, grad_window.view_as(window))
    return grad_x, grad_mixing.view_as(mixing_BPQ)
