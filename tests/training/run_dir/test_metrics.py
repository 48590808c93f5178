"""Metrics: every step once, also when a run goes on from an earlier checkpoint with other borders."""

from __future__ import annotations

from pathlib import Path

from crossdim.foundation.bucket import Bucket
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.run_dir.background_writer import BackgroundWriter
from crossdim.training.run_dir.layout import metrics_path
from crossdim.training.run_dir.metric_log import MetricLog
from crossdim.training.run_dir.metrics import read_log, read_metrics
from tests.training.boards import read


def _record(step: int, loss: float) -> StepRecord:
    return StepRecord(
        step=step,
        loss=loss,
        terms={"image/a": loss},
        monitors={"image/evenness0": 0.9},
        lr=0.1,
        grad_norm=1.0,
        counts={"image": 4},
        samples=step,
        voxels=800,
        wait_s=0.0,
        step_s=2.0,
        skew_s=0.0,
        slowest=0,
    )


def _write(run: Bucket, first: int, stop: int, every: int, loss: float) -> None:
    writer = BackgroundWriter()
    log = MetricLog(run, first, 20, writer)
    for step in range(first, stop):
        record = _record(step, loss)
        log.add(record)
        if (step + 1) % every == 0:
            log.close_segment(record)
        elif step == stop - 1:
            log.flush()
    writer.finish()
    writer.close()


def test_steps_that_are_done_again_are_logged_once(tmp_path: Path) -> None:
    """A damaged checkpoint sends a run back behind segments that are there already; those are forgotten first."""
    run = Bucket(str(tmp_path))
    _write(run, 0, 9, every=2, loss=1.0)
    _write(run, 4, 12, every=5, loss=2.0)
    found = read_metrics(run)
    assert [record["step"] for record in found] == list(range(12))
    assert [record["loss"] for record in found] == [1.0] * 4 + [2.0] * 8
    assert all((record["samples_per_s"], record["voxels_per_s"]) == (2.0, 400.0) for record in found)


def test_the_newest_segments_alone_can_be_read(tmp_path: Path) -> None:
    """Steps before them are neither read nor missing; those that are damaged among them are counted."""
    run = Bucket(str(tmp_path))
    _write(run, 0, 20, every=5, loss=1.0)
    assert [record["step"] for record in read_log(run)[0]] == list(range(20))
    for most, first in ((1, 15), (5, 15), (6, 10), (100, 0)):
        records, damaged = read_log(run, most)
        assert ([record["step"] for record in records], damaged) == (list(range(first, 20)), 0)
    path = tmp_path / metrics_path(15)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "damaged", *lines[3:]]))
    assert (len(read_log(run, 1)[0]), read_log(run, 1)[1]) == (4, 1)


def test_curves_that_were_drawn_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    """Four files of 2 steps; from step 4 again, in files that end where 5 divides."""
    run = Bucket(str(tmp_path))
    _write(run, 0, 9, every=2, loss=1.0)
    _write(run, 4, 10, every=5, loss=2.0)
    files = sorted((tmp_path / "tensorboard").iterdir())
    assert [int(file.name[-8:]) for file in files] == [0, 2, 4, 5]
    values = [(event.step, value) for file in files for event in read(file.read_bytes()) for value in event.summary.value]
    assert [(step, value.simple_value) for step, value in values if value.tag == "loss"] == [
        (step, 1.0 if step < 4 else 2.0) for step in range(10)
    ]


def test_a_checkpoint_of_a_lost_worker_inside_a_segment_leaves_each_step_once(tmp_path: Path) -> None:
    """Steps 4 to 8 were told in one segment; a run that goes on from step 6 tells 6 to 8 again."""
    run = Bucket(str(tmp_path))
    _write(run, 0, 4, every=4, loss=1.0)
    _write(run, 4, 9, every=20, loss=1.0)
    _write(run, 6, 12, every=5, loss=2.0)
    found = read_metrics(run)
    assert [record["step"] for record in found] == list(range(12))
    assert [record["loss"] for record in found] == [1.0] * 6 + [2.0] * 6


def test_a_run_without_steps_has_no_metrics(tmp_path: Path) -> None:
    assert read_metrics(Bucket(str(tmp_path))) == []
