"""AE, VAE and VQ-VAE: the baselines that MAESIL is compared with, on the same crops.

MAESIL names them, but their settings were not available to us, so all of them are ours: one strided encoder and a decoder
of the same shape, and between them nothing, a Gaussian code, or a codebook. Axes: B batch, C channel, D depth, H height, W
width, F features of a code, M codes of a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from crossdim.storage_schema.errors import RunError, list_wrong_settings
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones.base import UNIT_RANGE, EncoderSpec
from crossdim.training.backbones.strided import StridedSettings
from crossdim.training.data.collate import Batch, Views
from crossdim.training.layers.codebook import Codebook
from crossdim.training.layers.tokens import Counts, count_tokens
from crossdim.training.methods.base import MethodConfig, Step, StepOutput, Terms
from crossdim.training.methods.restoration import FLOAT_BITS, Crops, Restorer, sides_of, target_of
from crossdim.training.objectives.latent import commitment, divergence, linear_warmup, straight_through


class ConvAutoencoder(Restorer):
    """Encoder and decoder, trained with mean squared error; subclasses add what lies between them."""

    def __init__(self, backbone: StridedSettings, features: int) -> None:
        super().__init__()
        self._backbone, self._features = backbone, features
        self.encoder, self.decoder = backbone.encoder(), backbone.voxel_decoder()
        self.encoder_spec = replace(EncoderSpec.of(backbone), normalisation=UNIT_RANGE)

    def forward(self, batch: Batch, step: Step) -> StepOutput:
        """Compute the mean squared error of the reconstruction of view ``x``, and the loss terms of the code.

        Args:
            batch: tensor ``x`` (B, C, D, H, W), and ``target`` if ``x`` is noisy, in unit range.
            step: position in the run, by which weights of the code's terms are scheduled.

        Returns:
            Loss ``mse`` and the terms of the code; monitor ``psnr`` in dB and those of the code.
        """
        code, terms, monitors = self._code(batch, step)
        target = target_of(batch)
        wide = torch.promote_types(target.dtype, torch.float32)
        error = (self._decode(code).to(wide) - target).square().mean()
        psnr = -10 * error.detach().clamp_min(1e-10).log10()
        return StepOutput({"mse": error} | terms, {"psnr": psnr} | monitors)

    def _code(self, batch: Batch, step: Step) -> tuple[Tensor, Terms, Terms]:
        """The decoder's input, loss terms and monitors."""
        return self.encoder(batch.tensors["x"]), {}, {}

    def _decode(self, code: Tensor) -> Tensor:
        restored: Tensor = self.decoder(code)
        return restored

    def _best_code(self, x: Tensor) -> Tensor:
        """The code without randomness."""
        code: Tensor = self.encoder(x)
        return code

    def reconstruct(self, x: Tensor) -> Tensor:
        """Reconstructions (B, C, D, H, W) in unit range."""
        return self._decode(self._best_code(x)).to(torch.promote_types(x.dtype, torch.float32)).clamp(0, 1)

    def code_bits(self, shape_DHW: Counts) -> float:
        """Size of a code of real numbers, in bits."""
        return FLOAT_BITS * self._features * math.prod(count_tokens(shape_DHW, self._backbone.reduction))

    def networks(self) -> list[nn.Module]:
        """Encoder and decoder."""
        return [self.encoder, self.decoder]

    def units(self) -> list[nn.Module]:
        """Stages of encoder and decoder."""
        return [*self.encoder.units(), *self.decoder.units()]  # type: ignore[operator]


class Variational(ConvAutoencoder):
    """A Gaussian code, sampled with noise that was drawn with the sample."""

    def __init__(self, config: Vae) -> None:
        super().__init__(config.backbone, config.features)
        self._config = config
        self.mean, self.log_variance = (nn.Conv3d(config.backbone.num_features, config.features, 1) for _ in range(2))
        self.widen = nn.Conv3d(config.features, config.backbone.num_features, 1)

    def _code(self, batch: Batch, step: Step) -> tuple[Tensor, Terms, Terms]:
        deep = self.encoder(batch.tensors["x"])
        mean, log_variance = self.mean(deep), self.log_variance(deep)
        nats = divergence(mean, log_variance)
        weight = linear_warmup(self._config.weight, step.progress, self._config.warmup)
        code = mean + (log_variance / 2).exp() * batch.tensors["noise"].to(mean.dtype)
        return code, {"divergence": weight * nats}, {"nats": nats.detach()}

    def _decode(self, code: Tensor) -> Tensor:
        return super()._decode(self.widen(code))

    def _best_code(self, x: Tensor) -> Tensor:
        mean: Tensor = self.mean(self.encoder(x))
        return mean


class Quantised(ConvAutoencoder):
    """A code of codebook entries."""

    def __init__(self, config: VqVae) -> None:
        super().__init__(config.backbone, config.features)
        self._config = config
        self.narrow = nn.Conv3d(config.backbone.num_features, config.features, 1)
        self.widen = nn.Conv3d(config.features, config.backbone.num_features, 1)
        self.codebook = Codebook(config.entries, config.features, config.decay)

    def _code(self, batch: Batch, step: Step) -> tuple[Tensor, Terms, Terms]:
        code = self.narrow(self.encoder(batch.tensors["x"]))
        quantised, chosen = self.codebook(code)
        if self.training:
            self.codebook.update(code, chosen, step.rng(batch.stream), counted=bool(batch.keys))
        terms = {"commitment": self._config.commitment * commitment(code, quantised)}
        return straight_through(code, quantised), terms, {"perplexity": perplexity(chosen, self._config.entries)}

    def _decode(self, code: Tensor) -> Tensor:
        return super()._decode(self.widen(code))

    def _best_code(self, x: Tensor) -> Tensor:
        quantised: Tensor = self.codebook(self.narrow(self.encoder(x)))[0]
        return quantised

    def code_bits(self, shape_DHW: Counts) -> float:
        """Size of a code of codebook indices, in bits."""
        return math.log2(self._config.entries) * math.prod(count_tokens(shape_DHW, self._backbone.reduction))


def perplexity(chosen_M: Tensor, entries: int) -> Tensor:
    """Effective number of codebook entries that a batch uses: exp of the entropy of their frequencies.

    Args:
        chosen_M: index of the entry of each code.
        entries: size of the codebook.

    Returns:
        A scalar from 1 to ``entries``.
    """
    share = torch.bincount(chosen_M, minlength=entries) / len(chosen_M)
    entropy: Tensor = torch.special.entr(share).sum()
    return entropy.exp()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ae(MethodConfig):
    """Settings of the plain autoencoder: 16 voxels per number at the default sizes.

    Attributes:
        backbone: the encoder; the decoder mirrors it.
        crops: what is cut from a sample.
    """

    kind: ClassVar[str] = "ae"
    accepts: ClassVar[frozenset[Presentation]] = frozenset(Presentation)
    min_rank_batch: ClassVar[int] = 0

    backbone: StridedSettings = field(default_factory=StridedSettings)
    crops: Crops = field(default_factory=Crops)

    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """The views of :class:`Crops`.

        Args:
            sample: as stored.
            pseudo3d: geometry of the dataset's pseudo-3D views; None for superpatches and plain images.
            rng: generator of the sample's position in the run.

        Returns:
            ``x`` (C, D, H, W) in unit range, and ``target`` if ``x`` is noisy.
        """
        return self.crops.draw(sample, pseudo3d, rng)

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The middle cube, or the whole image unrolled.

        Args:
            sample: as stored.
            pseudo3d: as for :meth:`draw`.

        Returns:
            ``x`` and ``target``, (C, D, H, W) in unit range.
        """
        return self.crops.whole(sample, pseudo3d)

    def build(self) -> ConvAutoencoder:
        """The network."""
        return ConvAutoencoder(self.backbone, self.backbone.num_features)


@dataclass(frozen=True, kw_only=True, slots=True)
class Vae(Ae):
    """Settings of the variational autoencoder.

    Attributes:
        features: channels of the code.
        weight: weight of the divergence, which is a mean over dimensions.
        warmup: fraction of the run in which the weight rises from 0.
    """

    kind: ClassVar[str] = "vae"

    features: int = 64
    weight: float = 1e-4
    warmup: float = 0.1

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            features=self.features >= 1,
            weight=self.weight >= 0,
            warmup=0 <= self.warmup <= 1,
        ):
            raise RunError(f"a VAE needs features of at least 1, weight of at least 0 and warmup in [0, 1]; found {found}")

    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """The views of :class:`Crops`, and the ``noise`` of the code.

        Args:
            sample: as stored.
            pseudo3d: geometry of the dataset's pseudo-3D views; None for superpatches and plain images.
            rng: generator of the sample's position in the run.

        Returns:
            ``x`` (C, D, H, W) in unit range, ``target`` if ``x`` is noisy, and ``noise`` (features, d, h, w), standard normal.
        """
        views = self.crops.draw(sample, pseudo3d, rng)
        places = count_tokens(sides_of(views["x"]), self.backbone.reduction)
        return views | {"noise": rng.standard_normal((self.features, *places), dtype=np.float32)}

    def build(self) -> Variational:
        """The network."""
        return Variational(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class VqVae(Ae):
    """Settings of the vector-quantised autoencoder.

    Attributes:
        features: channels of the code.
        entries: number of vectors in the codebook.
        commitment: weight of the commitment loss.
        decay: decay of the codebook's moving averages.
    """

    kind: ClassVar[str] = "vqvae"

    features: int = 64
    entries: int = 512
    commitment: float = 0.25
    decay: float = 0.99

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            features=self.features >= 1,
            entries=self.entries >= 2,
            commitment=self.commitment >= 0,
            decay=0 <= self.decay < 1,
        ):
            raise RunError(f"a VQ-VAE needs features, two entries, commitment of at least 0 and decay in [0, 1); found {found}")

    def build(self) -> Quantised:
        """The network."""
        return Quantised(self)
