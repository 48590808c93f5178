"""A Swin transformer for volumes: three stages of windowed attention, with patch merging between them.

Source: Liu et al., Swin (arXiv 2103.14030), whose tiny size gives width, heads and depths of the first three stages; Video
Swin (arXiv 2106.13230) for the third dimension. Patches of 2 and windows of (4, 7, 7) are ours: a pseudo-3D view of
(16, 56, 56) becomes maps of (8, 28, 28), (4, 14, 14) and (2, 7, 7), which such windows tile.
Axes: B batch, C channel, D depth, H height, W width, E embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.backbones.decoder import Triple, upsampling
from crossdim.training.backbones.initialisation import initialise_small_normal
from crossdim.training.backbones.window_attention import WindowAttention
from crossdim.training.layers.attention import build_feed_forward
from crossdim.training.layers.dual_norm import NORMS, Norm

STAGES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Swin3DSettings(BackboneSettings):
    """Sizes of the three stages.

    Attributes:
        in_channels: channels of the input.
        width: channels of a token in the first stage; it doubles with every merging.
        depths: blocks of each stage; every second one shifts its windows.
        heads: attention heads of each stage.
        window (tokens): size of an attention window along (D, H, W).
        patch (voxels): size of a token along (D, H, W).
        level_widths: channels of the decoder's levels; PCRLv2's.
        decoder_norm: norm of the decoder; the encoder's is layer norm.
    """

    kind: ClassVar[str] = "swin3d"

    in_channels: int = 1
    width: int = 96
    depths: Triple = (2, 2, 6)
    heads: Triple = (3, 6, 12)
    window: Triple = (4, 7, 7)
    patch: Triple = (2, 2, 2)
    level_widths: Triple = (256, 128, 64)
    decoder_norm: Norm = "bn"

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            in_channels=self.in_channels >= 1,
            width=min(self.widths) >= 1,
            depths=min(self.depths) >= 1,
            heads=min(self.heads) >= 1,
            window=min(self.window) >= 1,
            patch=min(self.patch) >= 1,
            level_widths=min(self.level_widths) >= 1,
            decoder_norm=self.decoder_norm in NORMS,
        ):
            raise GeometryError(f"a Swin needs sizes of at least 1 and a decoder norm out of {', '.join(NORMS)}; found {found}")
        if any(width % heads for width, heads in zip(self.widths, self.heads, strict=True)):
            raise GeometryError(f"stages of {self.widths} channels must be divisible by their heads; found {self.heads}")
        upsampling(self.reduction)

    @property
    def widths(self) -> Triple:
        """Width of a token in each stage."""
        return self.width, 2 * self.width, 4 * self.width

    @property
    def num_features(self) -> int:
        """Width of a token in the last stage."""
        return self.widths[-1]

    @property
    def reduction(self) -> Triple:
        """The patch, times 4 for two mergings."""
        d, h, w = (edge * 2 ** (STAGES - 1) for edge in self.patch)
        return d, h, w

    def encoder(self) -> Swin3D:
        """12,610,374 parameters with the defaults; the decoder has 7,921,024."""
        return Swin3D(self)


class Swin3D(nn.Module):
    """(B, C, D, H, W) -> (B, 384, D/8, H/8, W/8) with the defaults."""

    def __init__(self, settings: Swin3DSettings) -> None:
        super().__init__()
        self._reduction = settings.reduction
        self.embed = nn.Conv3d(settings.in_channels, settings.width, settings.patch, stride=settings.patch)
        self.embed_norm = nn.LayerNorm(settings.width)
        sizes = zip(settings.widths, settings.depths, settings.heads, strict=True)
        self.stages = nn.ModuleList(
            nn.ModuleList(SwinBlock(width, heads, settings.window, shifted=bool(i % 2)) for i in range(depth))
            for width, depth, heads in sizes
        )
        self.merge = nn.ModuleList(Merging(width) for width in settings.widths[:-1])
        self.norm = nn.LayerNorm(settings.num_features)
        self.apply(initialise_small_normal)

    def units(self) -> list[nn.Module]:
        """The blocks."""
        return [block for stage in self.stages for block in stage]  # type: ignore[attr-defined]

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """The feature map of the last stage, after a last norm.

        Raises:
            GeometryError: if a side is not a multiple of the reduction.
        """
        if any(side % r for side, r in zip(x_BCDHW.shape[2:], self._reduction, strict=True)):
            raise GeometryError(
                f"patches and mergings of a Swin need sides that are multiples of {self._reduction}; found {tuple(x_BCDHW.shape)}"
            )
        # The dtype of the norm and not of the convolution, so that under autocast the residual stream stays float32.
        x_BDHWE = self.embed_norm(self.embed(x_BCDHW).movedim(1, -1).to(self.embed_norm.weight.dtype))
        for number, stage in enumerate(self.stages):
            if number:
                x_BDHWE = self.merge[number - 1](x_BDHWE).to(x_BDHWE.dtype)
            for block in stage:  # type: ignore[attr-defined]
                x_BDHWE = block(x_BDHWE)
        deepest: Tensor = self.norm(x_BDHWE).movedim(-1, 1)
        return deepest


class SwinBlock(nn.Module):
    """Windowed attention and a feed-forward layer, each after a norm and added to the residual stream."""

    def __init__(self, width: int, heads: int, window: Triple, *, shifted: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, window, shifted)
        self.feed = build_feed_forward(width, 4 * width)

    def forward(self, x_BDHWE: Tensor) -> Tensor:
        """The same shape."""
        x_BDHWE = x_BDHWE + self.attention(self.norm1(x_BDHWE))
        result: Tensor = x_BDHWE + self.feed(self.norm2(x_BDHWE))
        return result


class Merging(nn.Module):
    """Every 2 x 2 x 2 tokens become one of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(8 * width), nn.Linear(8 * width, 2 * width, bias=False)

    def forward(self, x_BDHWE: Tensor) -> Tensor:
        """(B, D, H, W, E) -> (B, D/2, H/2, W/2, 2 E)."""
        batch, d, h, w, width = x_BDHWE.shape
        cubes = x_BDHWE.reshape(batch, d // 2, 2, h // 2, 2, w // 2, 2, width).permute(0, 1, 3, 5, 2, 4, 6, 7)
        merged: Tensor = self.reduce(self.norm(cubes.flatten(4)))
        return merged
