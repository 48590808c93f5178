"""MAESIL: the suite of every method, and what is its own."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import GeometryError, RunError
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Origin, Sample, Scaling
from crossdim.storage_schema.vocabulary import Modality, Presentation
from crossdim.training.backbones import load_encoder
from crossdim.training.data.collate import Batch
from crossdim.training.data.order import rng_at
from crossdim.training.layers.masks import DualMask
from crossdim.training.layers.recompute import enable_recomputation
from crossdim.training.layers.tokens import patchify, unpatchify, visible_mask
from crossdim.training.methods.base import MethodConfig, Step
from crossdim.training.methods.maesil import Maesil
from crossdim.training.methods.masked_autoencoder import MaskedAutoencoder, TokenDecoderSettings
from crossdim.training.objectives.masked import is_unmasked, masked_mse, normalise_patches
from crossdim.training.recipes.maesil import crossdim_small, paper, tiny
from crossdim.training.run_dir.metrics import read_metrics
from tests.oracles import maesil as oracle
from tests.training.methods.restoring_suite import RestoringSuite

FIRST = Step(index=0, total=10, seed=0)


def _tiny() -> Maesil:
    method = tiny().method
    assert isinstance(method, Maesil)
    return method


def _everything() -> Maesil:
    """All that is off by default, on."""
    config = _tiny()
    return replace(
        config,
        backbone=replace(config.backbone, attention="factorised", pe_scale=0.1, mixing_tokens=4),
        decoder=replace(config.decoder, attention="factorised", smooth_channels=2),
        crops=replace(config.crops, noise=0.1),
        mask=DualMask(mode="plane_x_axis"),
    )


class TestMaesil(RestoringSuite):
    @pytest.fixture
    def config(self) -> MethodConfig:
        return _tiny()


class TestMaesilWithEverySwitch(RestoringSuite):
    @pytest.fixture
    def config(self) -> MethodConfig:
        return _everything()

    def test_all_methods_see_the_same_voxels(self, config: MethodConfig, samples: dict[Presentation, list[Sample]]) -> None:
        """What is to be restored is the same; what is seen is noisy."""
        for group in samples.values():
            mine, theirs = (c.draw(group[0], None, rng_at(3, 7)) for c in (config, _tiny()))
            assert np.array_equal(mine["target"], theirs["x"])
            assert 0.08 < float((mine["x"] - mine["target"]).std()) < 0.12


def _network(config: Maesil, seed: int = 0) -> MaskedAutoencoder:
    torch.manual_seed(seed)
    return config.build().eval()


def _ids(mask: DualMask, counts: tuple[int, int, int] = (4, 4, 4), batch: int = 2) -> torch.Tensor:
    return mask.visible(torch.from_numpy(np.stack([mask.draw(counts, rng_at(0, n)) for n in range(batch)])))


@pytest.mark.parametrize("config", [_tiny(), _everything()], ids=["plain", "switches"])
def test_hidden_patches_do_not_leak(config: Maesil) -> None:
    """Whatever hidden voxels hold, infinities included, the encoder says the same, to the last bit."""
    network, ids = _network(config), _ids(config.mask)
    x = torch.rand(2, 1, 32, 32, 32)
    hidden = ~visible_mask(ids, 64)
    rows = patchify(x, (8, 8, 8))
    for other in (torch.rand_like(rows), torch.full_like(rows, torch.nan)):
        corrupted = unpatchify(torch.where(hidden[..., None], other, rows), (8, 8, 8), (4, 4, 4))
        assert torch.equal(network.encoder(corrupted, ids), network.encoder(x, ids))


def test_visible_patches_are_heard() -> None:
    """The other side of it: the test above would pass for an encoder that is deaf."""
    network, ids = _network(_tiny()), _ids(DualMask())
    x = torch.rand(1, 1, 32, 32, 32)
    rows = patchify(x, (8, 8, 8))
    rows[:, ids[0, 0]] += 0.1
    corrupted = unpatchify(rows, (8, 8, 8), (4, 4, 4))
    assert not torch.equal(network.encoder(corrupted, ids[:1]), network.encoder(x, ids[:1]))


@torch.no_grad()
def test_a_step_agrees_with_its_transcription() -> None:
    """The loss of a batch in float64, against one token at a time."""
    config = _tiny()
    network = _network(config).double()
    ids, x = _ids(config.mask), torch.rand(2, 1, 32, 32, 32, dtype=torch.float64)
    predicted = network.predict_patches(x, ids)
    found = masked_mse(predicted, patchify(x, (8, 8, 8)), visible_mask(ids, 64))
    heads = (config.backbone.heads, config.decoder.heads)
    losses = [oracle.step(network.encoder, network.decoder, v.numpy(), i, heads) for v, i in zip(x, ids.tolist(), strict=True)]
    # Positions of the network are float32.
    assert float(found) == pytest.approx(float(torch.stack(losses).mean()), abs=1e-6)


def test_the_loss_is_of_hidden_patches_alone() -> None:
    """Values in closed form, and no gradient at visible sites."""
    seen = torch.tensor([[True, False, False, True]])
    target = torch.rand(1, 4, 8)
    wrong = torch.where(seen[..., None], target + 5, target).requires_grad_()
    assert float(masked_mse(wrong, target, seen).detach()) == 0
    masked_mse(wrong + 1, target, seen).backward()
    assert wrong.grad is not None
    assert float(wrong.grad[seen].abs().max()) == 0
    assert float(wrong.grad[~seen].abs().min()) > 0
    constant = torch.full((1, 4, 8), 0.3)
    assert float(masked_mse(torch.zeros(1, 4, 8), constant, seen)) == pytest.approx(0.09)


def test_with_nothing_hidden_the_loss_is_the_full_error() -> None:
    a, b = torch.rand(2, 6, 8), torch.rand(2, 6, 8)
    everything = torch.ones(2, 6, dtype=torch.bool)
    assert float(masked_mse(a, b, everything)) == pytest.approx(float((a - b).square().mean()))


def test_patches_can_be_normalised_one_by_one() -> None:
    """Scale and offset of a patch are no part of the target then; unbiased variance, as masked autoencoders take it."""
    target = torch.rand(2, 6, 512)
    normal = normalise_patches(target)
    assert torch.allclose(normal.mean(dim=-1), torch.zeros(2, 6), atol=1e-6)
    assert torch.allclose(normal.var(dim=-1), torch.ones(2, 6), atol=1e-3)
    seen = torch.zeros(2, 6, dtype=torch.bool)
    assert float(masked_mse(normalise_patches(target * 3 + 1), target, seen, norm_pix=True)) < 1e-6
    network = _network(replace(_tiny(), norm_pix=True))
    assert network.reconstruct(torch.rand(1, 1, 32, 32, 32)) is None


def test_bfloat16_changes_little_and_loses_nothing() -> None:
    network, ids, x = _network(_tiny()), _ids(DualMask()), torch.rand(2, 1, 32, 32, 32)
    wide = network.predict_patches(x, ids)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = network.predict_patches(x, ids)
        assert network.encoder(x, ids).dtype == torch.float32
    assert torch.allclose(wide, narrow.float(), atol=0.05)


def test_recomputing_gives_the_same_gradients() -> None:
    gradients = []
    for again in (False, True):
        network = _network(_everything())
        for unit in network.units() if again else ():
            enable_recomputation(unit)
        ids = _ids(DualMask(mode="plane_x_axis"))
        network.predict_patches(torch.ones(2, 1, 32, 32, 32), ids).square().sum().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    assert all(torch.equal(one, gradients[1][name]) for name, one in gradients[0].items() if one is not None)


@pytest.mark.parametrize("config", [_tiny(), _everything()], ids=["plain", "switches"])
@pytest.mark.filterwarnings("ignore:.*not a leaf.*:UserWarning")
@pytest.mark.integration
def test_networks_are_one_graph_each(config: Maesil) -> None:
    """What a compiler would have to break, it would slow down; captured here and run as it is."""
    network = _network(config)
    ids, x = _ids(config.mask), torch.rand(2, 1, 32, 32, 32)
    expected = network.predict_patches(x, ids)
    for part in network.networks():
        part.compile(backend="eager", fullgraph=True)
    assert torch.equal(network.predict_patches(x, ids), expected)


def test_one_run_holds_images_and_volumes(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cross-dimensional masked autoencoding, from the command line: both are restored in every step, by one encoder."""
    line = ["pretrain", "--recipe", "maesil:tiny", "--data", image_data.url, volume_data.url, "--out", str(tmp_path / "run")]
    assert main([*line, "--workers", "0", "--steps", "3"]) == 0
    records = read_metrics(Bucket(str(tmp_path / "run")))
    assert [sorted(record["terms"]) for record in records] == [["pseudo3d/masked", "superpatch/masked"]] * 3
    assert records[0]["counts"] == {"pseudo3d": 4, "superpatch": 4}
    encoder, spec = load_encoder(str(tmp_path / "run" / "encoder.pt"))
    assert spec.normalisation.startswith("none")
    assert spec.pseudo3d is not None
    for shape in ((16, 32, 32), (32, 32, 32)):
        assert encoder(torch.rand(1, 1, *shape)).shape == (1, 48, *(side // 8 for side in shape))


def test_every_second_step_hides_nothing_where_half_of_the_steps_are_to(volume_data: Bucket, tmp_path: Path) -> None:
    """And goes on so after a resume: what is hidden depends on the number of the step alone."""
    more = ["--set", "method.loss_on=all", "--set", "method.unmasked_share=0.5", "--workers", "0", "--steps", "4"]
    line = ["pretrain", "--recipe", "maesil:tiny", "--data", volume_data.url, "--out", str(tmp_path / "run")]
    assert main([*line, *more]) == 0
    records = read_metrics(Bucket(str(tmp_path / "run")))
    assert [[*record["terms"]] for record in records] == [["superpatch/masked"], ["superpatch/unmasked"]] * 2
    names = ["superpatch/psnr_masked", "superpatch/psnr_unmasked"] * 2
    assert all(name in record["monitors"] for name, record in zip(names, records, strict=True))


def test_the_error_of_all_patches_is_minimised_and_that_of_hidden_ones_told() -> None:
    """Against the sums written out, from the same prediction."""
    config = replace(_tiny(), loss_on="all")
    network, x = _network(config), torch.rand(2, 1, 32, 32, 32)
    chance = torch.from_numpy(config.mask.draw((4, 4, 4), rng_at(0, 0)))[None].expand(2, -1, -1)
    batch = Batch(stream="superpatch", keys=("a", "b"), counts={"superpatch": 2}, tensors={"x": x, "chance": chance}, least=2)
    outcome = network(batch, Step(index=0, total=9, seed=0))
    ids = config.mask.visible(chance)
    squares = (network.predict_patches(x, ids) - patchify(x, (8, 8, 8))).square().mean(2)
    hidden = squares[~visible_mask(ids, 64)]
    assert outcome.losses["masked"].item() == pytest.approx(squares.mean().item(), rel=1e-5)
    assert outcome.monitors["psnr_masked"].item() == pytest.approx(-10 * np.log10(hidden.mean().item()), abs=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0])
def test_steps_that_hide_nothing_are_spread_evenly(share: float) -> None:
    """Of any steps one after the other, their number is off by less than one."""
    hits = np.cumsum([0, *(is_unmasked(index, share) for index in range(200))])
    for length in (1, 7, 30):
        assert (np.abs(hits[length:] - hits[:-length] - share * length) < 1).all()


def test_unknown_patches_and_shares_are_refused() -> None:
    with pytest.raises(RunError, match=r"unknown value of loss_on 'hidden'.*Known: all, masked"):
        replace(_tiny(), loss_on="hidden")
    with pytest.raises(RunError, match="unmasked_share is a share of the steps"):
        replace(_tiny(), unmasked_share=1.5)


def test_images_and_volumes_have_grids_of_their_own() -> None:
    """An image is hidden in whole tubes: every plane of its tokens shows nearly the same picture."""
    config = crossdim_small().method
    assert isinstance(config, Maesil)
    network = config.build()
    assert network.mask_of("superpatch") == config.mask == network.mask_of("joint")
    assert network.mask_of("pseudo3d") == network.mask_of("image") == config.flat_mask
    seen = visible_mask(_ids(config.flat_mask, (2, 8, 8)), 128).view(2, 2, 64)
    assert torch.equal(seen[:, 0], seen[:, 1])
    assert int(seen[0].sum()) == 32


def test_any_grid_that_patches_tile_is_encoded() -> None:
    network = _network(_tiny())
    assert network.encoder(torch.rand(1, 1, 16, 8, 40)).shape == (1, 48, 2, 1, 5)
    with pytest.raises(GeometryError, match="multiples"):
        network.encoder(torch.rand(1, 1, 16, 12, 40))


def test_crops_that_do_not_exist_are_refused() -> None:
    config = _tiny()
    with pytest.raises(GeometryError, match="multiples"):
        replace(config, crops=replace(config.crops, solid_side=20))
    sample = Sample(
        key="k", presentation=Presentation.SUPERPATCH, array=np.zeros((1, 16, 16, 16), np.int16), **_scaled(-1000, 1000)
    )
    with pytest.raises(GeometryError, match="32"):
        config.draw(sample, None, rng_at(0, 0))
    with pytest.raises(GeometryError, match="tiled"):
        config.draw(_flat_sample(), Pseudo3D(window=3, stride=3, allow_crop=True), rng_at(0, 0))


def _flat_sample() -> Sample:
    return Sample(key="k", presentation=Presentation.IMAGE, array=np.zeros((1, 60, 70), np.uint8), **_scaled(0, 255))


def _scaled(low: float, high: float) -> dict[str, object]:
    return {"scaling": Scaling(low=low, high=high), "modality": Modality.CT, "origin": Origin(uri="u", sha256="0" * 64)}


def test_hounsfield_units_become_unit_range() -> None:
    """The soft-tissue window; what lies outside is clipped when a dataset is prepared, and stored so."""
    window = Scaling(intercept=-1000, low=-175, high=250)
    stored = np.array([825, 1250, 1037.5])
    assert np.allclose(window.unit(stored), [0, 1, 0.5], atol=1e-6)
    assert np.allclose(window.unit(np.clip(np.array([0, 4000]), 825, 1250)), [0, 1], atol=1e-6)


def test_the_rate_falls_from_the_end_of_the_warm_up_to_the_end_of_the_run() -> None:
    """Counted in steps; counted in epochs and stepped every batch, it would rise to full again at step 95."""
    run = paper()
    rates = [run.optimizer.learning_rate(step, run.steps) for step in range(0, run.steps + 1, 100)]
    warm = run.optimizer.warmup_steps // 100
    assert run.optimizer.learning_rate(run.optimizer.warmup_steps - 1, run.steps) == run.optimizer.lr == max(rates)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert all(a < b for a, b in itertools.pairwise(rates[: warm + 1]))
    assert all(a > b for a, b in itertools.pairwise(rates[warm:]))


def test_sizes_of_the_paper() -> None:
    """4,096 tokens seen without a mask, 1,024 with; a code one and a half times as large as its input."""
    config = paper().method
    assert isinstance(config, Maesil)
    with torch.device("meta"):
        network = config.build()
    assert config.mask.num_visible((16, 16, 16)) == 1024
    assert network.compression((128, 128, 128)) == pytest.approx(1 / 1.5)
    blocks = network.encoder.blocks  # type: ignore[union-attr]
    assert [sum(p.numel() for p in block.parameters()) for block in blocks] == [7_087_872] * 6  # type: ignore[union-attr]


def test_the_smooth_head_begins_as_nothing_and_sees_across_patches() -> None:
    settings = TokenDecoderSettings(width=24, depth=1, heads=2, hidden=48, smooth_channels=2)
    plain, smooth = (_network(replace(_tiny(), decoder=s)) for s in (replace(settings, smooth_channels=0), settings))
    smooth.load_state_dict(plain.state_dict(), strict=False)
    ids, x = _ids(DualMask()), torch.rand(2, 1, 32, 32, 32)
    assert torch.equal(smooth.predict_patches(x, ids), plain.predict_patches(x, ids))
    head = smooth.decoder.smooth
    torch.nn.init.normal_(head.back.weight)  # type: ignore[union-attr, arg-type]
    volume = torch.zeros(1, 1, 16, 16, 16, requires_grad=True)
    (reached,) = torch.autograd.grad(head(volume)[0, 0, 7, 7, 7], volume)
    assert float(reached[0, 0, 8, 8, 8].abs()) > 0


def test_training_lowers_the_loss() -> None:
    """A few steps on one batch of smooth volumes."""
    network = _network(_tiny()).train()
    x = torch.linspace(0, 1, 32).view(1, 1, 1, 1, 32).expand(2, 1, 32, 32, 32).contiguous()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    ids, losses = _ids(DualMask()), []
    for _ in range(40):
        loss = masked_mse(network.predict_patches(x, ids), patchify(x, (8, 8, 8)), visible_mask(ids, 64))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 10
