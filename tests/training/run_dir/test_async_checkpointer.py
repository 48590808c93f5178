"""AsyncCheckpointer: a checkpoint is of the step at which it was copied, whatever the store and the weights do meanwhile."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import crossdim.training.run_dir.async_checkpointer
from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError
from crossdim.training.engine.control import Request, StopControl
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.engine.train_state import TrainState
from crossdim.training.recipes.maesil import tiny
from crossdim.training.run_dir import checkpoint, checkpoint_listing
from crossdim.training.run_dir.async_checkpointer import AsyncCheckpointer, RunHeader
from crossdim.training.run_dir.background_writer import BackgroundWriter
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.checkpoint_state import CheckpointState
from crossdim.training.run_dir.events import EventLog, list_events
from crossdim.training.run_dir.metrics import read_metrics
from crossdim.training.run_dir.resume import capture
from tests.disks import small_disk

PATIENCE_S = 60.0
CPU = torch.device("cpu")


class _Slow(Bucket):
    """A store that takes an object when it is told to."""

    begun: ClassVar[threading.Event] = threading.Event()
    released: ClassVar[threading.Event] = threading.Event()

    def put(self, path: str, data: bytes) -> None:
        self.begun.set()
        assert self.released.wait(PATIENCE_S)
        super().put(path, data)


def _update(state: TrainState, seed: int) -> None:
    """An update by a gradient of chance: weights and both moments are others afterwards."""
    generator = torch.Generator().manual_seed(seed)
    for weight in state.method.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)
    state.optimizer.step()
    state.update_average()


def _leaves(state: CheckpointState) -> list[Tensor]:
    tensors = pytree.tree_leaves([state.model, state.optimizer, state.average])
    return [tensor.clone() for tensor in tensors if isinstance(tensor, Tensor)]


def _alike(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bench:
    state: TrainState
    writer: BackgroundWriter
    checkpointer: AsyncCheckpointer
    control: StopControl


@contextlib.contextmanager
def _saving(run: Bucket, saving: Saving, *, ema: float | None = None) -> Iterator[_Bench]:
    """Rank 0 of 1, without steps."""
    config = replace(tiny(), steps=9, compute=replace(tiny().compute, ema=ema))
    state = TrainState.build(config, CPU)
    _update(state, seed=0)
    header = RunHeader(identity={"a": 1}, spec=state.method.encoder_spec, steps=9, global_batch=4, rank=0, world=1)
    with contextlib.closing(BackgroundWriter()) as writer:
        control = StopControl()
        checkpointer = AsyncCheckpointer(run, header, saving, state, writer, control, EventLog(run, 1))
        yield _Bench(state=state, writer=writer, control=control, checkpointer=checkpointer)


@pytest.fixture
def slow(tmp_path: Path) -> _Slow:
    _Slow.begun.clear()
    _Slow.released.clear()
    return _Slow(str(tmp_path))


@pytest.mark.parametrize("ema", [None, 0.5])
def test_what_is_written_is_the_state_at_the_copy(ema: float | None, slow: _Slow) -> None:
    """The weights move on twice while the store takes its time; so do moments and average."""
    with _saving(slow, Saving(every=2), ema=ema) as bench:
        expected = _leaves(capture(bench.state, 2, 8, {}))
        encoder = {name: t.clone() for name, t in capture(bench.state, 2, 8, {}).encoder.items()}
        bench.checkpointer.save(2)
        assert _Slow.begun.wait(PATIENCE_S)
        for seed in (1, 2):
            _update(bench.state, seed)
        assert not bench.writer.idle
        _Slow.released.set()
        bench.writer.finish()
        found = checkpoint.load(slow)
        assert found is not None
        assert (found.step, found.position, found.identity) == (2, 8, {"a": 1})
        assert _alike(_leaves(found), expected)
        assert not _alike(_leaves(capture(bench.state, 2, 8, {})), expected)
        kept = torch.load(Path(slow.root, "encoder.pt"), weights_only=True)["weights"]
        assert kept.keys() == encoder.keys()
        assert all(torch.equal(kept[name], encoder[name]) for name in encoder)


def test_a_second_copy_waits_until_the_first_is_written(slow: _Slow) -> None:
    """It uses the memory of the first, so both would be spoiled; and it is no third copy of a large model."""
    with _saving(slow, Saving(every=2)) as bench, ThreadPoolExecutor(1) as thread:
        first = _leaves(capture(bench.state, 2, 8, {}))
        bench.checkpointer.save(2)
        memory = {name: tensor.data_ptr() for name, tensor in bench.checkpointer._copies.items()}
        assert _Slow.begun.wait(PATIENCE_S)
        _update(bench.state, seed=1)
        second = _leaves(capture(bench.state, 4, 16, {}))
        saving = thread.submit(bench.checkpointer.save, 4)
        with pytest.raises(TimeoutError):
            saving.result(0.2)
        _Slow.released.set()
        saving.result(PATIENCE_S)
        bench.writer.finish()
        assert {name: tensor.data_ptr() for name, tensor in bench.checkpointer._copies.items()} == memory
        assert _alike(_leaves(checkpoint.load_step(slow, 2)), first)
        assert _alike(_leaves(checkpoint.load_step(slow, 4)), second)


def _record(step: int) -> StepRecord:
    numbers = dict.fromkeys(("loss", "lr", "grad_norm", "wait_s", "step_s", "skew_s"), 0.0)
    return StepRecord(step=step, terms={}, monitors={}, counts={}, samples=0, voxels=0, slowest=0, **numbers)  # type: ignore[arg-type]


def test_a_checkpoint_is_due_by_steps_by_an_ask_and_at_the_end(tmp_path: Path) -> None:
    with _saving(Bucket(str(tmp_path)), Saving(every=4)) as bench:
        assert [bench.checkpointer.is_due(_record(step), Request.NOTHING) for step in range(9)] == [
            *([False] * 3 + [True]) * 2,
            True,
        ]
        assert [bench.checkpointer.is_due(_record(0), ask) for ask in Request] == [False, True, True]
        assert bench.control.take() is Request.NOTHING


def test_a_checkpoint_that_time_makes_due_is_asked_for_so_that_all_ranks_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks of ranks differ: a rank whose time has come asks, and all save after the next step."""
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now, perf_counter=lambda: 0.0)
    monkeypatch.setattr(crossdim.training.run_dir.async_checkpointer, "time", clock)
    with _saving(Bucket(str(tmp_path)), Saving(every=None, every_s=30.0)) as bench:
        for now, asked in ((129.9, Request.NOTHING), (130.0, Request.SAVE)):
            clock.now = now
            assert not bench.checkpointer.is_due(_record(1), Request.NOTHING)
            assert bench.control.take() is asked
        clock.now = 131.0
        assert bench.checkpointer.is_due(_record(2), Request.SAVE)
        bench.checkpointer.save(3)
        clock.now = 160.9  # counted from the copy, not from when it was due
        assert not bench.checkpointer.is_due(_record(3), Request.NOTHING)
        assert bench.control.take() is Request.NOTHING
        bench.writer.finish()


def test_a_store_that_fails_is_heard_of_after_the_next_step(tmp_path: Path) -> None:
    class Full(Bucket):
        def put(self, path: str, data: bytes) -> None:
            raise StorageError(f"{path}: no space is left")

    with _saving(Full(str(tmp_path)), Saving(every=2)) as bench:
        bench.checkpointer.save(2)
        while not bench.writer.idle:
            pass
        with pytest.raises(StorageError, match="no space is left"):
            bench.checkpointer.after_step(_record(2), Request.NOTHING)


def _pretrain(run: Path, data: Bucket, *more: str, steps: int = 6) -> int:
    line = ["pretrain", "--recipe", "maesil:tiny", "--data", data.url, "--out", str(run), "--workers", "0", "--json"]
    return main([*line, "--steps", str(steps), *more])


def _happened(run: Path) -> list[tuple[str, int]]:
    return [(event.kind, event.step) for event in list_events(Bucket(str(run)))]


def _losses(run: Path) -> list[tuple[int, float]]:
    return [(record["step"], record["loss"]) for record in read_metrics(Bucket(str(run)))]


@pytest.mark.parametrize("full_at", [4, 6])
@pytest.mark.integration
def test_a_full_disk_ends_the_run_in_one_sentence_and_spares_the_checkpoint_before(
    full_at: int, image_data: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the midst of the run, and at its last checkpoint, when no step follows; the disk has room for notes."""
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if f"step-{full_at:08d}" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert _pretrain(tmp_path / "run", image_data, "--checkpoint-every", "2") == 2
    monkeypatch.undo()
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert f"no space is left at {tmp_path / 'run'}; free some there or choose another place" in text
    assert len(text.strip().splitlines()) == 1
    found = checkpoint.load(Bucket(str(tmp_path / "run")))
    assert found is not None
    assert found.step == full_at - 2
    assert _happened(tmp_path / "run")[-1][0] == "failed"
    assert _pretrain(tmp_path / "run", image_data, "--checkpoint-every", "2") == 0
    assert _pretrain(tmp_path / "whole", image_data) == 0
    assert _losses(tmp_path / "run") == _losses(tmp_path / "whole")


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_disk_that_is_really_full_spares_the_checkpoint_before(
    image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Room for one checkpoint and half of another: after that not even a note of the failure may find room."""
    assert _pretrain(tmp_path / "whole", image_data, "--keep", "1") == 0
    sizes = {stored.path: stored.size for stored in Bucket(str(tmp_path / "whole")).list_objects()}
    room = sum(sizes.values()) + sizes["checkpoints/step-00000006/state.pt"] // 2
    with small_disk(tmp_path / "disk", room):
        assert _pretrain(tmp_path / "disk" / "run", image_data, "--checkpoint-every", "2") == 2
        text = capsys.readouterr().err
        assert (len(text.strip().splitlines()), "no space is left" in text) == (1, True)
        found = checkpoint.load(Bucket(str(tmp_path / "disk" / "run")))
        assert found is not None
        assert found.step == 2


@pytest.mark.integration
def test_checkpoints_by_time(image_data: Bucket, tmp_path: Path) -> None:
    """A tenth of a second lies between any two but the last, which the end makes due."""
    assert _pretrain(tmp_path, image_data, "--checkpoint-every", "0.1s", "--keep", "99", steps=60) == 0
    saved = [step for kind, step in _happened(tmp_path) if kind == "checkpoint"]
    at_s = [record["time_s"] for record in read_metrics(Bucket(str(tmp_path)))]
    gaps = [at_s[later - 1] - at_s[before - 1] for before, later in itertools.pairwise(saved[:-1])]
    assert (saved[-1], len(gaps) > 0) == (60, True)
    assert min(gaps) >= 0.1
    assert len(saved) <= 60 // 2  # asked for after one step, saved after the next


def test_what_is_kept_is_the_newest_and_every_kth_and_nothing_half_written(image_data: Bucket, tmp_path: Path) -> None:
    """A save that was cut off leaves a folder that no reader takes, and nobody else would ever remove."""
    for half in ("step-00000001/parts/shard-00000-00000.bin", "step-00000004/parts/left.bin", "step-00000099/state.pt"):
        Bucket(str(tmp_path)).put(f"checkpoints/{half}", b"half")
    assert _pretrain(tmp_path, image_data, "--checkpoint-every", "1", "--keep", "2", "--keep-every", "4", steps=7) == 0
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", "step-00000004", "step-00000006", "step-00000007", "step-00000099"]
    assert checkpoint_listing.complete_names(Bucket(str(tmp_path))) == [f"step-{step:08d}" for step in (4, 6, 7)]


def test_the_encoder_is_that_of_the_newest_checkpoint(image_data: Bucket, tmp_path: Path) -> None:
    assert _pretrain(tmp_path, image_data, "--checkpoint-every", "2", steps=3) == 0
    state = checkpoint.load(Bucket(str(tmp_path)))
    assert state is not None
    kept = torch.load(tmp_path / "encoder.pt", weights_only=True)["weights"]
    assert kept.keys() == state.encoder.keys()
    assert all(torch.equal(kept[name], state.encoder[name]) for name in kept)
