"""Superpatch ViT: the encoder of MAESIL, which takes all tokens of a volume, or only the visible ones of a mask.

Axes: B batch, C channel, D depth, H height, W width, V visible tokens, E embedding.

Source: MAESIL (arXiv 2604.00514): superpatches of 128^3, patches of 8^3 embedded by a 3D convolution with positional
encoding, a transformer encoder and decoder. Width, depth and heads are those of its sibling (code: NEMESIS,
configs/pretrain.yaml 33-35); MLP width, full attention and no dropout are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.backbones.decoder import Triple
from crossdim.training.layers.attention import AttentionKind, Sites, build_blocks
from crossdim.training.layers.dual_norm import Norm
from crossdim.training.layers.tokens import (
    AXES,
    Counts,
    PatchEmbedding,
    count_tokens,
    gather_tokens,
    patchify,
    sinusoids,
    spatial_shape,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperpatchViTSettings(BackboneSettings):
    """Architecture of the encoder.

    Attributes:
        in_channels: channels of the input.
        patch (voxels): size of a token along (D, H, W).
        width: channels of a token.
        depth: number of blocks.
        heads: attention heads.
        hidden: width inside the feed-forward layers; 4 x width is the standard ViT's, 1024 NEMESIS'.
        attention: among all visible tokens, or factorised into planes and depth (NEMESIS).
        pe_scale: learned weight of the positional encoding, starting here (0.1 in NEMESIS); None is a fixed 1.
        mixing_tokens: tokens of NEMESIS' token-mixing embedding (8 there); 0 is a plain one.
    """

    kind: ClassVar[str] = "superpatch-vit"

    in_channels: int = 1
    patch: Triple = (8, 8, 8)
    width: int = 768
    depth: int = 6
    heads: int = 8
    hidden: int = 3072
    attention: AttentionKind = "full"
    pe_scale: float | None = None
    mixing_tokens: int = 0

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            in_channels=self.in_channels >= 1,
            patch=min(self.patch) >= 1,
            width=self.width >= 1,
            depth=self.depth >= 1,
            heads=self.heads >= 1,
            hidden=self.hidden >= 1,
            mixing_tokens=self.mixing_tokens >= 0,
            attention=self.attention in ("full", "factorised"),
        ):
            raise GeometryError(f"a superpatch ViT needs sizes of at least 1 and attention full or factorised; found {found}")
        if self.width % (2 * AXES) or self.width % self.heads:
            raise GeometryError(
                f"width {self.width} must be a multiple of 6 (sines and cosines of 3 axes) and of heads {self.heads}"
            )

    @property
    def num_features(self) -> int:
        """Width of a token."""
        return self.width

    @property
    def reduction(self) -> Triple:
        """The patch."""
        return self.patch

    @property
    def level_widths(self) -> Triple:
        """Halved from level to level (ours; a masked autoencoder needs no pyramid)."""
        return max(1, self.width // 2), max(1, self.width // 4), max(1, self.width // 8)

    @property
    def decoder_norm(self) -> Norm:
        """Group norm: like the encoder's norm, it does not depend on the batch."""
        return "gn"

    def encoder(self) -> SuperpatchViT:
        """The encoder; its six blocks have 7,087,872 parameters each at the default sizes."""
        return SuperpatchViT(self)


class SuperpatchViT(nn.Module):
    """A transformer encoder from volumes to tokens."""

    def __init__(self, settings: SuperpatchViTSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.embed = PatchEmbedding(s.in_channels, s.width, s.patch, s.mixing_tokens)
        self.blocks = build_blocks(s.attention, s.depth, s.width, s.heads, s.hidden)
        self.norm = nn.LayerNorm(s.width)
        self.pe_scale = None if s.pe_scale is None else nn.Parameter(torch.tensor(s.pe_scale))

    def forward(self, x_BCDHW: Tensor, ids_BV: Tensor | None = None) -> Tensor:
        """Encode all patches, or only some. Both are one call, so that compiling the module compiles both.

        Args:
            x_BCDHW: volumes.
            ids_BV: places of the patches to encode; no other patch is read. None for all.

        Returns:
            The feature map (B, E, d, h, w) of all patches, or the tokens (B, V, E) of those given.

        Raises:
            GeometryError: if patches do not tile the input.
        """
        counts = count_tokens(spatial_shape(x_BCDHW), self.settings.patch)
        tokens = self._tokens(x_BCDHW, ids_BV, counts)
        return tokens if ids_BV is not None else tokens.transpose(1, 2).reshape(len(x_BCDHW), -1, *counts)

    def _tokens(self, x_BCDHW: Tensor, ids_BV: Tensor | None, counts: Counts) -> Tensor:
        patches = patchify(x_BCDHW, self.settings.patch)
        places = sinusoids(counts, self.settings.width, x_BCDHW.device).expand(x_BCDHW.shape[0], -1, -1)
        if ids_BV is not None:
            patches, places = gather_tokens(patches, ids_BV), gather_tokens(places, ids_BV)
        if self.pe_scale is not None:
            places = places * self.pe_scale
        h = self.embed(patches) + places
        sites = Sites(counts[0], counts[1] * counts[2], ids_BV)
        for block in self.blocks:
            h = block(h, sites)
        encoded: Tensor = self.norm(h)
        return encoded

    def units(self) -> list[nn.Module]:
        """The blocks."""
        return list(self.blocks)
