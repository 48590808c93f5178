"""A sharded run equals an unsharded one: on any number of workers, resumed with others, over a damaged part, when evaluated."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError
from crossdim.training.config.execution import Execution
from crossdim.training.config.optimizers import Sgd
from crossdim.training.engine.control import Request, StopControl
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.evaluation.networks import load_trained
from crossdim.training.launch.worker import Job, Source, train
from crossdim.training.recipes.maesil import tiny
from crossdim.training.run_dir import checkpoint_listing, layout
from crossdim.training.run_dir.async_checkpointer import AsyncCheckpointer
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.events import list_events
from crossdim.training.run_dir.metrics import read_metrics
from crossdim.training.run_dir.records import read_records
from tests.ranks import run_on_ranks

pytestmark = pytest.mark.integration

STEPS = 8
STOPPED = 5
CPU = torch.device("cpu")


def _job(out: str, data: tuple[str, ...], **compute: Any) -> Job:
    """MAESIL with a small rate, for rounding to stay small; uneven shares, and at 3 workers a rank without superpatches."""
    switches = Execution(**{"sharded": True, **compute})
    config = replace(tiny(), steps=STEPS, global_batch=5, optimizer=Sgd(lr=1e-2), compute=switches)
    sources = tuple(Source(bucket=Bucket(url), weight=1.0) for url in data)
    return Job(config=config.document(), sources=sources, run=Bucket(out), saving=Saving(every=2))


@contextmanager
def _terminated(step: int) -> Iterator[None]:
    """This process is sent a SIGTERM while it ends a step: it asks in the next one."""
    is_due = AsyncCheckpointer.is_due

    def terminated(self: AsyncCheckpointer, record: StepRecord, request: Request) -> bool:
        if record.step == step:
            signal.raise_signal(signal.SIGTERM)
        return is_due(self, record, request)

    with mock.patch.object(AsyncCheckpointer, "is_due", terminated):
        yield


def _stopped(job: Job, rank: int, world: int) -> None:
    """Until one rank of them is told to stop: all are stopped after ``STOPPED`` steps."""
    with (
        _terminated(STOPPED - 2 if rank == world - 1 else -1),
        pytest.raises(RunError, match=r"stopped as asked(, and saved|; step \d+ is saved)"),
    ):
        train(job, rank, world, CPU, StopControl())


def _two(rank: int, world: int, folder: str, data: tuple[str, ...]) -> None:
    train(_job(f"{folder}/whole-2", data), rank, world, CPU, StopControl())
    train(_job(f"{folder}/parts-2", data, accumulate=2, recompute=True), rank, world, CPU, StopControl())
    _stopped(_job(f"{folder}/stopped", data), rank, world)


def _three(rank: int, world: int, folder: str, data: tuple[str, ...]) -> None:
    for run in ("whole-3", "resumed-3", "damaged-3"):
        train(_job(f"{folder}/{run}", data), rank, world, CPU, StopControl())


def _grouped(rank: int, world: int, folder: str, data: tuple[str, ...]) -> None:
    """One worker of Ray is a group of one."""
    train(_job(f"{folder}/grouped-1", data), rank, world, CPU, StopControl())


def _process(rank: int, world: int, folder: str, data: tuple[str, ...]) -> None:
    {1: _grouped, 2: _two, 3: _three}[world](rank, world, folder, data)


def _damaged(run: Path) -> str:
    """Flip a bit of a part of the newest checkpoint; the checkpoint's name."""
    name = checkpoint_listing.complete_names(Bucket(str(run)))[-1]
    part = max((run / "checkpoints" / name / "parts").glob("shard-*.bin"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    return name


@pytest.fixture(scope="module")
def runs(image_data: Bucket, volume_data: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs of the same configuration, but for ``plain``, which is not sharded."""
    folder, data = tmp_path_factory.mktemp("sharded"), (image_data.url, volume_data.url)
    train(_job(str(folder / "plain"), data, sharded=False), 0, 1, CPU, StopControl())
    train(_job(str(folder / "whole-1"), data), 0, 1, CPU, StopControl())
    run_on_ranks(1, _process, str(folder), data)
    run_on_ranks(2, _process, str(folder), data)
    for run in ("resumed-3", "resumed-1", "damaged-3", "damaged-1"):
        shutil.copytree(folder / "stopped", folder / run)
    assert {_damaged(folder / run) for run in ("damaged-3", "damaged-1")} == {layout.checkpoint_name(STOPPED)}
    run_on_ranks(3, _process, str(folder), data)
    for run in ("resumed-1", "damaged-1"):
        train(_job(str(folder / run), data), 0, 1, CPU, StopControl())
    return folder


def _run(folder: Path) -> Bucket:
    return Bucket(str(folder))


def _happened(run: Path) -> list[tuple[str, int]]:
    return [(event.kind, event.step) for event in list_events(_run(run))]


@pytest.mark.parametrize(
    "name", ["whole-1", "grouped-1", "whole-2", "parts-2", "whole-3", "resumed-3", "resumed-1", "damaged-3", "damaged-1"]
)
def test_a_sharded_run_has_the_samples_and_losses_of_the_run(name: str, runs: Path) -> None:
    """Uninterrupted on 1 to 3 workers, cut into parts, or begun on 2 and ended on others, with and without a damaged part."""
    plain, sharded = read_metrics(_run(runs / "plain")), read_metrics(_run(runs / name))
    assert [record["step"] for record in sharded] == list(range(STEPS))
    for field in ("samples", "counts", "voxels", "lr"):
        assert [record[field] for record in sharded] == [record[field] for record in plain]
    for expected, found in zip(plain, sharded, strict=True):
        assert found["terms"] == pytest.approx(expected["terms"], abs=1e-5)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("name", ["whole-1", "grouped-1", "whole-2", "whole-3", "resumed-3", "damaged-1"])
def test_the_network_that_is_kept_is_that_of_the_run(name: str, runs: Path) -> None:
    """Whole, in one process, from parts of whatever number of workers; ``encoder.pt`` holds the same numbers."""
    (_, plain, *_), (_, sharded, *_) = load_trained(_run(runs / "plain")), load_trained(_run(runs / name))
    expected, found = plain.state_dict(), sharded.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[key], expected[key], rtol=0, atol=1e-4) for key in expected)
    kept = torch.load(runs / name / "encoder.pt", weights_only=True)["weights"]
    encoder = sharded.encoder.state_dict()
    assert kept.keys() == encoder.keys()
    assert all(torch.equal(kept[key], encoder[key]) for key in kept)


def test_each_rank_writes_its_own_part_and_none_is_whole(runs: Path) -> None:
    for world in (1, 2, 3):
        folder = runs / f"whole-{world}" / layout.parts_path(STEPS)
        sizes = {path.name: path.stat().st_size for path in folder.glob("shard-*.bin")}
        ranks = sorted({int(name.split("-")[1]) for name in sizes})
        assert ranks == (list(range(world)) if world > 1 else [])  # one rank's parts are all whole
        state = torch.load(runs / f"whole-{world}" / "checkpoints/step-00000008/state.pt", weights_only=True)
        assert (state["model"], state["optimizer"]) == ({}, {})


def test_a_stop_asked_of_one_rank_is_saved_by_all(runs: Path) -> None:
    stopped = [("start", 0), ("checkpoint", 2), ("checkpoint", 4), ("checkpoint", STOPPED), ("stopped", STOPPED)]
    assert _happened(runs / "stopped") == stopped
    assert _happened(runs / "resumed-3")[len(stopped) :][:2] == [("resume", STOPPED), ("checkpoint", 6)]


@pytest.mark.parametrize("world", [1, 3])
def test_a_damaged_part_sends_all_ranks_to_the_checkpoint_before_with_a_word(world: int, runs: Path) -> None:
    """Found while parts are read, long after the checkpoint was chosen; a rank that went on alone would have hung above."""
    run = runs / f"damaged-{world}"
    begun = [event for event in list_events(_run(run)) if event.number > len(_happened(runs / "stopped"))]
    assert [(event.kind, event.step) for event in begun[:2]] == [("passed-over", 4), ("resume", 4)]
    [passed], [resumed] = (read_records(_run(run), event.path) for event in begun[:2])
    assert passed["text"].startswith(layout.checkpoint_name(STOPPED))
    assert "its bytes do not have the recorded sha256" in passed["text"]
    assert "1 step is done again" in resumed["text"]


def test_the_encoder_of_a_sharded_run_is_judged(
    image_data: Bucket, volume_data: Bucket, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As that of any run, and what it restores of volumes."""
    run = tmp_path / "run"
    shutil.copytree(runs / "whole-3", run)
    capsys.readouterr()
    assert (
        main(["evaluate", str(run), "--data", image_data.url, volume_data.url, "--folds", "2", "--baselines", "1", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert {result["dataset"] for result in found["results"]} == {"flat", "solid"}
    assert [restored["dataset"] for restored in found["restored"]] == ["solid"]


@pytest.mark.parametrize(
    ("recipe", "more", "message"),
    [
        ("maesil:tiny", "compute.ema=0.9", "a sharded run keeps no moving average"),
        ("cdssl-p3d:tiny", "steps=3", "compute.sharded cannot go with batch norm"),
    ],
)
def test_what_cannot_be_sharded_is_refused_in_one_sentence(
    recipe: str, more: str, message: str, image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["pretrain", "--recipe", recipe, "--data", image_data.url, "--out", str(tmp_path), "--workers", "0", "--json"]
    assert main([*line, "--set", "compute.sharded=true", "--set", more]) == 1
    text = capsys.readouterr().err
    assert message in text
    assert len(text.strip().splitlines()) == 1
    assert not (tmp_path / "config.json").exists()  # which would hold the line that is right against the one that was refused
