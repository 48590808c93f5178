"""MAESIL: masked autoencoding of superpatches with dual masks; and, as our extension, of unrolled images beside them.

Our implementation of Kim et al. (arXiv 2604.00514). The paper's abstract gives superpatches, a 3D masked autoencoder and
dual masks; a summary of it superpatches of 128^3 and patches of 8^3. Masks, loss and sizes follow its sibling NEMESIS where
that states them; what only NEMESIS has (noise, factorised attention, mixing tokens) is available and off by default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, get_args

import numpy as np

from crossdim.storage_schema.errors import RunError, describe_unknown_name
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones.superpatch_vit import SuperpatchViTSettings
from crossdim.training.data.collate import Views
from crossdim.training.layers.masks import DualMask
from crossdim.training.layers.tokens import count_tokens
from crossdim.training.methods.base import MethodConfig
from crossdim.training.methods.masked_autoencoder import MaskedAutoencoder, TokenDecoderSettings
from crossdim.training.methods.restoration import Crops, sides_of
from crossdim.training.objectives.masked import LossOn


@dataclass(frozen=True, kw_only=True, slots=True)
class Maesil(MethodConfig):
    """Settings of MAESIL.

    Attributes:
        backbone: the encoder.
        decoder: the decoder.
        crops: what is cut from a sample.
        mask: which tokens of volumes are hidden.
        flat_mask: which tokens of unrolled images are hidden. All slices of such a volume are nearly the same, so a token
            that is hidden in one plane and visible in the next is easy to predict: by default only whole tubes are hidden
            (ours).
        norm_pix: predict normalised patches; reported to give better features, but no picture can be reconstructed.
        loss_on: patches whose error is minimised: hidden ones (NEMESIS), or ``all`` (ours).
        unmasked_share: share of the steps, spread evenly, in which nothing is hidden and the error of all patches is minimised
            (ours; 0 is NEMESIS's), so that ``unmasked`` reconstruction is trained too.
    """

    kind: ClassVar[str] = "maesil"
    accepts: ClassVar[frozenset[Presentation]] = frozenset(Presentation)
    min_rank_batch: ClassVar[int] = 0

    backbone: SuperpatchViTSettings = field(default_factory=SuperpatchViTSettings)
    decoder: TokenDecoderSettings = field(default_factory=TokenDecoderSettings)
    crops: Crops = field(default_factory=Crops)
    mask: DualMask = field(default_factory=DualMask)
    flat_mask: DualMask = field(default_factory=lambda: DualMask(spatial=0.75, depth=0.0))
    norm_pix: bool = False
    loss_on: LossOn = "masked"
    unmasked_share: float = 0.0

    def __post_init__(self) -> None:
        if self.loss_on not in get_args(LossOn):
            raise RunError(describe_unknown_name("value of loss_on", self.loss_on, get_args(LossOn)))
        if not 0 <= self.unmasked_share <= 1:
            raise RunError(f"unmasked_share is a share of the steps, from 0 to 1; found {self.unmasked_share}")
        side = self.crops.solid_side
        count_tokens((side, side, side), self.backbone.patch)

    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """The views of :class:`Crops`, and ``chance``, the uniform numbers that the mask is computed from.

        Source: MAESIL (arXiv 2604.00514): dual masks. That a mask is a function of seed and position is ours.

        Args:
            sample: as stored.
            pseudo3d: geometry of the dataset's pseudo-3D views; None for superpatches.
            rng: generator of the sample's position in the run.

        Returns:
            ``x`` (C, D, H, W) in unit range, ``target`` if ``x`` is noisy, and ``chance``.

        Raises:
            GeometryError: if patches do not tile the view.
        """
        views = self.crops.draw(sample, pseudo3d, rng)
        counts = count_tokens(sides_of(views["x"]), self.backbone.patch)
        mask = self.mask if sample.presentation is Presentation.SUPERPATCH else self.flat_mask
        return views | {"chance": mask.draw(counts, rng)}

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The middle cube, or the whole image unrolled.

        Args:
            sample: as stored.
            pseudo3d: as for :meth:`draw`.

        Returns:
            ``x`` and ``target``, (C, D, H, W) in unit range.
        """
        return self.crops.whole(sample, pseudo3d)

    def build(self) -> MaskedAutoencoder:
        """The network."""
        return MaskedAutoencoder(
            self.backbone,
            self.decoder,
            self.mask,
            self.flat_mask,
            norm_pix=self.norm_pix,
            loss_on=self.loss_on,
            unmasked_share=self.unmasked_share,
        )
