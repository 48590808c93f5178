"""Tracking: every step once, whatever happened before, and faults of trackers that are warnings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import UsageError
from crossdim.training.engine.control import Request
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.launch import driver
from crossdim.training.recipes import recipe
from crossdim.training.run_dir.background_writer import BackgroundWriter
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.layout import metrics_path
from crossdim.training.run_dir.metric_log import MetricLog
from crossdim.training.run_dir.settings_table import list_values
from crossdim.training.tracker_names import TRACKER_NAMES
from crossdim.training.trackers import tracking as module
from crossdim.training.trackers.base import End, StepFigures, TrackedRun
from crossdim.training.trackers.table import TRACKERS, TrackerKind, read_variables, set_variables
from crossdim.training.trackers.tracker_thread import TrackerThread
from crossdim.training.trackers.tracking import Tracking, send_evaluation

CONFIG = {"steps": 6, "optimizer": {"kind": "sgd", "lr": 0.03}, "clip_norm": None}


class Service:
    """A tracker on the other side, which may be out of order."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.figures: dict[int, dict[str, float]] = {}
        self.opened: list[str | None] = []
        self.texts: dict[str, str] = {}
        self.ends: list[End] = []
        self.broken = False
        self.settings: Mapping[str, Any] = {}

    def open(self, tracked: TrackedRun, identifier: str | None) -> OpenRun:
        self.opened.append(identifier)
        self.settings = tracked.settings
        return OpenRun(self)


class OpenRun:
    identifier = "run7"

    def __init__(self, service: Service) -> None:
        self.service = service

    def log_steps(self, steps: Sequence[StepFigures]) -> None:
        if self.service.broken:
            raise ConnectionError("nobody answers\nat all")
        self.service.steps += [step for step, _ in steps]
        self.service.figures |= {step: dict(figures) for step, figures in steps}

    def log_text(self, name: str, text: str) -> None:
        self.service.texts[name] = text

    def close(self, end: End) -> None:
        self.service.ends.append(end)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    found = Service()
    monkeypatch.setitem(TRACKERS, "wandb", TrackerKind(title="W&B", open=found.open, variables=()))
    return found


def _record(step: int) -> StepRecord:
    numbers = {"terms": {"flat/pixel": step / 7}, "monitors": {}, "counts": {"pseudo3d": 8}}
    return StepRecord(
        step=step,
        loss=step / 7,
        lr=0.1,
        grad_norm=1.0,
        samples=5,
        voxels=64,
        wait_s=0.1,
        step_s=0.5,
        skew_s=0.0,
        slowest=0,
        **numbers,
    )


def _train(run: Bucket, done: int, until: int, *, names: Sequence[str] = ("wandb",), every: int = 2, fails: bool = False) -> None:
    """A start of a run that makes steps, with a checkpoint after every second; it may fail after the last step."""
    writer = BackgroundWriter()
    metrics = MetricLog(run, done, 6, writer)
    try:
        with Tracking(run, names, CONFIG, done, 6) as tracking:
            for step in range(done, until):
                tracking.after_step(_record(step), Request.NOTHING)
                metrics.add(_record(step))
                if (step + 1) % every == 0:
                    metrics.close_segment(_record(step))
                    tracking.before_checkpoint(_record(step))
            if fails:
                raise RuntimeError("power cut")
    except RuntimeError:
        assert fails
    finally:
        writer.finish()
        writer.close()


def test_steps_are_sent_with_their_checkpoint_and_once(tmp_path: Path, service: Service) -> None:
    """Cut off after step 3, one beyond a checkpoint, and gone on from there: the identifier is the same."""
    run = Bucket(str(tmp_path))
    _train(run, 0, 3, fails=True)
    assert service.steps == [0, 1]
    _train(run, 2, 6)
    assert service.steps == [0, 1, 2, 3, 4, 5]
    assert service.opened == [None, "run7"]
    assert service.ends == ["failed", "finished"]
    assert service.figures[5]["terms/flat/pixel"] == 5 / 7
    assert service.figures[5]["rates/samples_per_s"] == 16


def test_a_run_that_goes_back_beyond_what_was_sent_does_not_send_it_again(tmp_path: Path, service: Service) -> None:
    """The checkpoint of step 4 was damaged, and that of step 2 taken."""
    run = Bucket(str(tmp_path))
    _train(run, 0, 4, fails=True)
    _train(run, 2, 6)
    assert service.steps == [0, 1, 2, 3, 4, 5]


def test_what_a_tracker_missed_is_sent_at_the_next_start(
    tmp_path: Path, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """It was out of order from the start, and the run was told once."""
    run, service.broken = Bucket(str(tmp_path)), True
    with caplog.at_level(logging.WARNING):
        _train(run, 0, 4, fails=True)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith(
        "W&B gets nothing more of this run, which goes on: ConnectionError: nobody answers at all. The next "
    )
    service.broken = False
    _train(run, 4, 6)
    assert service.steps == [0, 1, 2, 3, 4, 5]


def test_a_tracker_that_is_added_later_gets_the_steps_before(tmp_path: Path, service: Service) -> None:
    run = Bucket(str(tmp_path))
    _train(run, 0, 4, names=())
    _train(run, 4, 6)
    assert service.steps == [0, 1, 2, 3, 4, 5]
    assert service.figures[0]["loss"] == 0.0
    assert run.read(metrics_path(4)).count(b"\n") == 2


def test_an_evaluation_goes_to_the_trackers_that_the_run_has(tmp_path: Path, service: Service) -> None:
    run = Bucket(str(tmp_path))
    send_evaluation(run, CONFIG, [(6, {"probes/a/linear/trained": 0.5})], {}, finished=True)
    assert service.opened == []
    _train(run, 0, 6)
    send_evaluation(run, CONFIG, [(6, {"probes/a/linear/trained": 0.5})], {"verdict": "Better."}, finished=True)
    assert (service.figures[6], service.texts) == ({"probes/a/linear/trained": 0.5}, {"verdict": "Better."})


def test_a_tracker_that_hangs_holds_the_end_of_a_run_no_longer_than_it_is_given(caplog: pytest.LogCaptureFixture) -> None:
    gate, service = threading.Event(), Service()
    thread = TrackerThread("W&B", lambda: OpenRun(service), "Sync later")
    thread.send(lambda tracker: gate.wait() and None)
    with caplog.at_level(logging.WARNING):
        thread.finish(0.05)
    gate.set()
    assert "W&B gets nothing more of this run, which goes on: it has not taken everything within 0 s. Sync later" in caplog.text


def test_a_package_that_rank_0_lacks_is_a_warning_and_one_that_the_command_lacks_an_error(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "is_found", lambda name: False)
    with caplog.at_level(logging.WARNING):
        _train(Bucket(str(tmp_path)), 0, 2)
    assert "not installed on the machine of rank 0: pip install 'crossdim[wandb]'" in caplog.text
    monkeypatch.setattr("crossdim.foundation.extras.is_found", lambda name: False)
    workers = driver.Workers(least=0, most=0, use_gpu=False, address=None, quiet=True)
    with pytest.raises(UsageError, match=r"pretrain --track mlflow needs MLflow: pip install 'crossdim\[mlflow\]'"):
        driver.pretrain(recipe("maesil:tiny"), [], Bucket(str(tmp_path)), workers, Saving(), 1, trackers=("mlflow",))


def test_the_table_has_the_names_that_help_has_and_no_variable_of_it_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(TRACKERS) == TRACKER_NAMES
    names = [name for kind in TRACKERS.values() for name in kind.variables]
    assert not [name for name in names if any(word in name for word in ("KEY", "TOKEN", "PASSWORD", "SECRET"))]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert read_variables() == {"WANDB_MODE": "offline"}
    set_variables({"WANDB_MODE": "online", "WANDB_PROJECT": "lungs"})
    assert read_variables() == {"WANDB_MODE": "offline", "WANDB_PROJECT": "lungs"}


def test_settings_are_a_table_of_plain_values() -> None:
    nested = {"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "clip_norm": None, "sharded": False, "steps": 3}
    flat = {"optimizer.lr": 0.1, "optimizer.betas": "[0.9, 0.99]", "clip_norm": "null", "sharded": False, "steps": 3}
    assert list_values(nested) == flat
