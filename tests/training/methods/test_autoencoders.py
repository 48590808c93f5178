"""AE, VAE, VQ-VAE: the suite of every method, and what is each one's own."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch

from crossdim.storage_schema.errors import GeometryError, RunError
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones.strided import StridedSettings
from crossdim.training.data.collate import Batch
from crossdim.training.methods.autoencoders import Ae, Quantised, Vae, VqVae, perplexity
from crossdim.training.methods.base import MethodConfig, Step
from crossdim.training.methods.maesil import Maesil
from crossdim.training.objectives.latent import commitment, divergence, linear_warmup, straight_through
from crossdim.training.recipes import maesil as recipes
from tests.training.methods.restoring_suite import RestoringSuite

CUBE = (128, 128, 128)


class TestAe(RestoringSuite):
    @pytest.fixture
    def config(self) -> MethodConfig:
        return recipes.ae_tiny().method


class TestVae(RestoringSuite):
    @pytest.fixture
    def config(self) -> MethodConfig:
        return recipes.vae_tiny().method


class TestVqVae(RestoringSuite):
    @pytest.fixture
    def config(self) -> MethodConfig:
        return recipes.vqvae_tiny().method

    def test_the_book_follows_in_training_and_rests_in_evaluation(
        self, config: MethodConfig, samples: dict[Presentation, list[Sample]]
    ) -> None:
        method, batch = self.build(config), self.batch(config, samples[Presentation.SUPERPATCH])
        assert isinstance(method, Quantised)
        before = method.codebook.entries.clone()
        method.eval()(batch, Step(index=0, total=2, seed=0))
        assert torch.equal(method.codebook.entries, before)
        method.train()(batch, Step(index=0, total=2, seed=0))
        assert not torch.equal(method.codebook.entries, before)
        assert {"codebook.entries", "codebook.uses", "codebook.sums"} <= method.state_dict().keys()
        assert not any("codebook" in name for name, _ in method.named_parameters())


@pytest.mark.parametrize("recipe", [recipes.ae_small, recipes.vae_small, recipes.vqvae_small])
def test_baselines_run_on_equal_terms(recipe: object) -> None:
    """Everything but the method is MAESIL's; and of the method, what is seen."""
    ours, theirs = recipes.small(), recipe()  # type: ignore[operator]
    assert [f.name for f in fields(ours) if getattr(ours, f.name) != getattr(theirs, f.name)] == ["method"]
    assert isinstance(ours.method, Maesil)
    assert theirs.method.crops == ours.method.crops
    assert theirs.method.min_rank_batch == ours.method.min_rank_batch


@pytest.mark.parametrize(
    ("config", "ratio"), [(Ae(), 16.0), (Vae(), 64.0), (VqVae(), 128**3 * 32 / (512 * 9))], ids=["ae", "vae", "vqvae"]
)
def test_codes_are_as_small_as_they_are_said_to_be(config: Ae, ratio: float) -> None:
    """By formula, and by the number of values that the encoder gives."""
    with torch.device("meta"):
        method = config.build()
        deep = method.encoder(torch.empty(1, 1, *CUBE))
        code = method.narrow(deep) if isinstance(method, Quantised) else method._best_code(torch.empty(1, 1, *CUBE))
    assert method.compression(CUBE) == pytest.approx(ratio)
    assert code.shape == (1, 256 if type(config) is Ae else 64, 8, 8, 8)


def test_divergence_in_closed_form() -> None:
    zero, one = torch.zeros(2, 3), torch.ones(2, 3)
    assert float(divergence(zero, zero)) == 0
    assert float(divergence(one, zero)) == pytest.approx(0.5)
    mean, log_variance = torch.randn(5, 4).double(), torch.randn(5, 4).double()
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    assert float(divergence(mean, log_variance)) == pytest.approx(float(theirs.mean()))


def test_its_weight_rises_in_the_first_tenth() -> None:
    assert [linear_warmup(1e-4, p, 0.1) for p in (0, 0.05, 0.1, 0.5, 1)] == pytest.approx([0, 5e-5, 1e-4, 1e-4, 1e-4])
    assert linear_warmup(1e-4, 0.0, 0.0) == 1e-4


def test_quantising_is_the_identity_for_gradients() -> None:
    """Commitment is 0 where code and entry agree, and pulls the code alone where they do not."""
    code, entry = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    through = straight_through(code, entry)
    assert torch.allclose(through, entry, atol=1e-6)
    weights = torch.randn(4, 3)
    assert torch.equal(torch.autograd.grad((through * weights).sum(), code)[0], weights)
    assert float(commitment(code, code).detach()) == 0
    commitment(code, entry).backward()  # type: ignore[no-untyped-call]
    assert entry.grad is None
    assert code.grad is not None
    assert torch.allclose(code.grad, 2 * (code - entry).detach() / code.numel())


def test_the_code_of_a_vae_is_drawn_with_the_noise_of_the_sample() -> None:
    """Mean + deviation x noise; without noise, the mean, which is what is restored from."""
    config = recipes.vae_tiny().method
    assert isinstance(config, Vae)
    torch.manual_seed(0)
    method = config.build()
    x = torch.rand(2, 1, 32, 32, 32)
    deep = method.encoder(x)
    for noise in (torch.zeros(2, 4, 4, 4, 4), torch.randn(2, 4, 4, 4, 4)):
        batch = Batch(stream="superpatch", keys=("a", "b"), counts={"superpatch": 2}, least=2, tensors={"x": x, "noise": noise})
        code, terms, _ = method._code(batch, Step(index=5, total=10, seed=0))
        deviation = torch.distributions.Normal(0, (method.log_variance(deep) / 2).exp()).scale
        assert torch.allclose(code, method.mean(deep) + deviation * noise, atol=1e-6)
        assert float(terms["divergence"].detach()) == pytest.approx(
            1e-4 * float(divergence(method.mean(deep), method.log_variance(deep)).detach())
        )
    batch = Batch(stream="superpatch", keys=("a", "b"), counts={"superpatch": 2}, least=2, tensors={"x": x, "noise": noise * 0})
    error = method(batch, Step(index=0, total=10, seed=0)).losses["mse"]
    assert float(error.detach()) == pytest.approx(float((method._decode(method.mean(deep)) - x).square().mean().detach()))


def test_perplexity_counts_entries_in_use() -> None:
    assert float(perplexity(torch.arange(8), 32)) == pytest.approx(8)
    assert float(perplexity(torch.zeros(8, dtype=torch.int64), 32)) == pytest.approx(1)


def test_the_mirror_covers_every_voxel_equally_often() -> None:
    """Kernels of 4 and stride 2: weights of one give a flat interior, so the decoder has no chequerboard of its own."""
    decoder = StridedSettings(widths=(1, 1)).voxel_decoder()
    out = torch.ones(1, 1, 8, 8, 8)
    for _ in range(2):
        out = torch.nn.functional.conv_transpose3d(out, torch.ones(1, 1, 4, 4, 4), stride=2, padding=1)
    interior = out[0, 0, 8:-8, 8:-8, 8:-8]
    assert float(interior.min()) == float(interior.max())
    layers = [m for m in decoder.modules() if isinstance(m, torch.nn.ConvTranspose3d)]
    assert all(m.kernel_size == (4, 4, 4) and m.stride == (2, 2, 2) and m.padding == (1, 1, 1) for m in layers)
    assert decoder(torch.ones(1, 1, 4, 4, 4)).shape == (1, 1, 16, 16, 16)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(GeometryError, match="multiples of 16"):
        StridedSettings().encoder()(torch.rand(1, 1, 16, 16, 24))
    with pytest.raises(RunError, match="VAE"):
        Vae(weight=-1.0)
    with pytest.raises(RunError, match="VQ-VAE"):
        VqVae(entries=1)
    assert math.isclose(VqVae().decay, 0.99)
