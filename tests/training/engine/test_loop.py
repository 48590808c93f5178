"""The loop: two processes give the gradient of one, whatever the shares; a loss that is no number stops the run."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from crossdim.storage_schema.errors import RunError
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones.base import EncoderSpec
from crossdim.training.config.execution import Execution
from crossdim.training.config.optimizers import Sgd
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.collate import Batch
from crossdim.training.engine.control import Request, StopControl
from crossdim.training.engine.loop import Schedule, fit
from crossdim.training.engine.step_record import StepRecord, key_hash
from crossdim.training.engine.train_state import TrainState
from crossdim.training.methods.base import Method, Step, StepOutput
from crossdim.training.recipes.cdssl_p3d import tiny
from tests.ranks import run_on_ranks
from tests.training.records import Records

pytestmark = pytest.mark.integration


class _Line(Method):
    """A straight line: nothing crosses samples, so ranks must agree exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 1).double()
        nn.init.constant_(self.encoder.weight, 0.5)
        nn.init.zeros_(self.encoder.bias)
        self.encoder_spec = EncoderSpec(backbone="none", settings={}, in_channels=1, num_features=1, side_multiple=1)

    def forward(self, batch: Batch, step: Step) -> StepOutput:
        error = self.encoder(batch.tensors["x"]) - batch.tensors["y"]
        return StepOutput({"square": error.square().mean()}, {"bias": error.mean()})

    def reconstruct(self, x: torch.Tensor) -> None:
        return None


class _Scripted(StopControl):
    """Requests by the number of the step, counted from 0."""

    def __init__(self, requests: dict[int, Request]) -> None:
        super().__init__()
        self._steps, self._at = iter(range(1000)), requests

    def take(self) -> Request:
        return self._at.get(next(self._steps), Request.NOTHING)


def _state(method: Method, config: Pretraining) -> TrainState:
    """Of a method as it is; its gradients are averaged over the ranks where there are several."""
    cpu, build = torch.device("cpu"), config.optimizer.build
    state = TrainState(method=method, module=method, optimizer=build(method), average=None, sharded=False, device=cpu)
    return state.distribute()


def _config(steps: int) -> Pretraining:
    return Pretraining(method=tiny().method, steps=steps, global_batch=5, optimizer=Sgd(lr=0.1, momentum=0.9))


def _steps(count: int, rank: int, world: int, sizes: tuple[int, int] = (5, 3)) -> list[list[Batch]]:
    """Two streams; ranks hold contiguous, uneven parts, and where one holds nothing, the first sample, which is not its own."""
    generator = torch.Generator().manual_seed(0)
    steps = []
    for number in range(count):
        batches = []
        for presentation, size in zip((Presentation.PSEUDO3D, Presentation.SUPERPATCH), sizes, strict=True):
            x = torch.randn(size, 3, generator=generator, dtype=torch.float64)
            mine = slice(rank * size // world, (rank + 1) * size // world)
            seen = x[mine] if len(x[mine]) else x[:1]
            tensors = {"x": seen, "y": seen.sum(1, keepdim=True) + 1}
            keys = tuple(f"{number}-{presentation}-{i}" for i in range(size))[mine]
            counts, least = {presentation: size}, size // world
            batches.append(Batch(stream=presentation, keys=keys, counts=counts, tensors=tensors, least=least))
        steps.append(batches)
    return steps


def _train(
    rank: int, world: int, sizes: tuple[int, int] = (5, 3), accumulate: int = 1, method: Method | None = None
) -> tuple[list[StepRecord], torch.Tensor]:
    method, config = method or _Line(), replace(_config(6), compute=Execution(accumulate=accumulate))
    records = Records()
    fit(_state(method, config), _steps(6, rank, world, sizes), Schedule.from_config(config), [records])
    return records.found, method.state_dict()["encoder.weight"].clone()


def _process(rank: int, world: int, folder: str) -> None:
    torch.save([(r.loss, r.samples, r.voxels, r.monitors) for r in _train(rank, world)[0]], f"{folder}/{rank}.pt")
    torch.save(_train(rank, world)[1], f"{folder}/weight-{rank}.pt")


def test_two_processes_with_uneven_shares_train_as_one(tmp_path: Path) -> None:
    """Losses are weighted by global counts, so who holds which sample does not matter."""
    records, weight = _train(0, 1)
    run_on_ranks(2, _process, str(tmp_path))
    for rank in range(2):
        logged = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert [loss for loss, *_ in logged] == pytest.approx([r.loss for r in records], abs=1e-12)
        assert [(samples, voxels) for _, samples, voxels, _ in logged] == [(r.samples, r.voxels) for r in records]
        assert all(seen == pytest.approx(r.monitors, abs=1e-12) for (*_, seen), r in zip(logged, records, strict=True))
        assert torch.allclose(torch.load(tmp_path / f"weight-{rank}.pt", weights_only=True), weight, atol=1e-12)


class _Counted(_Line):
    """Counts forward passes, of which every rank must do as many as the others; and is late in one step, if it is to be."""

    def __init__(self, late_at: int | None = None) -> None:
        super().__init__()
        self.passes, self._late_at = 0, late_at

    def forward(self, batch: Batch, step: Step) -> StepOutput:
        self.passes += 1
        if step.index == self._late_at:
            time.sleep(LATE_S / 2)  # a pass a stream
        return super().forward(batch, step)


LATE_S = 1.0
#: Samples of both streams, by world: rank 0 has none of the second in one, none of either in the other; all have some.
UNEVEN = {3: ((5, 2), (7, 4)), 4: ((3, 3), (5, 1), (9, 4))}
PARTS = (1, 2)


def _stopped(rank: int, world: int) -> tuple[list[int], bool]:
    """Rank 1 is asked to save once and to stop two steps later: what every rank was told at each step, and at the end."""
    requests = {1: Request.SAVE, 3: Request.STOP} if rank == 1 else {}
    records, config = Records(), _config(6)
    state, schedule = _state(_Line(), config), Schedule.from_config(config)
    end = fit(state, _steps(6, rank, world), schedule, [records], _Scripted(requests))
    return [int(request) for request in records.requests], end is Request.STOP


def _uneven(rank: int, world: int, folder: str) -> None:
    found: dict[str, object] = {"stopped": _stopped(rank, world)}
    for sizes, parts in itertools.product(UNEVEN[world], PARTS):
        method = _Counted()
        records, weight = _train(rank, world, sizes, parts, method)
        numbers = [(r.loss, r.terms, r.monitors, r.grad_norm, r.samples, r.voxels, sum(r.counts.values())) for r in records]
        found[f"{sizes} in {parts}"] = (numbers, weight, method.passes)
    for late in (0, world - 1):
        records, _ = _train(rank, world, method=_Counted(late_at=3 if rank == late else None))
        found[f"late {late}"] = [(r.skew_s, r.slowest) for r in records]
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module", params=sorted(UNEVEN))
def uneven(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of several ranks found."""
    world, folder = request.param, tmp_path_factory.mktemp("uneven")
    run_on_ranks(world, _uneven, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def test_ranks_without_a_sample_take_part_and_change_nothing(uneven: list[dict[str, Any]]) -> None:
    """Weights, losses, monitors and gradients are those of one process, whatever is borrowed, in one part or in several."""
    for sizes, parts in itertools.product(UNEVEN[len(uneven)], PARTS):
        records, weight = _train(0, 1, sizes)
        for rank in uneven:
            numbers, found, passes = rank[f"{sizes} in {parts}"]
            assert torch.allclose(found, weight, rtol=0, atol=1e-12)
            for (loss, terms, monitors, norm, *counted), one in zip(numbers, records, strict=True):
                assert (loss, norm) == pytest.approx((one.loss, one.grad_norm), abs=1e-12)
                assert terms == pytest.approx(one.terms, abs=1e-12)
                assert monitors == pytest.approx(one.monitors, abs=1e-12)
                assert counted == [one.samples, one.voxels, sum(sizes)]
            assert passes == 6 * sum(max(1, min(parts, size // len(uneven))) for size in sizes)


def test_a_stop_asked_of_one_rank_stops_all_after_the_same_step(uneven: list[dict[str, Any]]) -> None:
    """As a save does, which all hear of at the step at which one was asked."""
    for rank in uneven:
        assert rank["stopped"] == ([Request.NOTHING, Request.SAVE, Request.NOTHING, Request.STOP], True)


def test_the_rank_that_comes_late_is_named_with_what_the_others_lost(uneven: list[dict[str, Any]]) -> None:
    for late in (0, len(uneven) - 1):
        for rank in uneven:
            skew_s, slowest = rank[f"late {late}"][3]
            assert slowest == late
            assert LATE_S / 2 < skew_s < 4 * LATE_S  # a busy machine holds up the others, or the late one once more


def test_a_stop_at_the_last_step_is_the_end() -> None:
    """All steps are done: there is nothing to go on with, and the run ends as one that nobody stopped."""
    config, records, control = _config(2), Records(), _Scripted({1: Request.STOP})
    end = fit(_state(_Line(), config), _steps(2, 0, 1), Schedule.from_config(config), [records], control)
    assert (records.requests, end) == ([Request.NOTHING, Request.STOP], Request.NOTHING)


def test_a_step_is_one_update_of_both_streams_together() -> None:
    """The first update against the closed form: the mean over streams of the mean over samples."""
    [batches] = _steps(1, 0, 1)
    gradient = torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        error = batch.tensors["x"] @ torch.full((3, 1), 0.5, dtype=torch.float64) - batch.tensors["y"]
        gradient += (2 * error * batch.tensors["x"]).mean(0) / len(batches)
    method, config = _Line(), _config(1)
    fit(_state(method, config), [batches], Schedule.from_config(config))
    decayed = 0.5 - 0.1 * (gradient + 1e-4 * 0.5)
    assert torch.allclose(method.encoder.weight[0], decayed, atol=1e-12)


@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_a_step_in_parts_is_the_step_as_a_whole(accumulate: int) -> None:
    """Nothing crosses samples here, so gradients, losses and monitors of uneven parts add up to those of the whole."""
    whole, weight = _train(0, 1)
    method, config = _Line(), replace(_config(6), compute=Execution(accumulate=accumulate))
    records = Records()
    fit(_state(method, config), _steps(6, 0, 1), Schedule.from_config(config), [records])
    assert torch.allclose(method.encoder.weight, weight, atol=1e-12)
    for part, one in zip(records.found, whole, strict=True):
        assert part.terms == pytest.approx(one.terms, abs=1e-12)
        assert part.monitors == pytest.approx(one.monitors, abs=1e-12)
        assert (part.samples, part.voxels, part.counts) == (one.samples, one.voxels, one.counts)


def test_what_is_watched_is_a_mean_over_samples_and_no_part_of_the_loss() -> None:
    [batches] = _steps(1, 0, 1)
    records, _ = _train(0, 1)
    error = batches[1].tensors["x"] @ torch.full((3, 1), 0.5, dtype=torch.float64) - batches[1].tensors["y"]
    assert records[0].monitors["superpatch/bias"] == pytest.approx(error.mean().item())
    assert records[0].loss == pytest.approx(sum(records[0].terms.values()))
    assert records[0].voxels == sum(tensor.numel() for batch in batches for tensor in batch.tensors.values())


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_samples() -> None:
    [batches] = _steps(1, 0, 1)
    batches[1].tensors["x"][0, 0] = math.nan
    method, config = _Line(), _config(1)
    before = method.encoder.weight.detach().clone()
    with pytest.raises(RunError, match=r"step 0: loss or gradient is not finite .*whose input is not finite: 0-superpatch-0$"):
        fit(_state(method, config), [batches], Schedule.from_config(config))
    assert torch.equal(method.encoder.weight, before)


def test_the_digest_of_samples_does_not_know_their_order() -> None:
    keys = ["a", "b", "c"]
    assert sum(map(key_hash, keys)) == sum(map(key_hash, reversed(keys)))
    assert sum(map(key_hash, keys)) != sum(map(key_hash, ["a", "b", "d"]))
