"""Synchronised batch norm: two processes with uneven shares are one process with all samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from crossdim.training.layers.sync_batchnorm import SummedBatchNorm, convert_sync_batchnorm
from tests.ranks import run_on_ranks

CPU = torch.device("cpu")
PARTS = {2: [slice(0, 2), slice(2, 7)], 3: [slice(0, 1), slice(1, 2), slice(2, 7)]}


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 3, 3), nn.BatchNorm3d(3), nn.Flatten(), nn.Linear(3 * 8, 4), nn.BatchNorm1d(4)).double()


def _input() -> Tensor:
    return torch.randn(7, 1, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3 + 50


def _gradients(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    network(x).sin().sum().backward()
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return found | {name: b for name, b in network.named_buffers() if b.is_floating_point()}


def _process(rank: int, world: int, folder: str) -> None:
    found = _gradients(convert_sync_batchnorm(_network(), CPU), _input()[PARTS[world][rank]])
    for name, value in found.items():
        if "running" not in name:
            dist.all_reduce(value)
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.integration
def test_gradients_and_statistics_are_those_of_one_process(world: int, tmp_path: Path) -> None:
    """Also where a rank holds a single sample, for which batch norm alone is undefined."""
    run_on_ranks(world, _process, str(tmp_path))
    expected = _gradients(_network(), _input())
    for rank in range(world):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        assert all(torch.allclose(found[name], expected[name], atol=1e-10) for name in expected)


def test_one_process_and_evaluation_are_plain_batch_norm_and_names_stay() -> None:
    plain, ours = _network(), convert_sync_batchnorm(_network(), CPU)
    assert isinstance(ours[1], SummedBatchNorm)  # type: ignore[index]
    assert list(plain.state_dict()) == list(ours.state_dict())
    assert torch.equal(plain(_input()), ours(_input()))
    assert torch.equal(plain.eval()(_input()), ours.eval()(_input()))
