"""A plain vision transformer for volumes: patches of a view become tokens, all of which attend to each other.

Source: Dosovitskiy et al., ViT (arXiv 2010.11929); width, depth and heads are those of its small size (DeiT, arXiv
2012.12877). Patches of (4, 8, 8) are ours: a pseudo-3D view of (16, 56, 56) becomes 4 x 7 x 7 = 196 tokens, as many as ViT
makes of an image. Axes: B batch, C channel, D depth, H height, W width, N tokens, E embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.backbones.decoder import Triple, upsampling
from crossdim.training.backbones.initialisation import initialise_small_normal
from crossdim.training.layers.attention import FullBlock, Sites
from crossdim.training.layers.dual_norm import NORMS, Norm
from crossdim.training.layers.tokens import AXES, count_tokens, sinusoids, spatial_shape


@dataclass(frozen=True, kw_only=True, slots=True)
class ViT3DSettings(BackboneSettings):
    """Size of the transformer.

    Attributes:
        in_channels: channels of the input.
        width: channels of a token; sines and cosines of three axes share it equally, so a multiple of 6.
        depth: number of blocks.
        heads: attention heads of a block.
        patch (voxels): size of a token along (D, H, W), powers of two.
        level_widths: channels of the decoder's levels; PCRLv2's.
        decoder_norm: norm of the decoder; the encoder's is layer norm.
    """

    kind: ClassVar[str] = "vit3d"

    in_channels: int = 1
    width: int = 384
    depth: int = 12
    heads: int = 6
    patch: Triple = (4, 8, 8)
    level_widths: Triple = (256, 128, 64)
    decoder_norm: Norm = "bn"

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            in_channels=self.in_channels >= 1,
            width=self.width >= 1,
            depth=self.depth >= 1,
            heads=self.heads >= 1,
            patch=min(self.patch) >= 1,
            level_widths=min(self.level_widths) >= 1,
            decoder_norm=self.decoder_norm in NORMS,
        ):
            raise GeometryError(f"a ViT needs sizes of at least 1 and a decoder norm out of {', '.join(NORMS)}; found {found}")
        if self.width % math.lcm(2 * AXES, self.heads):
            raise GeometryError(
                f"a ViT's width must be a multiple of {2 * AXES} and of its {self.heads} heads; found {self.width}"
            )
        upsampling(self.patch)

    @property
    def num_features(self) -> int:
        """Width of a token."""
        return self.width

    @property
    def reduction(self) -> Triple:
        """The patch."""
        return self.patch

    def encoder(self) -> ViT3D:
        """21,393,024 parameters with the defaults; the decoder has 7,331,200."""
        return ViT3D(self)


class ViT3D(nn.Module):
    """(B, C, D, H, W) -> (B, 384, D/4, H/8, W/8) with the defaults.

    Positions are fixed sinusoids of token coordinates. Global and local views have grids of different sizes; a learned grid
    would have to be interpolated for each, so that a step of one token would mean another distance in every view. Here it
    means the same, and grids that were not seen in training have positions too.
    """

    def __init__(self, settings: ViT3DSettings) -> None:
        super().__init__()
        self._patch = settings.patch
        self.embed = nn.Conv3d(settings.in_channels, settings.width, settings.patch, stride=settings.patch)
        width, heads = settings.width, settings.heads
        self.blocks = nn.ModuleList(FullBlock(width, heads, 4 * width) for _ in range(settings.depth))
        self.norm = nn.LayerNorm(width)
        self.apply(initialise_small_normal)

    def units(self) -> list[nn.Module]:
        """The blocks."""
        return list(self.blocks)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """The tokens after a last norm, as a feature map.

        Raises:
            GeometryError: if patches do not tile the input.
        """
        counts = count_tokens(spatial_shape(x_BCDHW), self._patch)
        width = self.norm.normalized_shape[0]
        x_BNE = self.embed(x_BCDHW).flatten(2).transpose(1, 2)
        # Positions in the dtype of the weights, so that under autocast the residual stream is float32.
        x_BNE = x_BNE + sinusoids(counts, width, x_BCDHW.device).to(self.norm.weight.dtype)
        for block in self.blocks:
            x_BNE = block(x_BNE, Sites(counts[0], counts[1] * counts[2], None))
        deepest: Tensor = self.norm(x_BNE).transpose(1, 2).unflatten(2, counts)
        return deepest
