"""Optimizers: their schedule, and which parameters decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crossdim.storage_schema.errors import RunError
from crossdim.training.config.optimizers import AdamW, Sgd


def test_the_rate_rises_in_a_line_and_falls_by_half_a_cosine() -> None:
    rates = [AdamW(lr=1.0, warmup_steps=4).learning_rate(step, 12) for step in range(13)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx(0.5)
    assert rates[12] == pytest.approx(0.0)


def test_norms_biases_and_tokens_do_not_decay_with_adamw() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Conv3d(1, 2, 3))
    module.register_parameter("token", nn.Parameter(torch.zeros(1, 1, 8)))
    kernels, rest = AdamW(weight_decay=0.3).build(module).param_groups
    assert [tuple(p.shape) for p in kernels["params"]] == [(3, 2), (2, 1, 3, 3, 3)]
    assert (kernels["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)
    assert len(kernels["params"]) + len(rest["params"]) == len(list(module.parameters()))


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"betas": (0.9, 1.0)}, {"weight_decay": -1.0}, {"warmup_steps": -1}])
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RunError, match="AdamW needs"):
        AdamW(**wrong)  # type: ignore[arg-type]


def test_sgd_refuses_too() -> None:
    with pytest.raises(RunError, match="SGD needs"):
        Sgd(momentum=1.0)
