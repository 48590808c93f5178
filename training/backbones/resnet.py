"""ResNets for images, for volumes, and for both: one definition with the convolution as an argument.

Source: He et al. (arXiv 1512.03385); names of weights, and the stride in the 3 x 3 convolution of a bottleneck, as in
torchvision. Cross-D networks use a Cross-D convolution everywhere, as published (arXiv 2411.02441).
Axes: B batch, C channel, D depth, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.layers import anyrank
from crossdim.training.layers.conv_geometry import Triple
from crossdim.training.layers.crossd import CrossDConv
from crossdim.training.layers.dual_norm import Norm

Depth = Literal[18, 50]
Operator = Literal["conv2d", "conv3d", "crossd"]
#: Blocks of the four stages.
BLOCKS: dict[int, tuple[int, int, int, int]] = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The modules that depend on the number of spatial axes."""

    conv: Callable[..., nn.Module]
    norm: Callable[[int], nn.Module]
    max_pool: Callable[..., nn.Module]
    mean_pool: Callable[[int], nn.Module]


PARTS: dict[Operator, Parts] = {
    "conv2d": Parts(conv=nn.Conv2d, norm=nn.BatchNorm2d, max_pool=nn.MaxPool2d, mean_pool=nn.AdaptiveAvgPool2d),
    "conv3d": Parts(conv=nn.Conv3d, norm=nn.BatchNorm3d, max_pool=nn.MaxPool3d, mean_pool=nn.AdaptiveAvgPool3d),
    "crossd": Parts(conv=CrossDConv, norm=anyrank.BatchNorm, max_pool=anyrank.MaxPool, mean_pool=anyrank.AdaptivePool),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetSettings(BackboneSettings):
    """Settings of a ResNet.

    Attributes:
        depth: number of layers: 18 or 50.
        operator: decides what the encoder takes: ``crossd`` images and volumes, ``conv3d`` volumes, ``conv2d`` images.
        base_width: channels of the stem (64 in the paper); all other widths scale with it.
        in_channels: channels of the input.
    """

    kind: ClassVar[str] = "resnet"

    depth: Depth = 18
    operator: Operator = "crossd"
    base_width: int = 64
    in_channels: int = 1

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            depth=self.depth in BLOCKS,
            operator=self.operator in get_args(Operator),
            base_width=self.base_width >= 1,
            in_channels=self.in_channels >= 1,
        ):
            raise GeometryError(
                f"a ResNet has depth {' or '.join(map(str, BLOCKS))}, operator {', '.join(get_args(Operator))} and widths of at "
                f"least 1; found {found}"
            )

    @property
    def expansion(self) -> int:
        """Output channels of a block per inner channel."""
        return 1 if self.depth == 18 else 4

    @property
    def num_features(self) -> int:
        """512 for ResNet-18, 2048 for ResNet-50."""
        return self.base_width * 8 * self.expansion

    @property
    def pyramid_widths(self) -> tuple[int, int, int, int, int]:
        """Channels of the maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's size."""
        b, e = self.base_width, self.expansion
        return b, b * e, 2 * b * e, 4 * b * e, 8 * b * e

    @property
    def reduction(self) -> Triple:
        """32 along every axis."""
        return 32, 32, 32

    @property
    def level_widths(self) -> Triple:
        """Channels of the decoder's three levels: those of PCRLv2 at the same stem width."""
        return self.base_width * 4, self.base_width * 2, self.base_width

    @property
    def decoder_norm(self) -> Norm:
        """Batch norm, as in the encoder."""
        return "bn"

    def encoder(self) -> ResNetEncoder:
        """For ResNet-18 and gray input, 11,170,240 parameters with ``conv2d``, 33,216,260 with ``crossd``."""
        return ResNetEncoder(self)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, parts: Parts, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = parts.conv(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = parts.norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = parts.conv(width, width, 3, padding=1, bias=False)
        self.bn2 = parts.norm(width)
        self.downsample = build_shortcut(parts, width_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        result: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return result


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of one tap, beside a shortcut."""

    def __init__(self, parts: Parts, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = parts.conv(width_in, width, 1, bias=False)
        self.bn1 = parts.norm(width)
        self.conv2 = parts.conv(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = parts.norm(width)
        self.conv3 = parts.conv(width, 4 * width, 1, bias=False)
        self.bn3 = parts.norm(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = build_shortcut(parts, width_in, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        result: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return result


def build_shortcut(parts: Parts, width_in: int, width_out: int, stride: int) -> nn.Sequential | None:
    """Build a convolution of one tap if a block changes size or width.

    Args:
        parts: modules for the number of axes.
        width_in: input channels of the block.
        width_out: output channels of the block.
        stride: of the block.

    Returns:
        (B, width_in, ...) -> (B, width_out, ...); None if the input itself is the shortcut.
    """
    if stride == 1 and width_in == width_out:
        return None
    return nn.Sequential(parts.conv(width_in, width_out, 1, stride=stride, bias=False), parts.norm(width_out))


class ResNetEncoder(nn.Module):
    """(B, C, H, W) or (B, C, D, H, W), depending on the operator -> the deepest feature map, at 1/32 of the size."""

    def __init__(self, settings: ResNetSettings) -> None:
        super().__init__()
        parts, base = PARTS[settings.operator], settings.base_width
        block = BasicBlock if settings.expansion == 1 else Bottleneck
        self.conv1 = parts.conv(settings.in_channels, base, 7, stride=2, padding=3, bias=False)
        self.bn1 = parts.norm(base)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = parts.max_pool(3, stride=2, padding=1)
        width_in = base
        for stage, count in enumerate(BLOCKS[settings.depth]):
            width, stride = base * 2**stage, 1 if stage == 0 else 2
            blocks = [block(parts, width_in, width, stride)]
            width_in = width * settings.expansion
            blocks += [block(parts, width_in, width, 1) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d) and module.bias is None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def units(self) -> list[nn.Module]:
        """Every block."""
        return [block for stage in self._stages() for block in stage]

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Feature maps at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's size, of the input's rank."""
        maps = [self.relu(self.bn1(self.conv1(x)))]
        y = self.maxpool(maps[0])
        for stage in self._stages():
            y = stage(y)
            maps.append(y)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """The deepest map of the pyramid."""
        y: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self._stages():
            y = stage(y)
        return y

    def _stages(self) -> list[nn.Sequential]:
        stages = [self.get_submodule(f"layer{stage}") for stage in (1, 2, 3, 4)]
        return [stage for stage in stages if isinstance(stage, nn.Sequential)]


class ResNet(ResNetEncoder):
    """The encoder, the mean over space and a linear layer: (B, num_classes). With ``conv2d`` its state is torchvision's."""

    def __init__(self, settings: ResNetSettings, num_classes: int) -> None:
        super().__init__(settings)
        self.avgpool = PARTS[settings.operator].mean_pool(1)
        self.fc = nn.Linear(settings.num_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the classes."""
        scores: Tensor = self.fc(self.avgpool(super().forward(x)).flatten(1))
        return scores


def extract_published_weights(document: dict[str, Any]) -> dict[str, Tensor]:
    """Extract the weights of a checkpoint of the Cross-D authors, with the names of ``ResNet``.

    Such a document is a state or has one under ``model``, and may come from a compiled network. Their layers have mode
    ``paper``; the layers drop rotation nets of kernels of one tap.
    """
    state = document.get("model", document)
    return {name.removeprefix("_orig_mod."): tensor for name, tensor in state.items()}
