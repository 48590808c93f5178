"""The weak probe: what learns and what may not, one optimizer with its own schedule, and nothing seen of what is held out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossdim.storage_schema.errors import RunError
from crossdim.training.backbones.resnet import ResNetSettings
from crossdim.training.evaluation.features import Labelled
from crossdim.training.evaluation.probes import split_folds
from crossdim.training.evaluation.weak import WeakProbe, fit_weak_probe, predict_classes, weak_scores
from crossdim.training.layers.dual_norm import DualBatchNorm3d
from tests.training.evaluation.made import labelled, noises


def _encoder(operator: Any = "crossd") -> nn.Module:
    torch.manual_seed(0)
    return ResNetSettings(base_width=8, operator=operator).encoder()


def _fitted(encoder: nn.Module, data: Labelled, **settings: int) -> WeakProbe:
    classes = torch.from_numpy(data.labels.astype(int))
    return fit_weak_probe(encoder, torch.from_numpy(data.x_NC), classes, **({"epochs": 2, "batch": 8, "seed": 0} | settings))


def _norm_names(module: nn.Module) -> set[str]:
    """Names of the weights and biases of batch norms."""
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)]
    return {f"{name}.{kind}" for name, _ in layers for kind in ("weight", "bias")}


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.integration
def test_bright_is_told_from_dark(axes: int) -> None:
    """By one encoder, in images and in volumes."""
    data = noises(48, axes)
    scores = weak_scores(_encoder(), data, split_folds(data, 2)[:2], batch=8)
    assert scores.shape == (2,)
    assert scores.mean() > 0.9


@pytest.mark.integration
def test_labels_at_random_stay_at_chance() -> None:
    """While the training part is learnt by heart: what was seen is no measure."""
    data = noises(60, 2, side=16)
    shuffled = replace(data, labels=np.random.default_rng(1).permutation(data.labels))
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(1, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 256, 3), nn.ReLU())
    scores = weak_scores(encoder, shuffled, split_folds(shuffled, 5), epochs=20)
    assert scores.mean() == pytest.approx(0.5, abs=0.1)
    assert weak_scores(encoder, shuffled, [(np.arange(60), np.arange(60))], epochs=200).mean() > 0.8


@pytest.mark.parametrize(("axes", "operator"), [(2, "crossd"), (3, "crossd"), (2, "conv2d"), (3, "conv3d")])
def test_norms_and_the_linear_layer_learn_and_all_else_is_frozen(axes: int, operator: str) -> None:
    """Bit for bit. Volumes do not pass rotation nets, so norms in there have nothing to learn from."""
    encoder = _encoder(operator)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    gradients = [p.requires_grad for p in encoder.parameters()]
    encoder.train()
    reader = _fitted(encoder, noises(10, axes))
    idle = {name for name in before if axes == 3 and "rotation_params" in name}
    changed = {name for name, p in reader.encoder.named_parameters() if not torch.equal(p, before[name])}
    assert changed == _norm_names(encoder) - idle
    assert not torch.equal(reader.head.weight, torch.zeros_like(reader.head.weight))
    # The encoder that was given is as it was.
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert encoder.training
    assert [p.requires_grad for p in encoder.parameters()] == gradients


@pytest.mark.integration
def test_one_optimizer_holds_everything_from_the_first_step_and_its_rate_is_half_a_cosine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The published scripts swap the optimizer after 10 epochs and leave its schedule behind."""
    steps, real = [], torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *given: Any) -> Any:
        held = {id(p) for group in self.param_groups for p in group["params"]}
        steps.append((id(self), held, {group["lr"] for group in self.param_groups}))
        return real(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    reader = _fitted(_encoder(), noises(20, 2), epochs=3, batch=8)
    learning = {id(p) for p in reader.parameters() if p.requires_grad}
    assert len(steps) == 9
    assert {optimizer for optimizer, _, _ in steps} == {steps[0][0]}
    assert all(held == learning for _, held, _ in steps)
    assert {n for n, p in reader.named_parameters() if p.requires_grad} == {
        *(f"encoder.{name}" for name in _norm_names(reader.encoder)),
        *("head.weight", "head.bias"),
    }
    for number, (_, _, rates) in enumerate(steps):
        assert list(rates) == [pytest.approx(1e-3 * (1 + math.cos(math.pi * number / 9)) / 2)]


@pytest.mark.integration
def test_repeated_it_is_the_same_bit_for_bit() -> None:
    """Whatever chance has done meanwhile, and chance goes on as if nothing had been; another seed is another order."""
    data, encoder = noises(20, 2), nn.Sequential(nn.Dropout(0.3), _encoder())
    one = _fitted(encoder, data).state_dict()
    torch.manual_seed(99)
    two = _fitted(encoder, data).state_dict()
    drawn = torch.rand(1)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(drawn, torch.rand(1, generator=torch.Generator().manual_seed(99)))
    assert not torch.equal(one["head.weight"], _fitted(encoder, data, seed=1).state_dict()["head.weight"])


# ---- statistics --------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_training_part_and_stay() -> None:
    """Of the first norm: mean and variance of what the first convolution answers. Learning does not move them."""
    data, encoder = noises(12, 2), _encoder("conv2d")
    encoder.get_submodule("bn1").running_mean.fill_(100)  # what a run left behind
    reader = _fitted(encoder, data, batch=12)
    with torch.no_grad():
        first = encoder.get_submodule("conv1")(torch.from_numpy(data.x_NC))
    norm = reader.encoder.get_submodule("bn1")
    assert torch.allclose(norm.running_mean, first.mean(dim=(0, 2, 3)), atol=1e-6)
    assert torch.allclose(norm.running_var, first.var(dim=(0, 2, 3)), rtol=1e-5)
    longer = dict(_fitted(encoder, data, batch=12, epochs=4).named_buffers())
    assert all(torch.equal(buffer, longer[name]) for name, buffer in reader.named_buffers())


def test_statistics_of_sorted_samples_hold_the_variance_between_classes() -> None:
    """A mean over batches of one class each would miss it."""
    x = np.repeat([0.0, 10.0], 16)[:, None, None, None] + np.random.default_rng(0).normal(0, 1, (32, 1, 4, 4))
    encoder = nn.Sequential(nn.BatchNorm2d(1), nn.ReLU())
    norm = _fitted(encoder, labelled(x, np.repeat([0, 1], 16)), batch=4).encoder.get_submodule("0")
    assert float(norm.running_var) > 0.7 * x.var()  # type: ignore[arg-type]


def test_dual_norms_are_norms() -> None:
    encoder = nn.Sequential(nn.Conv3d(1, 4, 3), DualBatchNorm3d(4), nn.ReLU())
    data = noises(10, 3, side=8)
    reader = _fitted(encoder, data)
    assert not torch.equal(reader.encoder.get_parameter("1.norm.weight"), torch.ones(4))
    assert torch.equal(reader.encoder.get_parameter("0.weight"), encoder.get_parameter("0.weight"))
    assert weak_scores(encoder, data, split_folds(data, 2)[:1], epochs=1).shape == (1,)


# ---- what is held out --------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_nothing_is_learnt_from_what_is_held_out() -> None:
    """Whatever stands outside of a fold's training part, the score on its test part is the same."""
    data, encoder = noises(40, 2), _encoder()
    hard = replace(data, x_NC=data.x_NC + np.random.default_rng(0).normal(0, 2, data.x_NC.shape).astype(np.float32))
    folds = [(np.arange(20), np.arange(20, 30)), (np.arange(30, 40), np.arange(10, 20))]
    corrupted = replace(hard, x_NC=hard.x_NC.copy())
    corrupted.x_NC[20:30] = 1e4
    before, after = (weak_scores(encoder, d, folds, epochs=2) for d in (hard, corrupted))
    assert 0.5 < before[1] < 1  # a score that could change
    assert before[1] == after[1]
    assert after[0] == 0.5  # equal inputs, equal answers


@pytest.mark.integration
def test_an_answer_does_not_depend_on_its_neighbours() -> None:
    data = noises(40, 2)
    x = torch.from_numpy(data.x_NC) + 0.2 * torch.randn(40, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    reader = _fitted(_encoder(), noises(20, 2, seed=1))
    corrupted = x.clone()
    corrupted[1::2] *= 1e4
    assert len(set(predict_classes(reader, x, 16).tolist())) == 2
    assert predict_classes(reader, x, 16)[::2].tolist() == predict_classes(reader, corrupted, 16)[::2].tolist()
    assert predict_classes(reader, x, 16).tolist() == predict_classes(reader, x, 1).tolist()


def test_classes_weigh_alike() -> None:
    """Nine to one: where nothing is known yet, nothing pulls towards the larger class; unweighted, 0.4 would."""
    labels = (np.arange(40) % 10 == 0).astype(int)
    data = labelled(np.random.default_rng(0).normal(0, 1, (40, 1, 8, 8)), labels)
    reader = _fitted(nn.Sequential(nn.BatchNorm2d(1), nn.ReLU()), data, epochs=1, batch=40)
    assert reader.head.bias.grad is not None
    assert reader.head.bias.grad.tolist() == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"batch": 1}])
def test_what_cannot_be_taught_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(RunError, match="a weak probe needs"):
        _fitted(_encoder(), noises(4, 2), **settings)


def test_a_class_without_samples_is_refused() -> None:
    with pytest.raises(RunError, match=r"\[0, 4\] of each class"):
        _fitted(_encoder(), replace(noises(4, 2), labels=np.array(["1"] * 4)))
