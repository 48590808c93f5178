"""A masked autoencoder: an encoder of visible tokens, and a light decoder that predicts the patches of the whole grid.

Axes: B batch, C channel, D depth, H height, W width, N tokens, V visible tokens, E embedding, X values of a patch.
Source: code, NEMESIS, mae.py 517-548 (mask token, positions for all tokens, LayerNorm and linear head).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones.base import UNIT_RANGE, EncoderSpec
from crossdim.training.backbones.superpatch_vit import SuperpatchViTSettings
from crossdim.training.data.collate import Batch
from crossdim.training.layers.attention import AttentionKind, Sites, build_blocks
from crossdim.training.layers.masks import DualMask
from crossdim.training.layers.tokens import (
    AXES,
    Counts,
    count_tokens,
    patchify,
    scatter_tokens,
    sinusoids,
    spatial_shape,
    unpatchify,
    visible_mask,
)
from crossdim.training.methods.base import Step, StepOutput
from crossdim.training.methods.restoration import FLOAT_BITS, Restorer, target_of
from crossdim.training.objectives.masked import LossOn, is_unmasked, masked_mse


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenDecoderSettings:
    """Architecture of the decoder; sizes are ours (NEMESIS' decoder is as wide as its encoder, with three blocks).

    Attributes:
        width: channels of a token.
        depth: number of blocks.
        heads: attention heads.
        hidden: width inside the feed-forward layers.
        attention: among all tokens, or factorised into planes and depth.
        smooth_channels: channels of two convolutions over the assembled voxels, which see across the borders of patches; 0
            for none.
    """

    width: int = 384
    depth: int = 3
    heads: int = 8
    hidden: int = 1536
    attention: AttentionKind = "full"
    smooth_channels: int = 0

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            width=self.width >= 1,
            depth=self.depth >= 1,
            heads=self.heads >= 1,
            hidden=self.hidden >= 1,
            smooth_channels=self.smooth_channels >= 0,
        ):
            raise GeometryError(f"a token decoder needs sizes of at least 1; found {found}")
        if self.width % (2 * AXES) or self.width % self.heads:
            raise GeometryError(
                f"width {self.width} must be a multiple of 6 (sines and cosines of 3 axes) and of heads {self.heads}"
            )


class TokenDecoder(nn.Module):
    """Predicts the patches of the whole grid from encoded visible tokens."""

    def __init__(self, settings: TokenDecoderSettings, backbone: SuperpatchViTSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self._patch = backbone.patch
        self.bridge = nn.Linear(backbone.width, s.width)
        self.mask_token = nn.Parameter(torch.randn(s.width) * 0.02)
        self.blocks = build_blocks(s.attention, s.depth, s.width, s.heads, s.hidden)
        self.norm = nn.LayerNorm(s.width)
        self.head = nn.Linear(s.width, math.prod(backbone.patch) * backbone.in_channels)
        self.smooth = SmoothHead(backbone.in_channels, s.smooth_channels) if s.smooth_channels else None

    def forward(self, tokens_BVE: Tensor, ids_BV: Tensor, counts: Counts) -> Tensor:
        """Predict all patches.

        Args:
            tokens_BVE: encoded visible tokens.
            ids_BV: their places in the grid.
            counts: tokens along (D, H, W).

        Returns:
            (B, N, X).
        """
        total = math.prod(counts)
        # The mask token takes part even if nothing is hidden, so that it has a gradient (of zeros) on every rank.
        grid = scatter_tokens(self.bridge(tokens_BVE), ids_BV, self.mask_token, total)
        grid = grid + sinusoids(counts, self.settings.width, grid.device)
        sites = Sites(counts[0], counts[1] * counts[2], None)
        for block in self.blocks:
            grid = block(grid, sites)
        patches: Tensor = self.head(self.norm(grid))
        if self.smooth is None:
            return patches
        return patchify(self.smooth(unpatchify(patches, self._patch, counts)), self._patch)

    def units(self) -> list[nn.Module]:
        """The blocks."""
        return list(self.blocks)


class SmoothHead(nn.Module):
    """A correction by two 3^3 convolutions, 0 at the start: a remedy against patterns aligned with the patch grid (ours)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.into, self.back = nn.Conv3d(channels, hidden, 3, padding=1), nn.Conv3d(hidden, channels, 3, padding=1)
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)  # type: ignore[arg-type]

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """The same shape."""
        corrected: Tensor = x_BCDHW + self.back(F.gelu(self.into(x_BCDHW)))
        return corrected


class MaskedAutoencoder(Restorer):
    """The network of MAESIL, for volumes and for unrolled images: one set of weights, a token grid for each."""

    def __init__(
        self,
        backbone: SuperpatchViTSettings,
        decoder: TokenDecoderSettings,
        mask: DualMask,
        flat_mask: DualMask,
        *,
        norm_pix: bool = False,
        loss_on: LossOn = "masked",
        unmasked_share: float = 0.0,
    ) -> None:
        super().__init__()
        self.patch = backbone.patch
        self._norm_pix = norm_pix
        self._loss_on: LossOn = loss_on
        self._unmasked_share = unmasked_share
        self._masks = {str(p): flat_mask if p.is_2d else mask for p in Presentation}
        self._mask = mask
        self.encoder = backbone.encoder()
        self.decoder = TokenDecoder(decoder, backbone)
        self.encoder_spec = replace(EncoderSpec.of(backbone), normalisation=UNIT_RANGE)

    def mask_of(self, stream: str) -> DualMask:
        """The mask of a stream; that of volumes where streams are joint, because then all grids are the same."""
        return self._masks.get(stream, self._mask)

    def draw_visible(self, x_BCDHW: Tensor, stream: str, rng: np.random.Generator) -> Tensor:
        """Draw the tokens that a mask leaves of a batch; the same for each of its volumes.

        Args:
            x_BCDHW: volumes.
            stream: whose mask is drawn.
            rng: source of the draws.

        Returns:
            Places of the visible tokens, (B, V).
        """
        mask = self.mask_of(stream)
        chance = torch.from_numpy(mask.draw(count_tokens(spatial_shape(x_BCDHW), self.patch), rng))
        return mask.visible(chance.expand(x_BCDHW.shape[0], -1, -1).to(x_BCDHW.device))

    def forward(self, batch: Batch, step: Step) -> StepOutput:
        """Compute the mean squared error of hidden patches, or of all.

        Args:
            batch: tensors ``x`` (B, C, D, H, W), ``target`` if ``x`` is noisy, and ``chance``, which the mask is computed from.
            step: whose number says whether anything is hidden.

        Returns:
            Loss ``masked``, and monitor ``psnr_masked``, of hidden patches in dB, unless patches are normalised; in a step in
            which nothing is hidden ``unmasked`` and ``psnr_unmasked``.
        """
        x, patches = batch.tensors["x"], patchify(target_of(batch), self.patch)
        unmasked = is_unmasked(step.index, self._unmasked_share)
        ids = self._all_ids(x) if unmasked else self.mask_of(batch.stream).visible(batch.tensors["chance"])
        predicted, seen = self.predict_patches(x, ids), visible_mask(ids, patches.shape[1])
        error = masked_mse(predicted, patches, seen, norm_pix=self._norm_pix, loss_on=self._loss_on)
        name = "unmasked" if unmasked else "masked"
        if self._norm_pix:
            return StepOutput({name: error}, {})
        hidden = error.detach() if self._loss_on == "masked" else masked_mse(predicted.detach(), patches, seen)
        return StepOutput({name: error}, {f"psnr_{name}": -10 * hidden.clamp_min(1e-10).log10()})

    def _all_ids(self, x_BCDHW: Tensor) -> Tensor:
        """Places of all tokens, (B, N)."""
        count = math.prod(count_tokens(spatial_shape(x_BCDHW), self.patch))
        return torch.arange(count, device=x_BCDHW.device).expand(x_BCDHW.shape[0], -1)

    def predict_patches(self, x_BCDHW: Tensor, ids_BV: Tensor) -> Tensor:
        """Predict all patches from the visible ones.

        Args:
            x_BCDHW: volumes.
            ids_BV: places of the visible tokens.

        Returns:
            (B, N, X).
        """
        counts = count_tokens(spatial_shape(x_BCDHW), self.patch)
        patches: Tensor = self.decoder(self.encoder(x_BCDHW, ids_BV), ids_BV, counts)
        return patches

    def restore(self, x_BCDHW: Tensor, ids_BV: Tensor) -> Tensor | None:
        """Reconstruct volumes from their visible tokens; every voxel is predicted, none is copied from the input.

        Args:
            x_BCDHW: volumes in unit range.
            ids_BV: places of the visible tokens.

        Returns:
            (B, C, D, H, W) in unit range; None with ``norm_pix``, which predicts neither mean nor deviation of a patch.
        """
        if self._norm_pix:  # mean and deviation of a patch are not predicted
            return None
        counts = count_tokens(spatial_shape(x_BCDHW), self.patch)
        wide = torch.promote_types(x_BCDHW.dtype, torch.float32)
        return unpatchify(self.predict_patches(x_BCDHW, ids_BV), self.patch, counts).to(wide).clamp(0, 1)

    def reconstruct(self, x: Tensor) -> Tensor | None:
        """Volumes reconstructed with every token visible."""
        return self.restore(x, self._all_ids(x))

    def code_bits(self, shape_DHW: Counts) -> float:
        """Size of the code of all tokens, in bits; that of visible tokens is smaller in proportion."""
        return FLOAT_BITS * self.encoder_spec.num_features * math.prod(count_tokens(shape_DHW, self.patch))

    def networks(self) -> list[nn.Module]:
        """Encoder and decoder."""
        return [self.encoder, self.decoder]

    def units(self) -> list[nn.Module]:
        """Blocks of encoder and decoder."""
        return [*self.encoder.units(), *self.decoder.units()]  # type: ignore[operator]
