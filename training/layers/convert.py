"""Convert a 2D network to one for volumes, with its weights and batch norms.

Every attribute is mapped by name, and what cannot be mapped is refused: no module is left as it was because it is unknown.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor, nn

from crossdim.storage_schema.errors import DocumentError, GeometryError, Problem, describe_unknown_name
from crossdim.training.layers import anyrank
from crossdim.training.layers.acs import ACSConv, MeanACSConv, PlaneConv, SoftACSConv, thirds
from crossdim.training.layers.conv25d import Conv25D
from crossdim.training.layers.crossd import CrossDConv, Mode
from crossdim.training.layers.kernel_inflation import Inflation, axes_of, inflate_kernel
from crossdim.training.layers.transposed import CentreConvTranspose, PlaneConvTranspose

Target = Literal["crossd", "acs", "soft_acs", "mean_acs", "conv25d", "conv3d"]
PLANE_CONVS: dict[str, type[PlaneConv]] = {"acs": ACSConv, "soft_acs": SoftACSConv, "mean_acs": MeanACSConv}
#: Modules that depend on the number of spatial axes without having it in their name.
BOUND = (nn.Fold, nn.Unfold, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What convolutions become.

    Attributes:
        to: the operator for volumes.
        mode: of Cross-D convolutions.
        inflation: how weights of ``conv3d`` are made; Cross-D keeps a 2D kernel in its middle slice, where angle 0 finds it.
    """

    to: Target
    mode: Mode = "centered"
    inflation: Inflation = "i3d"

    def __post_init__(self) -> None:
        if self.to not in get_args(Target):
            raise GeometryError(describe_unknown_name("target", self.to, get_args(Target)))


def convert(model_2d: nn.Module, *, to: Target, mode: Mode = "centered", inflation: Inflation = "i3d") -> nn.Module:
    """Convert a copy of a 2D network, in which every module for images is replaced.

    Weights, biases, statistics of norms, training flags, frozen parameters, device and dtype are kept; a module that is
    used twice stays one module. With ``crossd``, ``acs``, ``soft_acs`` and ``mean_acs`` the network takes images and
    volumes, and gives the same output for images as the 2D network; with ``conv3d`` and ``conv25d`` it takes volumes.

    Functions that are called in a ``forward``, such as ``functional.interpolate``, are not seen here and stay as they are.

    Args:
        model_2d: left as it is.
        to: the operator for volumes.
        mode: of Cross-D convolutions.
        inflation: of ``conv3d``.

    Returns:
        The converted copy.

    Raises:
        DocumentError: naming every module that cannot be replaced, and why.
    """
    conversion = Conversion(to=to, mode=mode, inflation=inflation)
    model = copy.deepcopy(model_2d)
    done: dict[int, nn.Module] = {}
    problems = []
    for name, module in model.named_modules():
        try:
            done[id(module)] = _replace_module(module, conversion)
        except GeometryError as error:
            problems.append(Problem(loc=name or "(root)", message=str(error)))
    if problems:
        raise DocumentError(f"{type(model_2d).__name__} cannot become {to}", problems)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None:
                parent._modules[name] = done[id(child)]
    return done[id(model)]


def _replace_module(module: nn.Module, conversion: Conversion) -> nn.Module:
    """The module for volumes; the module itself if it does not depend on the number of axes."""
    kind = type(module)
    if isinstance(module, nn.Conv2d) and kind is nn.Conv2d:
        return _copy_state(_build_convolution(module, conversion), module)
    if isinstance(module, nn.ConvTranspose2d) and kind is nn.ConvTranspose2d:
        return _copy_state(_build_transposed_convolution(module, conversion), module)
    if kind in OTHERS:
        return _copy_state(OTHERS[kind](module), module)
    if isinstance(module, (*OTHERS, nn.Conv2d, nn.ConvTranspose2d)):
        raise GeometryError(
            f"{kind.__name__} is a subclass; only PyTorch's own classes, without parametrizations, can be converted"
        )
    if isinstance(module, BOUND) or kind.__name__.endswith(("1d", "2d", "3d")):
        raise GeometryError(f"{kind.__name__} has no counterpart here")
    return module


def _copy_state(new: nn.Module, old: nn.Module) -> nn.Module:
    """The new module with the device, dtype, training flag and frozen parameters of the old one."""
    if old._forward_hooks or old._forward_pre_hooks or old._backward_hooks or old._backward_pre_hooks:
        raise GeometryError(f"{type(old).__name__} has hooks, which would be lost")
    like = next(old.parameters(), None)
    if like is not None:
        new.to(like.device, like.dtype)
        for name, parameter in new.named_parameters():
            source = getattr(old, "weight" if name == "weights_3d" else name, like)
            parameter.requires_grad_((like if source is None else source).requires_grad)
    return new.train(old.training)


def _check_same_for_both(numbers: Any, what: str) -> int:
    """The number that both axes have.

    Raises:
        GeometryError: if rows and columns differ, because the number for depth would be ambiguous.
    """
    both = (numbers, numbers) if isinstance(numbers, int) else tuple(numbers)
    if both[0] != both[1] or not isinstance(both[0], int):
        raise GeometryError(f"{what} {both} differs between rows and columns, so that the value for depth is ambiguous")
    return both[0]


def _check_padding(conv: nn.Conv2d, kernel: int, dilation: int) -> int:
    if conv.padding == "valid":
        return 0
    if conv.padding == "same":
        if kernel % 2 == 0:
            raise GeometryError("padding 'same' of an even kernel pads one side more than the other, which is not supported")
        return dilation * (kernel // 2)
    return _check_same_for_both(conv.padding, "padding")


def _build_convolution(conv: nn.Conv2d, conversion: Conversion) -> nn.Module:
    kernel, dilation = _check_same_for_both(conv.kernel_size, "kernel"), _check_same_for_both(conv.dilation, "dilation")
    arguments: dict[str, Any] = {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "kernel_size": kernel,
        "stride": _check_same_for_both(conv.stride, "stride"),
        "padding": _check_padding(conv, kernel, dilation),
        "dilation": dilation,
        "groups": conv.groups,
        "bias": conv.bias is not None,
        "padding_mode": conv.padding_mode,
    }
    if conversion.to == "crossd":
        crossd = CrossDConv(**arguments, mode=conversion.mode)
        centre = inflate_kernel(conv.weight.detach(), "centre", depth=kernel)
        _set(crossd.weights_3d, centre.roll((-1, -1, -1), dims=(2, 3, 4)) if conversion.mode == "paper" else centre)
        if crossd.rotation_params is not None:
            crossd.rotation_params.reset_to_zero_angle()
        new: nn.Module = crossd
    elif conversion.to == "conv25d":
        new = Conv25D(**arguments)
        _set(new.weight, conv.weight.unsqueeze(2))
    elif conversion.to == "conv3d":
        new = nn.Conv3d(**arguments)
        across = axes_of(thirds(conv.out_channels)) if conversion.inflation == "acs" else None
        _set(new.weight, inflate_kernel(conv.weight.detach(), conversion.inflation, depth=kernel, across=across))
    else:
        new = PLANE_CONVS[conversion.to](**arguments)
        _set(new.weight, conv.weight)
    if conv.bias is not None:
        _set(new.bias, conv.bias)
    return new


def _build_transposed_convolution(conv: nn.ConvTranspose2d, conversion: Conversion) -> nn.Module:
    """The same for all targets: a cube that is zero except for a plane. Only ACS has planes across other axes than depth."""
    new = PlaneConvTranspose(
        conv.in_channels,
        conv.out_channels,
        _check_same_for_both(conv.kernel_size, "kernel"),
        stride=_check_same_for_both(conv.stride, "stride"),
        padding=_check_same_for_both(conv.padding, "padding"),
        output_padding=_check_same_for_both(conv.output_padding, "output padding"),
        dilation=_check_same_for_both(conv.dilation, "dilation"),
        groups=conv.groups,
        bias=conv.bias is not None,
        split=thirds(conv.out_channels) if conversion.to == "acs" else (conv.out_channels, 0, 0),
    )
    _set(new.weight, conv.weight)
    if conv.bias is not None:
        _set(new.bias, conv.bias)
    return CentreConvTranspose(new) if conversion.to in ("crossd", "conv3d") else new


def _set(parameter: Tensor | nn.Module | None, value: Tensor) -> None:
    assert isinstance(parameter, Tensor)
    parameter.data = value.detach().clone()


def _norm(kind: type[anyrank.BatchNorm] | type[anyrank.InstanceNorm]) -> Callable[[Any], nn.Module]:
    def norm(old: Any) -> nn.Module:
        new = kind(old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats)
        new._parameters, new._buffers = old._parameters, old._buffers
        return new

    return norm


def _build_max_pool(old: Any) -> nn.Module:
    if old.return_indices:
        raise GeometryError("MaxPool2d returns indices, which is not supported")
    return anyrank.MaxPool(
        _check_same_for_both(old.kernel_size, "kernel"),
        stride=_check_same_for_both(old.stride, "stride"),
        padding=_check_same_for_both(old.padding, "padding"),
        dilation=_check_same_for_both(old.dilation, "dilation"),
        ceil_mode=old.ceil_mode,
    )


def _build_avg_pool(old: Any) -> nn.Module:
    if old.divisor_override is not None:
        raise GeometryError("AvgPool2d has a divisor_override, which would mean another number of voxels in volumes")
    return anyrank.AvgPool(
        _check_same_for_both(old.kernel_size, "kernel"),
        stride=_check_same_for_both(old.stride, "stride"),
        padding=_check_same_for_both(old.padding, "padding"),
        ceil_mode=old.ceil_mode,
        count_include_pad=old.count_include_pad,
    )


def _adaptive(maximum: bool) -> Callable[[Any], nn.Module]:
    def adaptive(old: Any) -> nn.Module:
        if maximum and old.return_indices:
            raise GeometryError("AdaptiveMaxPool2d returns indices, which is not supported")
        return anyrank.AdaptivePool(_check_same_for_both(old.output_size, "output size"), maximum=maximum)

    return adaptive


def _upsample(old: Any) -> nn.Module:
    if old.mode not in ("nearest", "bilinear") or not isinstance(old.scale_factor, (int, float)):
        raise GeometryError(f"Upsample is supported with one factor, nearest or bilinear; found {old.extra_repr()}")
    return anyrank.Upsample(float(old.scale_factor), linear=old.mode == "bilinear", align_corners=bool(old.align_corners))


OTHERS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.BatchNorm2d: _norm(anyrank.BatchNorm),
    nn.InstanceNorm2d: _norm(anyrank.InstanceNorm),
    nn.MaxPool2d: _build_max_pool,
    nn.AvgPool2d: _build_avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive(maximum=False),
    nn.AdaptiveMaxPool2d: _adaptive(maximum=True),
    nn.Upsample: _upsample,
    nn.UpsamplingNearest2d: _upsample,
    nn.Dropout2d: lambda old: anyrank.ChannelDropout(old.p, inplace=old.inplace),
}
