"""Dual batch norm: plain batch norm in training, and in evaluation the averages of the family that was asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from crossdim.storage_schema.errors import RunError
from crossdim.training.backbones.unet3d import UNet3DSettings
from crossdim.training.layers.dual_norm import ROWS, DualBatchNorm3d, build_norm, select_statistics
from crossdim.training.layers.statistics import recompute_statistics
from crossdim.training.layers.sync_batchnorm import convert_sync_batchnorm

FLAT_X, SOLID_X = torch.randn(4, 3, 2, 4, 4) + 2, torch.randn(2, 3, 4, 4, 4) * 3 - 1


def _plain_after(*batches: Tensor) -> nn.BatchNorm3d:
    plain = nn.BatchNorm3d(3)
    for x in batches:
        plain(x)
    return plain


def _dual_after_both() -> DualBatchNorm3d:
    dual = DualBatchNorm3d(3)
    for stream, x in (("pseudo3d", FLAT_X), ("superpatch", SOLID_X), ("image", FLAT_X + 1), ("superpatch", SOLID_X - 1)):
        select_statistics(dual, stream)
        dual(x)
    return dual


def _reads(dual: nn.Module, stream: str, plain: nn.BatchNorm3d) -> bool:
    select_statistics(dual, stream)
    x = torch.randn(2, 3, 2, 2, 2)
    return torch.equal(dual.eval()(x), plain.eval()(x))


def test_training_is_plain_batch_norm_bit_for_bit() -> None:
    dual, plain = DualBatchNorm3d(3), nn.BatchNorm3d(3)
    for layer in (dual.norm, plain):
        nn.init.uniform_(layer.weight, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    select_statistics(dual, "superpatch")
    one, two = (SOLID_X.clone().requires_grad_() for _ in range(2))
    a, b = dual(one), plain(two)
    a.square().sum().backward()
    b.square().sum().backward()
    assert torch.equal(a, b)
    assert torch.equal(one.grad, two.grad)  # type: ignore[arg-type]
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(dual.parameters(), plain.parameters(), strict=True))  # type: ignore[arg-type]


def test_each_family_has_the_averages_of_its_own_batches() -> None:
    """As if two plain layers had seen one family each; images and pseudo-3D are one family."""
    dual = _dual_after_both()
    assert _reads(dual, "image", _plain_after(FLAT_X, FLAT_X + 1))
    assert _reads(dual, "superpatch", _plain_after(SOLID_X, SOLID_X - 1))
    assert _reads(dual, "pseudo3d", _plain_after(FLAT_X, FLAT_X + 1))


def test_what_is_saved_is_up_to_date_in_both_rows() -> None:
    state = _dual_after_both().state_dict()
    assert torch.equal(state["running_mean"][0], _plain_after(FLAT_X, FLAT_X + 1).running_mean)  # type: ignore[arg-type]
    assert torch.equal(state["running_var"][1], _plain_after(SOLID_X, SOLID_X - 1).running_var)  # type: ignore[arg-type]
    assert state["num_batches_tracked"].tolist() == [2, 2]


@pytest.mark.parametrize("selected", ["image", "superpatch"])
def test_the_state_carries_both_rows_and_which_is_in_use(selected: str) -> None:
    """A run that resumes must average on where it was, whatever the fresh layer had selected."""
    dual = _dual_after_both()
    fresh = DualBatchNorm3d(3)
    select_statistics(fresh, selected)
    fresh.load_state_dict(dual.state_dict())
    assert int(fresh.selected) == ROWS["superpatch"]
    x = torch.randn(2, 3, 2, 2, 2)
    assert torch.equal(fresh.eval()(x), dual.eval()(x))
    assert _reads(fresh, "image", _plain_after(FLAT_X, FLAT_X + 1))
    assert _reads(fresh, "superpatch", _plain_after(SOLID_X, SOLID_X - 1))


def test_copies_and_other_types_keep_both_rows_and_nothing_is_shared() -> None:
    dual = _dual_after_both()
    copied = copy.deepcopy(dual)
    dual(FLAT_X)
    assert _reads(copied, "superpatch", _plain_after(SOLID_X, SOLID_X - 1))
    assert _reads(copied, "image", _plain_after(FLAT_X, FLAT_X + 1))
    wide = copied.double()
    assert wide.running_mean.dtype == torch.float64
    select_statistics(wide, "superpatch")
    assert wide(SOLID_X.double()).dtype == torch.float64


def test_backward_may_come_after_another_row_was_selected() -> None:
    """A step may run both streams forward before it goes backward once; autograd keeps the tensors of the first."""
    dual = DualBatchNorm3d(3)
    losses = []
    for stream, x in (("image", FLAT_X), ("superpatch", SOLID_X)):
        select_statistics(dual, stream)
        losses.append(dual(x).square().sum())
    torch.stack(losses).sum().backward()


def test_joint_batches_and_unknown_streams_are_refused_only_where_it_matters() -> None:
    with pytest.raises(RunError, match="dual statistics need separate streams"):
        select_statistics(nn.Sequential(DualBatchNorm3d(3)), "joint")
    with pytest.raises(RunError, match="unknown stream 'imag'; did you mean image"):
        select_statistics(DualBatchNorm3d(3), "imag")
    select_statistics(nn.BatchNorm3d(3), "joint")


def test_evaluation_restates_the_row_in_use_and_leaves_the_original_alone() -> None:
    module = nn.Sequential(_dual_after_both())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x = torch.randn(20, 3, 4, 4, 4) * 3 + 5
    fresh = recompute_statistics(module, lambda copy: copy, x.split(10))
    y = fresh(x).detach()
    assert float(y.mean()) == pytest.approx(0, abs=1e-3)
    assert float(y.std()) == pytest.approx(1, abs=2e-2)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert _reads(fresh[0], "image", _plain_after(FLAT_X, FLAT_X + 1))


@pytest.mark.parametrize(
    "convert",
    [nn.SyncBatchNorm.convert_sync_batchnorm, partial(convert_sync_batchnorm, device=torch.device("cpu"))],
    ids=["cuda", "cpu"],
)
def test_conversion_to_synchronised_batch_norm_reaches_the_layer_inside(convert: Callable[[nn.Module], nn.Module]) -> None:
    """And the state keeps its names, so that a checkpoint does not care."""
    dual = _dual_after_both()
    converted = convert(copy.deepcopy(dual))
    assert type(converted.norm) is not nn.BatchNorm3d
    assert converted.state_dict().keys() == dual.state_dict().keys()
    assert _reads(converted, "superpatch", _plain_after(SOLID_X, SOLID_X - 1))
    assert _reads(converted, "image", _plain_after(FLAT_X, FLAT_X + 1))


def test_a_network_trains_with_it_and_uses_every_parameter_for_each_stream() -> None:
    network = UNet3DSettings(base_width=2, norm="dual_bn").encoder()
    for stream in ROWS:
        network.zero_grad()
        select_statistics(network, stream)
        network(torch.randn(2, 1, 8, 16, 16)).sum().backward()
        assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("channels", [1, 6, 8, 12])
def test_groups_divide_any_number_of_channels(channels: int) -> None:
    assert build_norm("gn", channels)(torch.randn(2, channels, 2, 2, 2)).shape == (2, channels, 2, 2, 2)
