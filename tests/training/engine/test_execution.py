"""Compute: every switch changes how a step is done, and a test says by how much its result may differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError, UsageError
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.collate import Batch
from crossdim.training.engine.execution import Compute
from crossdim.training.engine.loop import StepRecord, fit
from crossdim.training.engine.train_state import Learner
from crossdim.training.methods.base import Step
from crossdim.training.recipes import maesil
from crossdim.training.recipes.cdssl_p3d import tiny
from tests.training.methods.method_suite import MethodSuite
from tests.training.published import images, superpatches

CPU = torch.device("cpu")


def _config(**switches: object) -> Pretraining:
    return replace(tiny(), steps=3, compute=Compute(**switches))  # type: ignore[arg-type]


def _steps(config: Pretraining, count: int = 3) -> list[list[Batch]]:
    draw = MethodSuite.batch
    return [[draw(config.method, images(4), 10 * i), draw(config.method, superpatches(4), 10 * i + 5)] for i in range(count)]


def _trained(config: Pretraining, steps: list[list[Batch]]) -> tuple[list[StepRecord], Learner]:
    learner, records = Learner.of(config, CPU), list[StepRecord]()
    fit(learner.method, learner.optimizer, config, steps, 0, CPU, lambda record, ask: records.append(record), learner.moved)
    return records, learner


@pytest.fixture(scope="module")
def steps() -> list[list[Batch]]:
    return _steps(_config())


@pytest.fixture(scope="module")
def plain(steps: list[list[Batch]]) -> tuple[list[StepRecord], Learner]:
    return _trained(_config(channels_last=False), steps)


def _assert_near(found: list[StepRecord], expected: list[StepRecord], first: float) -> None:
    """The first step, from equal weights, to ``first``; later ones to what batch norm of few voxels makes of rounding."""
    assert found[0].terms == pytest.approx(expected[0].terms, abs=first)
    assert [r.loss for r in found] == pytest.approx([r.loss for r in expected], abs=0.03)


@pytest.mark.integration
def test_computing_activations_again_changes_no_bit(steps: list[list[Batch]], plain: tuple[list[StepRecord], Learner]) -> None:
    """Running statistics too: recomputation must not count a batch twice."""
    records, learner = _trained(_config(channels_last=False, recompute=True), steps)
    assert [r.loss for r in records] == [r.loss for r in plain[0]]
    expected = plain[1].method.state_dict()
    found = learner.method.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_computing_activations_again_keeps_fewer_bytes(steps: list[list[Batch]]) -> None:
    def saved(config: Pretraining) -> int:
        held: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        method = Learner.of(config, CPU).method
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            method.levels(steps[0][1].tensors["view1"])  # type: ignore[operator]
        return sum(held.values())

    assert saved(_config(recompute=True)) < 0.5 * saved(_config())


@pytest.mark.integration
def test_channels_last_differs_by_rounding_alone(steps: list[list[Batch]], plain: tuple[list[StepRecord], Learner]) -> None:
    _assert_near(_trained(_config(channels_last=True), steps)[0], plain[0], 1e-6)


def test_bfloat16_stays_near_and_its_losses_are_float32(steps: list[list[Batch]]) -> None:
    """Forward alone: on a CPU gradients in bfloat16 come out as NaN now and then, which is why a run there refuses it."""
    config = _config(precision="bf16")
    method, step = Learner.of(config, CPU).method.train(), Step(index=0, total=3, seed=0)
    for batch in steps[0]:
        plain = method(batch, step).losses
        with config.compute.autocast(CPU):
            cast = method(batch, step).losses
        assert {term.dtype for term in cast.values()} == {torch.float32}
        assert all(cast[name].item() == pytest.approx(plain[name].item(), abs=0.01) for name in plain)
        assert any(cast[name].item() != plain[name].item() for name in plain)


@pytest.mark.integration
def test_the_average_follows_the_weights_and_is_what_is_kept(
    steps: list[list[Batch]], plain: tuple[list[StepRecord], Learner]
) -> None:
    """The recurrence written out, for one weight."""
    config = _config(channels_last=False, ema=0.5)
    learner = Learner.of(config, CPU)
    name = "encoder.down0.0.0.weight"
    seen: list[torch.Tensor] = []

    def moved() -> None:
        seen.append(learner.method.state_dict()[name].clone())
        learner.moved()

    fit(learner.method, learner.optimizer, config, steps, 0, CPU, lambda record, ask: None, moved)
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.5 * expected + 0.5 * weight
    state = learner.state(3, 0, {})
    assert torch.allclose(state.kept[name], expected, atol=1e-7)
    assert torch.equal(state.model[name], seen[-1])
    assert torch.equal(state.encoder["down0.0.0.weight"], state.kept[name])
    again = Learner.of(config, CPU)
    again.resume(Bucket("."), state)
    assert torch.equal(again.state(3, 0, {}).encoder["down0.0.0.weight"], state.kept[name])
    assert plain[1].state(3, 0, {}).kept[name].equal(plain[1].method.state_dict()[name])


def test_parts_hold_every_sample_once() -> None:
    config = _config(accumulate=3)
    [batches] = _steps(config, 1)
    parts = list(config.compute.parts(batches))
    assert [part.keys for part in parts] == [b.keys[i:j] for b in batches for i, j in ((0, 1), (1, 2), (2, 4))]
    assert all(part.counts == {part.stream: 4} for part in parts)
    assert torch.equal(torch.cat([p.tensors["local"] for p in parts[:3]]), batches[0].tensors["local"])
    assert len(list(_config(accumulate=9).compute.parts(batches))) == 8


def test_a_rank_cuts_as_often_as_the_poorest_can() -> None:
    """Parts are met in collectives, so their number must not depend on what a rank happens to hold; no part is empty."""
    [[batch, other]] = _steps(_config(), 1)
    for least, parts in ((0, 1), (1, 1), (2, 2), (3, 3), (4, 3)):
        found = list(_config(accumulate=3).compute.parts([replace(batch, least=least), replace(other, least=least)]))
        assert [part.stream for part in found] == [batch.stream] * parts + [other.stream] * parts
        assert tuple(key for part in found[:parts] for key in part.keys) == batch.keys
        assert all(len(part.keys) == len(part.tensors["view1"]) > 0 for part in found)


def test_a_rank_that_borrows_has_one_part_with_the_tensors_and_no_key() -> None:
    [[batch, _]] = _steps(_config(), 1)
    borrowed = replace(batch, keys=(), tensors={name: tensor[:1] for name, tensor in batch.tensors.items()}, least=0)
    [part] = _config(accumulate=3).compute.parts([borrowed])
    assert (part.keys, part.global_size, part.tensors.keys()) == ((), 4, batch.tensors.keys())
    assert all(torch.equal(part.tensors[name], batch.tensors[name][:1]) for name in part.tensors)


def test_precision_says_what_a_gpu_may_round() -> None:
    """In words of PyTorch that hold for the process, so they are put back here; each run sets both, whatever was before."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        for precision, words, rounded in (("tf32", "high", True), ("fp32", "highest", False), ("bf16", "high", True)):
            Learner.of(_config(precision=precision), CPU)
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (words, rounded)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_batch_norm_is_not_sharded_nor_looked_for_elsewhere() -> None:
    """Also where it is synchronised; a network without any may be."""
    for compute in (Compute(sharded=True), Compute(sharded=True, sync_bn=True)):
        with pytest.raises(UsageError, match=r"compute\.sharded cannot go with batch norm"):
            Learner.of(replace(_config(), compute=compute), CPU)
    with torch.device("meta"):
        Compute().refuse(_config().method.build())
        Compute(sharded=True).refuse(maesil.tiny().method.build())


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(RunError, match="a sharded run keeps no moving average"):
        Compute(sharded=True, ema=0.9)
    for wrong in ({"accumulate": 0}, {"precision": "fp8"}, {"ema": 1.0}):
        with pytest.raises(RunError, match="compute takes"):
            Compute(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning", "ignore:.*not a leaf.*:UserWarning")
def test_compiled_networks_give_the_same_losses(steps: list[list[Batch]], plain: tuple[list[StepRecord], Learner]) -> None:
    records, learner = _trained(_config(channels_last=False, compiled=True), steps)
    _assert_near(records, plain[0], 1e-5)
    assert list(learner.method.state_dict()) == list(plain[1].method.state_dict())
