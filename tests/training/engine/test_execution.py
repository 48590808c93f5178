"""Execution: every switch changes how a step is done, and a test says by how much its result may differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError, UsageError
from crossdim.training.config.execution import Execution
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.collate import Batch
from crossdim.training.engine.control import Request
from crossdim.training.engine.execution import autocast, check_execution, split_batches
from crossdim.training.engine.loop import Schedule, fit
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.engine.train_state import TrainState
from crossdim.training.methods.base import Step
from crossdim.training.recipes import maesil
from crossdim.training.recipes.cdssl_p3d import tiny
from crossdim.training.run_dir.resume import capture, load_into
from tests.training.methods.method_suite import MethodSuite
from tests.training.published import images, superpatches
from tests.training.records import Records

CPU = torch.device("cpu")


def _config(**switches: object) -> Pretraining:
    return replace(tiny(), steps=3, compute=Execution(**switches))  # type: ignore[arg-type]


def _steps(config: Pretraining, count: int = 3) -> list[list[Batch]]:
    draw = MethodSuite.batch
    return [[draw(config.method, images(4), 10 * i), draw(config.method, superpatches(4), 10 * i + 5)] for i in range(count)]


def _train(config: Pretraining, steps: list[list[Batch]]) -> tuple[list[StepRecord], TrainState]:
    state, records = TrainState.build(config, CPU), Records()
    fit(state, steps, Schedule.from_config(config), [records])
    return records.found, state


@pytest.fixture(scope="module")
def steps() -> list[list[Batch]]:
    return _steps(_config())


@pytest.fixture(scope="module")
def plain(steps: list[list[Batch]]) -> tuple[list[StepRecord], TrainState]:
    return _train(_config(channels_last=False), steps)


def _assert_near(found: list[StepRecord], expected: list[StepRecord], first: float) -> None:
    """The first step, from equal weights, to ``first``; later ones to what batch norm of few voxels makes of rounding."""
    assert found[0].terms == pytest.approx(expected[0].terms, abs=first)
    assert [r.loss for r in found] == pytest.approx([r.loss for r in expected], abs=0.03)


@pytest.mark.integration
def test_computing_activations_again_changes_no_bit(steps: list[list[Batch]], plain: tuple[list[StepRecord], TrainState]) -> None:
    """Running statistics too: recomputation must not count a batch twice."""
    records, state = _train(_config(channels_last=False, recompute=True), steps)
    assert [r.loss for r in records] == [r.loss for r in plain[0]]
    expected = plain[1].method.state_dict()
    found = state.method.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_computing_activations_again_keeps_fewer_bytes(steps: list[list[Batch]]) -> None:
    def saved(config: Pretraining) -> int:
        held: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        method = TrainState.build(config, CPU).method
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            method.levels(steps[0][1].tensors["view1"])  # type: ignore[operator]
        return sum(held.values())

    assert saved(_config(recompute=True)) < 0.5 * saved(_config())


@pytest.mark.integration
def test_channels_last_differs_by_rounding_alone(steps: list[list[Batch]], plain: tuple[list[StepRecord], TrainState]) -> None:
    _assert_near(_train(_config(channels_last=True), steps)[0], plain[0], 1e-6)


def test_bfloat16_stays_near_and_its_losses_are_float32(steps: list[list[Batch]]) -> None:
    """Forward alone: on a CPU gradients in bfloat16 come out as NaN now and then, which is why a run there refuses it."""
    config = _config(precision="bf16")
    method, step = TrainState.build(config, CPU).method.train(), Step(index=0, total=3, seed=0)
    for batch in steps[0]:
        plain = method(batch, step).losses
        with autocast(config.compute, CPU):
            cast = method(batch, step).losses
        assert {term.dtype for term in cast.values()} == {torch.float32}
        assert all(cast[name].item() == pytest.approx(plain[name].item(), abs=0.01) for name in plain)
        assert any(cast[name].item() != plain[name].item() for name in plain)


@pytest.mark.integration
def test_the_average_follows_the_weights_and_is_what_is_kept(
    steps: list[list[Batch]], plain: tuple[list[StepRecord], TrainState]
) -> None:
    """The recurrence written out, for one weight."""
    config = _config(channels_last=False, ema=0.5)
    state = TrainState.build(config, CPU)
    name = "encoder.down0.0.0.weight"
    seen: list[torch.Tensor] = []

    class Weights:
        def after_step(self, record: StepRecord, request: Request) -> None:
            seen.append(state.method.state_dict()[name].clone())

    fit(state, steps, Schedule.from_config(config), [Weights()])
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.5 * expected + 0.5 * weight
    saved = capture(state, 3, 0, {})
    assert torch.allclose(saved.kept[name], expected, atol=1e-7)
    assert torch.equal(saved.model[name], seen[-1])
    assert torch.equal(saved.encoder["down0.0.0.weight"], saved.kept[name])
    again = TrainState.build(config, CPU)
    load_into(again, Bucket("."), saved)
    assert torch.equal(capture(again, 3, 0, {}).encoder["down0.0.0.weight"], saved.kept[name])
    assert capture(plain[1], 3, 0, {}).kept[name].equal(plain[1].method.state_dict()[name])


def test_parts_hold_every_sample_once() -> None:
    config = _config(accumulate=3)
    [batches] = _steps(config, 1)
    parts = list(split_batches(batches, config.compute.accumulate))
    assert [part.keys for part in parts] == [b.keys[i:j] for b in batches for i, j in ((0, 1), (1, 2), (2, 4))]
    assert all(part.counts == {part.stream: 4} for part in parts)
    assert torch.equal(torch.cat([p.tensors["local"] for p in parts[:3]]), batches[0].tensors["local"])
    assert len(list(split_batches(batches, 9))) == 8


def test_a_rank_cuts_as_often_as_the_poorest_can() -> None:
    """Parts are met in collectives, so their number must not depend on what a rank happens to hold; no part is empty."""
    [[batch, other]] = _steps(_config(), 1)
    for least, parts in ((0, 1), (1, 1), (2, 2), (3, 3), (4, 3)):
        found = list(split_batches([replace(batch, least=least), replace(other, least=least)], 3))
        assert [part.stream for part in found] == [batch.stream] * parts + [other.stream] * parts
        assert tuple(key for part in found[:parts] for key in part.keys) == batch.keys
        assert all(len(part.keys) == len(part.tensors["view1"]) > 0 for part in found)


def test_a_rank_that_borrows_has_one_part_with_the_tensors_and_no_key() -> None:
    [[batch, _]] = _steps(_config(), 1)
    borrowed = replace(batch, keys=(), tensors={name: tensor[:1] for name, tensor in batch.tensors.items()}, least=0)
    [part] = split_batches([borrowed], 3)
    assert (part.keys, part.global_size, part.tensors.keys()) == ((), 4, batch.tensors.keys())
    assert all(torch.equal(part.tensors[name], batch.tensors[name][:1]) for name in part.tensors)


def test_precision_says_what_a_gpu_may_round() -> None:
    """In words of PyTorch that hold for the process, so they are put back here; each run sets both, whatever was before."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        for precision, words, rounded in (("tf32", "high", True), ("fp32", "highest", False), ("bf16", "high", True)):
            TrainState.build(_config(precision=precision), CPU)
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (words, rounded)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_batch_norm_is_not_sharded_nor_looked_for_elsewhere() -> None:
    """Also where it is synchronised; a network without any may be."""
    for compute in (Execution(sharded=True), Execution(sharded=True, sync_bn=True)):
        with pytest.raises(UsageError, match=r"compute\.sharded cannot go with batch norm"):
            TrainState.build(replace(_config(), compute=compute), CPU)
    with torch.device("meta"):
        check_execution(Execution(), _config().method.build())
        check_execution(Execution(sharded=True), maesil.tiny().method.build())


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(RunError, match="a sharded run keeps no moving average"):
        Execution(sharded=True, ema=0.9)
    for wrong in ({"accumulate": 0}, {"precision": "fp8"}, {"ema": 1.0}):
        with pytest.raises(RunError, match="compute takes"):
            Execution(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning", "ignore:.*not a leaf.*:UserWarning")
def test_compiled_networks_give_the_same_losses(steps: list[list[Batch]], plain: tuple[list[StepRecord], TrainState]) -> None:
    records, state = _train(_config(channels_last=False, compiled=True), steps)
    _assert_near(records, plain[0], 1e-5)
    assert list(state.method.state_dict()) == list(plain[1].method.state_dict())
