"""Products of planes with unfolded windows, for small maps with many channels, where grouped convolution is slow.

Axes: B batch, C channel, H height, W width, O output channel, I input channel of a group, P taps of a plane, Q taps of a kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from crossdim.training.layers.conv_geometry import ConvGeometry

#: Numbers in the planes that exist at a time: larger pieces exceed the cache and allocate new memory. Measured.
PIECE = 2**22
SAMPLES_OF_PIECE = 8


def unfold_taps(x_BCHW: Tensor, geometry: ConvGeometry) -> Tensor:
    """The input of each tap of a plane.

    Args:
        x_BCHW: images.
        geometry: its padding is with zeros.

    Returns:
        (B, P, C, H', W').
    """
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


def _reach(tap: int, outputs: int, geometry: ConvGeometry, axis: int) -> slice:
    start = tap * geometry.dilation[axis]
    return slice(start, start + (outputs - 1) * geometry.stride[axis] + 1, geometry.stride[axis])


def unfold_and_multiply(x_BCHW: Tensor, weights_3d: Tensor, mixing_BPQ: Tensor, geometry: ConvGeometry) -> Tensor:
    """Convolve every image with the planes that its own matrix mixes from the weights.

    Args:
        x_BCHW: images, in the dtype of the convolution.
        weights_3d: (O, C, Z, Y, X).
        mixing_BPQ: of :func:`crossdim.training.layers.circulant.build_mixing`.
        geometry: of one group.

    Returns:
        (B, O, H', W').
    """
    if torch.compiler.is_compiling():
        return multiply_unfolded(unfold_taps(x_BCHW, geometry), weights_3d.flatten(2), mixing_BPQ)
    result: Tensor = _UnfoldedProducts.apply(x_BCHW, weights_3d, mixing_BPQ, geometry)  # type: ignore[no-untyped-call]
    return result


def _synthesise_planes(weights_OIQ: Tensor, mixing_BPQ: Tensor, dtype: torch.dtype) -> Tensor:
    """Planes in the layout for products with windows, (B, O, P I)."""
    outputs, batch = weights_OIQ.shape[0], mixing_BPQ.shape[0]
    mixed = torch.bmm(mixing_BPQ.flatten(0, 1).expand(outputs, -1, -1), weights_OIQ.transpose(1, 2))
    return mixed.to(dtype).view(outputs, batch, mixing_BPQ.shape[1] * weights_OIQ.shape[1]).transpose(0, 1)


def multiply_unfolded(window_BPCHW: Tensor, weights_OIQ: Tensor, mixing_BPQ: Tensor, groups: int = 1) -> Tensor:
    """Multiply windows with the planes mixed for each sample, all at once.

    Args:
        window_BPCHW: of :func:`unfold_taps`.
        weights_OIQ: shared by all samples.
        mixing_BPQ: of :func:`crossdim.training.layers.circulant.build_mixing`.
        groups: of channels.

    Returns:
        (B, O, H', W').
    """
    each = _synthesise_planes(weights_OIQ, mixing_BPQ, window_BPCHW.dtype)
    batch, taps, channels, height, width = window_BPCHW.shape
    grouped = window_BPCHW.view(batch, taps, groups, channels // groups, height * width).transpose(1, 2)
    outputs = weights_OIQ.shape[0]
    each = each.reshape(batch * groups, outputs // groups, each.shape[2])
    return torch.bmm(each, grouped.reshape(batch * groups, each.shape[2], height * width)).view(batch, outputs, height, width)


class _UnfoldedProducts(torch.autograd.Function):
    """Works on a few samples and output channels at a time, so that planes never exist all at once, forward or backward."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, weights_3d: Tensor, mixing_BPQ: Tensor, geometry: ConvGeometry) -> Tensor:
        """See :func:`unfold_and_multiply`."""
        ctx.save_for_backward(x_BCHW, weights_3d, mixing_BPQ)
        ctx.geometry = geometry
        weights = weights_3d.flatten(2)
        rows = []
        for x, mix in zip(torch.split(x_BCHW, SAMPLES_OF_PIECE), torch.split(mixing_BPQ, SAMPLES_OF_PIECE), strict=True):
            window = unfold_taps(x, geometry)
            rows.append(
                torch.cat(
                    [multiply_unfolded(window, some, mix) for some in torch.split(weights, _outputs_of_piece(weights, mix))],
                    dim=1,
                )
            )
        return torch.cat(rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_BOHW: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Gradients of images, weights and mixing."""
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
    x_BCHW: Tensor, mixing_BPQ: Tensor, grad_BOHW: Tensor, weights_OIQ: Tensor, grad_weights_OIQ: Tensor, geometry: ConvGeometry
) -> tuple[Tensor, Tensor]:
    """Gradients of a few samples and of their mixing; that of the weights is added in place."""
    with torch.enable_grad():
        x = x_BCHW.detach().requires_grad_()
        window = unfold_taps(x, geometry)
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
        grad_window.baddbmm_(_synthesise_planes(weights, mixing_BPQ, flat.dtype).transpose(1, 2), grad)
        grad_each = torch.bmm(grad, flat.transpose(1, 2)).to(mix.dtype)
        by_output = grad_each.transpose(0, 1).reshape(len(weights), batch * taps, -1)
        grad_weights.baddbmm_(by_output.transpose(1, 2), mix.expand(len(weights), -1, -1))
        grad_mixing += torch.bmm(by_output, weights).sum(0)
    (grad_x,) = torch.autograd.grad(window, x, grad_window.view_as(window))
    return grad_x, grad_mixing.view_as(mixing_BPQ)
