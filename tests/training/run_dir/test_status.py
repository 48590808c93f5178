"""Status: what a folder tells of a run, while it is written, after it was cut off, and from any store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError, StorageError
from crossdim.training.engine.control import Request
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.run_dir import layout
from crossdim.training.run_dir.async_checkpointer import AsyncCheckpointer
from crossdim.training.run_dir.attempts import AttemptRecord
from crossdim.training.run_dir.background_writer import BackgroundWriter
from crossdim.training.run_dir.events import EventLog, list_events
from crossdim.training.run_dir.metric_log import MetricLog
from crossdim.training.run_dir.metrics import read_metrics
from crossdim.training.run_dir.status import SILENT_AFTER_S, Status, read_status

VERSION_1 = Path(__file__).parents[2] / "golden" / "version_1" / "run"
BEGIN_S = 1_800_000_000.0


class _Clock:
    """Rank 0's clock, turned by hand."""

    def __init__(self) -> None:
        self.now = BEGIN_S

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    found = _Clock()
    monkeypatch.setattr(time, "time", found)
    return found


@pytest.fixture(params=["folder", "memory"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    bucket = Bucket(str(tmp_path / "run") if request.param == "folder" else f"memory://{uuid4().hex}")
    bucket.put(layout.CONFIG, json.dumps({"identity": {"config": {"steps": 10}}}).encode())
    yield bucket
    if request.param == "memory":
        bucket.filesystem.store.clear()


def _walk(run: Bucket, clock: _Clock, first: int, stop: int) -> None:
    """Steps of 4 s, one of them spent waiting, 8 samples; a checkpoint of 2 s every second step. As a worker writes them."""
    writer = BackgroundWriter()
    log, event_log = MetricLog(run, first, 10, writer), EventLog(run, workers=3)
    event_log.add("resume" if first else "start", first)
    for step in range(first, stop):
        clock.now += 4
        record = StepRecord(
            step=step,
            loss=1.0 / (step + 1),
            terms={},
            monitors={},
            lr=0.1,
            grad_norm=1.0,
            counts={"image": 5, "volume": 3},
            samples=step,
            voxels=1,
            wait_s=1.0,
            step_s=4.0,
            skew_s=0.4,
            slowest=2,
        )
        log.add(record)
        if step % 2:
            clock.now += 2
            log.close_segment(record)
            writer.finish()
            event_log.add("checkpoint", step + 1)
        else:
            log.flush()
            writer.finish()
    writer.close()


def test_a_running_run_in_numbers(run: Bucket, clock: _Clock) -> None:
    """By hand: seven steps of 4 s with three checkpoints of 2 s between them, the last checkpoint one step ago."""
    _walk(run, clock, 0, 7)
    found = read_status(run, clock.now + 5)
    assert (found.state, found.step, found.steps, found.workers) == ("running", 7, 10, 3)
    assert found.loss == pytest.approx(1 / 7)
    assert found.steps_per_s == pytest.approx(7 / 34)
    assert found.samples_per_s == pytest.approx(56 / 34)
    assert found.wait_share == pytest.approx(7 / 34)
    assert found.skew_share == pytest.approx(2.8 / 34)
    assert "8% for the slowest worker" in str(found)
    assert (found.checkpoint_step, found.checkpoint_age_s, found.silence_s) == (6, 4.0, 5.0)
    assert found.eta_s == pytest.approx(3 * 34 / 7)
    assert found.events == {"start": 1, "checkpoint": 3}
    text = str(found)
    assert "running, step 7 of 10, loss 0.1429, workers 3" in text
    assert "0.206 steps/s, 1.65 samples/s, 21% of the time waiting for data, 8% for the slowest worker; 15 s left" in text
    assert "last checkpoint: step 6, 4 s before the last progress" in text


def test_a_run_without_a_word_for_long_is_silent_and_not_running(run: Bucket, clock: _Clock) -> None:
    _walk(run, clock, 0, 3)
    assert read_status(run, clock.now + SILENT_AFTER_S).state == "running"
    found = read_status(run, clock.now + SILENT_AFTER_S + 60)
    assert (found.state, found.eta_s) == ("silent", None)
    assert "silent since 2027-01-15 08:00:14 UTC (3.0 min by this machine's clock)" in str(found)


BEGIN_AN_ATTEMPT = """
import os, sys
from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir.attempts import AttemptRecord
AttemptRecord(Bucket(sys.argv[1]), 0).__enter__()
os._exit(9)
"""


def test_a_run_whose_process_was_killed_is_not_running(tmp_path: Path, clock: _Clock) -> None:
    """At once, on the machine on which it ran; whatever another command that is at work does, it is running."""
    run = Bucket(str(tmp_path / "run"))
    run.put(layout.CONFIG, json.dumps({"identity": {"config": {"steps": 10}}}).encode())
    _walk(run, clock, 0, 3)
    assert read_status(run, clock.now).state == "running"
    subprocess.run([sys.executable, "-c", BEGIN_AN_ATTEMPT, run.root], check=False)
    found = read_status(run, clock.now)
    assert (found.state, found.eta_s) == ("killed", None)
    assert "does not run any more" in str(found)
    assert str(found).endswith("  run the same pretrain command again; it resumes from the last checkpoint")
    with AttemptRecord(run, 0):
        assert read_status(run, clock.now).state == "running"


def test_a_run_whose_process_was_killed_before_its_first_step_is_not_waiting(tmp_path: Path) -> None:
    run = Bucket(str(tmp_path / "run"))
    run.put(layout.CONFIG, json.dumps({"identity": {"config": {"steps": 10}}}).encode())
    subprocess.run([sys.executable, "-c", BEGIN_AN_ATTEMPT, run.root], check=False)
    found = read_status(run, time.time())
    assert (found.state, "it starts again: there is no checkpoint yet" in str(found)) == ("killed", True)


def test_events_that_may_not_be_listed_are_an_error_and_no_waiting_run(ordinary_user: Path, clock: _Clock) -> None:
    run = Bucket(str(ordinary_user / "run"))
    run.put(layout.CONFIG, json.dumps({"identity": {"config": {"steps": 10}}}).encode())
    _walk(run, clock, 0, 3)
    events = ordinary_user / "run" / layout.EVENTS
    events.chmod(0)
    with pytest.raises(StorageError, match="events: not allowed"):
        read_status(run, clock.now)
    events.chmod(0o700)
    assert read_status(run, clock.now).state == "running"


def test_a_worker_that_was_lost_is_told_until_its_run_goes_on(run: Bucket, clock: _Clock) -> None:
    _walk(run, clock, 0, 3)
    EventLog(run, workers=3).add("lost", 2, "the actor died: node 7 went away")
    found = read_status(run, clock.now + 1)
    assert found.state == "restarting"
    assert "UTC: the actor died: node 7 went away" in str(found)
    EventLog(run, workers=2).add("resume", 2)
    assert read_status(run, clock.now + 1).state == "running"
    EventLog(run, workers=2).add("stopped", 3, "by a signal")
    assert read_status(run, clock.now + 1).state == "stopped"


def test_a_worker_that_was_cut_off_leaves_the_run_to_others(run: Bucket, clock: _Clock) -> None:
    old = EventLog(run, workers=2)
    old.add("start", 0)
    old.fence()
    others = EventLog(run, workers=1)
    others.add("lost", 0)
    old.fence()
    others.add("resume", 0)
    with pytest.raises(RunError, match="went on without this worker"):
        old.fence()
    others.fence()


def test_steps_made_in_vain_are_told(run: Bucket, clock: _Clock) -> None:
    """Three of nine: the newest start knows the sum over all starts."""
    _walk(run, clock, 0, 6)
    EventLog(run, workers=3).add("resume", 6, "3 steps are done again", in_vain=3)
    found = read_status(run, clock.now + 1)
    assert found.in_vain == 3
    assert "goodput: 66.7% of the computed steps were kept, 3 were repeated" in str(found)


def test_slow_steps_are_no_silence(run: Bucket, clock: _Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of a quarter of an hour has nothing to say meanwhile."""
    monkeypatch.setattr("crossdim.training.run_dir.status.SILENT_AFTER_S", 1.0)
    _walk(run, clock, 0, 1)
    assert read_status(run, clock.now + 39).state == "running"
    assert read_status(run, clock.now + 41).state == "silent"


def test_a_reader_whose_clock_is_behind_sees_a_running_run(run: Bucket, clock: _Clock) -> None:
    """Ages are differences of what rank 0 wrote, so they do not change with the reader."""
    _walk(run, clock, 0, 7)
    found = read_status(run, clock.now - 3600)
    assert (found.state, found.silence_s, found.checkpoint_age_s) == ("running", 0.0, 4.0)


def test_what_is_done_again_is_not_counted_as_done(run: Bucket, clock: _Clock) -> None:
    """Step 8's checkpoint was damaged and the run went back to 6: step, checkpoint and rate are those of the new start."""
    _walk(run, clock, 0, 9)
    clock.now += 1000
    EventLog(run, workers=2).add("passed-over", 6, "step-00000008: its bytes do not have the recorded sha256")
    writer = BackgroundWriter()
    MetricLog(run, 6, 10, writer)
    EventLog(run, workers=2).add("resume", 6)
    found = read_status(run, clock.now + 1)
    assert (found.state, found.step, found.loss, found.steps_per_s, found.workers) == ("running", 6, None, None, 2)
    assert (found.checkpoint_step, found.checkpoint_age_s) == (6, 1014.0)
    assert "passed-over at step 6, 2027-01-15 08:17:24 UTC: step-00000008: its bytes" in str(found)
    writer.close()
    _walk(run, clock, 6, 8)
    found = read_status(run, clock.now)
    assert (found.step, found.checkpoint_step, found.steps_per_s) == (8, 8, pytest.approx(2 / 8))


def test_no_moment_of_writing_makes_it_fail(run: Bucket, clock: _Clock) -> None:
    """Every object cut at every length, or gone: some stores show a file while it is written."""
    _walk(run, clock, 0, 3)
    for path in [stored.path for stored in run.list_objects() if stored.path.endswith((".json", ".jsonl"))]:
        whole = run.read(path)
        for length in (0, 1, len(whole) // 2, len(whole) - 2):
            run.put(path, whole[:length])
            if path == layout.CONFIG:
                with pytest.raises(RunError, match="can be read"):
                    read_status(run, clock.now)
            else:
                found = read_status(run, clock.now)
                assert (found.state, str(found).count("\n") >= 1) == ("running", True), path
                assert found.step == 3 or path.startswith(layout.EVENTS), path
        run.delete(path)
        if path != layout.CONFIG:
            assert read_status(run, clock.now).steps == 10
        run.put(path, whole)
    assert read_status(run, clock.now).step == 3


def test_without_progress_note_or_without_metrics_the_other_tells_the_step(run: Bucket, clock: _Clock) -> None:
    _walk(run, clock, 0, 3)
    run.put(layout.PROGRESS, b'{"step": 3, "tot')
    assert (read_status(run, clock.now).step, read_status(run, clock.now).loss) == (3, pytest.approx(1 / 3))
    run.put(layout.PROGRESS, json.dumps({"step": 3, "loss": 0.5, "time_s": clock.now}).encode())
    run.delete("metrics")
    found = read_status(run, clock.now)
    assert (found.step, found.loss, found.steps_per_s) == (3, 0.5, None)


def _trained(run: Path, *data: Bucket, steps: int = 4) -> int:
    urls = [bucket.url for bucket in data]
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", *urls, "--out", str(run), "--workers", "0", "--json"]
    return main([*line, "--steps", str(steps), "--checkpoint-every", "2", "--set", "global_batch=8"])


def _asked(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object]]:
    capsys.readouterr()
    code = main(["status", str(run), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.integration
def test_a_real_run_fails_resumes_past_a_damaged_checkpoint_and_ends(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status of each stage, by the command, with its exit code."""
    after_step = AsyncCheckpointer.after_step

    def cut(self: AsyncCheckpointer, record: StepRecord, request: Request) -> None:
        after_step(self, record, request)
        if record.step == 2:
            raise RunError("the plug was pulled")

    monkeypatch.setattr(AsyncCheckpointer, "after_step", cut)
    assert _trained(tmp_path, image_data, volume_data) == 2
    monkeypatch.undo()
    code, found = _asked(tmp_path, capsys)
    assert (code, found["state"], found["step"], found["checkpoint_step"]) == (2, "failed", 3, 2)
    assert found["notable_events"][0]["text"] == "RunError: the plug was pulled"  # type: ignore[index]

    assert _trained(tmp_path, image_data, volume_data) == 0
    code, found = _asked(tmp_path, capsys)
    assert (code, found["state"], found["step"], found["workers"]) == (0, "done", 4, 1)
    assert found["events"] == {"start": 1, "checkpoint": 2, "failed": 1, "resume": 1, "end": 1}
    assert found["loss"] == read_metrics(Bucket(str(tmp_path)))[-1]["loss"]
    assert [event.number for event in list_events(Bucket(str(tmp_path)))] == list(range(1, 7))

    run = Bucket(str(tmp_path))
    run.put(f"{layout.CHECKPOINTS}/{layout.checkpoint_name(4)}/{layout.STATE}", b"")
    assert _trained(tmp_path, image_data, volume_data) == 0
    code, found = _asked(tmp_path, capsys)
    assert [event["kind"] for event in found["notable_events"]] == ["failed", "passed-over"]  # type: ignore[index, attr-defined]
    assert "step-00000004: its bytes do not have the recorded sha256" in found["notable_events"][1]["text"]  # type: ignore[index]


def test_where_no_run_is_a_sentence_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_run_whose_workers_are_not_up_yet_is_waiting(run: Bucket) -> None:
    found = read_status(run, BEGIN_S)
    assert isinstance(found, Status)
    assert (found.state, found.step, found.steps) == ("waiting", 0, 10)
    assert "no worker has started yet" in str(found)


def test_a_first_note_that_is_half_written_is_no_old_one(run: Bucket) -> None:
    """Without its time the run would have been silent since 1970."""
    run.put(f"{layout.EVENTS}/000001-start-00000000.json", b'{"kind": "sta')
    assert read_status(run, BEGIN_S).state == "waiting"


@pytest.mark.parametrize("ended", [False, True])
def test_what_is_no_checkpoint_is_said_to_be_ignored(ended: bool, run: Bucket, clock: _Clock) -> None:
    """One that may just be being written is not, while somebody trains."""
    _walk(run, clock, 0, 4)
    if ended:
        EventLog(run, workers=3).add("stopped", 4)
    run.put("checkpoints/step-99999999/state.pt", b"x")
    run.put("checkpoints/step-00000006/state.pt", b"half")
    found = read_status(run, clock.now)
    half = ["step-00000006: there is no hashes.json"] if ended else []
    assert found.ignored == [*half, "step-99999999: there is no hashes.json"]
    assert "\n  ignored among the checkpoints: step-99999999: there is no hashes.json\n" in str(found)


def test_the_last_checkpoint_is_the_newest_that_is_not_ignored(run: Bucket, clock: _Clock) -> None:
    """A list of hashes with one flipped bit: a resume takes the checkpoint before it, and status counts on no other."""
    _walk(run, clock, 0, 6)
    EventLog(run, workers=3).add("stopped", 6)
    for step in (4, 6):
        run.put(f"checkpoints/step-{step:08d}/state.pt", b"x")
        run.put(f"checkpoints/step-{step:08d}/hashes.json", b'{"state.pt":"00"}')
    assert read_status(run, clock.now).checkpoint_step == 6
    run.put("checkpoints/step-00000006/hashes.json", b'{"stave.pt":"00"}')
    found = read_status(run, clock.now)
    assert (found.checkpoint_step, [one.partition(":")[0] for one in found.ignored]) == (4, ["step-00000006"])
    assert "  last checkpoint: step 4, " in str(found)


@pytest.mark.parametrize(
    ("kind", "text", "message", "remedy"),
    [
        ("stopped", "", "\n  stopped at step 8, 2027-01-15 08:00:00 UTC\n", "to resume, run the same pretrain command again"),
        (
            "failed",
            "RunError: no",
            "\n  failed at step 8, 2027-01-15 08:00:00 UTC: RunError: no\n",
            "once the cause is fixed, run the same pretrain command again",
        ),
    ],
)
def test_a_run_that_ended_early_says_how_it_goes_on(
    kind: Literal["stopped", "failed"], text: str, message: str, remedy: str, run: Bucket, clock: _Clock
) -> None:
    EventLog(run, workers=3).add("start", 0)
    EventLog(run, workers=3).add(kind, 8, text)
    shown = str(read_status(run, clock.now + 12))
    assert message in shown
    assert remedy in shown.splitlines()[-1]
    assert "\n  last progress 12 s ago\n" in shown


def test_a_silent_run_says_what_to_do_and_a_running_one_does_not(run: Bucket, clock: _Clock) -> None:
    EventLog(run, workers=3).add("start", 0)
    assert "run the same pretrain command" in str(read_status(run, clock.now + 500)).splitlines()[-1]
    assert "pretrain" not in str(read_status(run, clock.now + 5))


def test_a_store_that_does_not_answer_is_no_missing_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "s3://lab/run", "--endpoint-url", "http://h:x", "--access-key", "k", "--secret-key", "s"]) == 2
    message = capsys.readouterr().err
    assert "s3://lab at http://h:x cannot be asked" in message
    assert "holds no run" not in message


def test_a_status_imports_neither_torch_nor_ray(tmp_path: Path) -> None:
    """It reads a few small objects; torch alone takes seconds of processor time and 300 MB."""
    heavy = ("torch", "ray", "numpy", "pyarrow", "tensorboardX", "sklearn")
    verb = f"from crossdim.cli import main; main(['status', {str(VERSION_1)!r}])"
    code = f"import sys; {verb}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=VERSION_1.parents[3], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "step 4 of" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
