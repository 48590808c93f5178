"""A Cross-D network with a fixed rank, for images or for volumes, made of PyTorch's own modules only, for export.

Axes: B batch, C channel, H height, W width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.layers import anyrank
from crossdim.training.layers.crossd import CrossDConv
from crossdim.training.layers.transposed import CentreConvTranspose


def convert_to_plain_3d(network: nn.Module) -> nn.Module:
    """The network for volumes: every Cross-D convolution becomes a ``Conv3d`` with its kernel, without rotation nets.

    Outputs for (B, C, D, H, W) are those of the network, in training mode too. The copy shares no tensors.
    """
    return _replace_for_rank(network, 3, lambda layer: _build_conv3d(layer))


@torch.no_grad()
def convert_to_plain_2d(network: nn.Module, reference_BCHW: Tensor) -> nn.Module:
    """Convert a network for images: Cross-D convolutions become ``Conv2d`` with the kernel of the reference images' mean shift.

    Plain convolutions have one kernel for all images. For a single reference image, outputs are those of the network for it
    in evaluation mode; for other images they differ as far as their shifts do. Taking the mean of shifts is ours.

    Args:
        network: left as it is.
        reference_BCHW: representative images, as the network takes them.

    Returns:
        A copy in evaluation mode, (B, C, H, W) in, without Cross-D layers.
    """
    network = copy.deepcopy(network).eval()
    shifts: dict[CrossDConv, Tensor] = {}
    for layer in _layers(network):
        layer.register_forward_pre_hook(partial(_record_shift, shifts))
    network(reference_BCHW)
    return _replace_for_rank(network, 2, lambda layer: _build_conv2d(layer, shifts[layer]))


def _record_shift(shifts: dict[CrossDConv, Tensor], layer: CrossDConv, inputs: tuple[Tensor, ...]) -> None:
    if layer in shifts:
        raise GeometryError("a Cross-D convolution that is used twice has no one kernel to export")
    shifts[layer] = layer.shifts(inputs[0]).mean(0, keepdim=True)


def _layers(network: nn.Module) -> list[CrossDConv]:
    return [module for module in network.modules() if isinstance(module, CrossDConv)]


def _replace_for_rank(network: nn.Module, axes: Literal[2, 3], convolution: Callable[[CrossDConv], nn.Module]) -> nn.Module:
    done = {module: _replace_module(module, axes, convolution) for module in network.modules()}
    memo: dict[int, Any] = {id(old): new for old, new in done.items() if new is not None}
    return copy.deepcopy(network, memo)


def _replace_module(module: nn.Module, axes: Literal[2, 3], convolution: Callable[[CrossDConv], nn.Module]) -> nn.Module | None:
    """PyTorch's module for a number of spatial axes; None for what is copied as it is."""
    if isinstance(module, CrossDConv):
        new = convolution(module)
    elif isinstance(module, CentreConvTranspose):
        new = _build_conv_transpose(module, axes)
    elif isinstance(module, anyrank.Pool):
        new = module.for_rank(axes)
    elif isinstance(module, anyrank.BatchNorm):
        new = _load_tensors(
            (nn.BatchNorm2d if axes == 2 else nn.BatchNorm3d)(
                module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
            ),
            module.state_dict(),
        )
    elif isinstance(module, anyrank.InstanceNorm):
        new = _load_tensors(
            (nn.InstanceNorm2d if axes == 2 else nn.InstanceNorm3d)(
                module.num_features, module.eps, module.momentum or 0.0, module.affine, module.track_running_stats
            ),
            module.state_dict(),
        )
    elif isinstance(module, anyrank.ChannelDropout):
        new = (nn.Dropout2d if axes == 2 else nn.Dropout3d)(module.p, module.inplace)
    else:
        return None
    return new.train(module.training)


def _load_tensors(new: nn.Module, state: dict[str, Tensor | None]) -> nn.Module:
    """The new module with copies of tensors, on their device and in their dtype."""
    like = next((tensor for tensor in state.values() if tensor is not None and tensor.is_floating_point()), None)
    if like is not None:
        new.to(like.device, like.dtype)
    new.load_state_dict({name: tensor for name, tensor in state.items() if tensor is not None})
    return new


def _build_conv3d(layer: CrossDConv) -> nn.Module:
    g = layer.geometry
    new = nn.Conv3d(
        layer.in_channels,
        layer.out_channels,
        g.kernel,
        g.stride,
        g.padding,
        g.dilation,
        g.groups,
        layer.bias is not None,
        g.padding_mode,
    )
    return _load_tensors(new, {"weight": layer.weights_3d, "bias": layer.bias})


def _build_conv2d(layer: CrossDConv, shift_13: Tensor) -> nn.Module:
    g = layer.geometry
    new = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        g.kernel[1:],
        g.stride[1:],
        g.padding[1:],
        g.dilation[1:],
        g.groups,
        layer.bias is not None,
        g.padding_mode,
    )
    return _load_tensors(new, {"weight": layer.planes(shift_13)[0], "bias": layer.bias})


def _build_conv_transpose(layer: CentreConvTranspose, axes: Literal[2, 3]) -> nn.Module:
    kind: Any = nn.ConvTranspose2d if axes == 2 else nn.ConvTranspose3d
    weight = layer.weights_3d if axes == 3 else layer.weights_3d[:, :, layer.weights_3d.shape[2] // 2]
    geometry = {name: getattr(layer, name)[-axes:] for name in ("stride", "padding", "output_padding", "dilation")}
    new: nn.Module = kind(
        weight.shape[0],
        weight.shape[1] * layer.groups,
        tuple(weight.shape[2:]),
        groups=layer.groups,
        bias=layer.bias is not None,
        **geometry,
    )
    return _load_tensors(new, {"weight": weight, "bias": layer.bias})
