"""``crossdim status`` of a dataset: while it is prepared, after that was interrupted, and once it is published."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.process_identity import ProcessIdentity, identify_process
from crossdim.foundation.settings import to_document
from crossdim.pipelines import driver_record, preparation_status
from crossdim.pipelines.driver_record import DriverRecord, record_driver
from crossdim.pipelines.jobs import prepare
from crossdim.pipelines.plan_record import PlanRecord, read_plan_record, write_plan_record
from crossdim.pipelines.preparation_status import ALIVE_S, SILENT_AFTER_S, read_preparation_status
from crossdim.pipelines.scratch import DRIVERS, PLAN, WORK, to_checked_bytes
from crossdim.storage_schema.errors import UsageError
from tests.pipelines.corpora import write_images

ROOT = Path(__file__).parents[2]
TASKS_DONE, NUM_FILES = 2, 10


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    """Prepares images, one of which cannot be read and is in the first task, in several tasks."""
    write_images(tmp_path / "raw", 6)
    first = min((tmp_path / "raw").rglob("*.png"))
    first.write_bytes(first.read_bytes()[:-60])
    (tmp_path / "raw/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    settings = ["--set", "shard.max_samples=1"]
    return ["prepare", str(tmp_path / "raw"), "--recipe", "xray-pseudo3d:tiny", *settings, "--json", "--local"]


@pytest.fixture
def begun(line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Lets preparations fail after some tasks; returns the number of all."""

    def begin(out: str, *options: str) -> int:
        numbers = []

        def run_some(documents: list[str], work: Any, **_: Any) -> Any:
            numbers.append(len(documents))
            return map(work, documents[:TASKS_DONE])

        with monkeypatch.context() as patch:
            patch.setattr(prepare, "run_each", run_some)
            assert main([*line, "--out", out, *options]) == 2
        capsys.readouterr()
        return numbers[0]

    return begin


def _asked(capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, dict[str, Any]]:
    code = main(["status", *line, "--json"])
    return code, json.loads(capsys.readouterr().out)


def _check_stages(out: str, store: list[str], begun: Any, line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", out, *store]) == 2
    assert "a preparation writes nothing before its sources are listed" in capsys.readouterr().err
    tasks = begun(out, *store)
    code, found = _asked(capsys, out, *store)
    assert (code, found["state"]) == (2, "failed")
    assert (found["tasks_done"], found["tasks"], found["files"], found["processes"]) == (TASKS_DONE, tasks, NUM_FILES, [])
    assert f"{TASKS_DONE:06d}.json does not exist" in found["reason"]
    assert found["quarantined"] == 2
    assert 0 <= found["silence_s"] < 60
    assert found["last_progress_s"] == pytest.approx(time.time(), abs=60)
    assert main([*line, "--out", out, *store]) == 3
    published = json.loads(capsys.readouterr().out)
    code, found = _asked(capsys, out, *store, "--watch")
    assert (code, found["state"], found["samples"], found["files"]) == (0, "published", published["samples"], NUM_FILES)
    assert (found["quarantined"], found["tasks"]) == (published["quarantined"], None)


def test_a_preparation_is_followed_from_its_first_task_to_its_publication(
    line: list[str], begun: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _check_stages(str(tmp_path / "out"), [], begun, line, capsys)


def test_a_preparation_in_a_store_is_followed_alike(
    line: list[str], begun: Any, s3_bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    options = s3_bucket.options
    store = ["--endpoint-url", str(options.endpoint_url), "--access-key", "k", "--secret-key", "s", "--region", "us-east-1"]
    _check_stages(f"{s3_bucket.url}/out", store, begun, line, capsys)


def test_it_is_told_in_sentences(begun: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    tasks = begun(out)
    assert main(["status", out]) == 2
    first, second, third, fourth = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{out}: failed, {TASKS_DONE} of {tasks} tasks done: {out}/{WORK}/")
    assert second == f"  {NUM_FILES} files in the sources, 2 inputs quarantined so far"
    assert third.startswith("  last progress ")
    assert fourth == "  once the cause is fixed, run the same prepare command again; it resumes"


@pytest.mark.parametrize("has_record", [True, False])
def test_one_that_finishes_no_task_for_long_is_silent(
    has_record: bool, begun: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its process is at work, and where no process is recorded, as by an earlier release."""
    begun(str(tmp_path / "out"))
    out = Bucket(str(tmp_path / "out"))
    out.delete(DRIVERS)
    last = max(stored.changed_at for stored in out.list_objects(WORK)) / 1e9
    if has_record:
        monkeypatch.setattr(preparation_status, "ALIVE_S", 2 * SILENT_AFTER_S)
        _put_driver(out, DriverRecord(process=identify_process()))
    assert read_preparation_status(out, last + SILENT_AFTER_S - 1).state == "preparing"
    found = read_preparation_status(out, last + SILENT_AFTER_S + 1)
    assert found.state == "silent"
    assert "run the same prepare command again; it resumes" in str(found)


def test_long_tasks_are_waited_for() -> None:
    """Ten times the usual time between two; the night between two starts is not usual."""
    markers = [
        preparation_status.StoredObject(path=f"{number}", size=1, changed_at=int(at * 1e9))
        for number, at in enumerate((100, 200, 300, 40_000, 40_100))
    ]
    assert preparation_status._find_limit(markers) == 1000
    assert preparation_status._find_limit(markers[:1]) == SILENT_AFTER_S


def test_what_takes_many_requests_is_not_counted(begun: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(str(tmp_path / "out"))
    monkeypatch.setattr(preparation_status, "MAX_MARKERS", TASKS_DONE - 1)
    found = read_preparation_status(Bucket(str(tmp_path / "out")), time.time())
    assert (found.tasks_done, found.quarantined) == (TASKS_DONE, None)


def test_without_its_record_the_number_of_tasks_is_not_known(begun: Any, tmp_path: Path) -> None:
    """Damaged, or of an earlier release; the preparation itself does not need it."""
    begun(str(tmp_path / "out"))
    out = Bucket(str(tmp_path / "out"))
    assert read_plan_record(out) is not None
    out.put(PLAN, out.read(PLAN)[1:])
    found = read_preparation_status(out, time.time())
    assert (found.tasks, found.tasks_done, found.files, found.quarantined) == (None, TASKS_DONE, None, None)
    assert f"failed, {TASKS_DONE} tasks done" in str(found)


def test_a_record_alone_is_no_finished_task(line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other inputs may still start from the beginning."""
    out = Bucket(str(tmp_path / "out"))
    write_plan_record(out, PlanRecord(plan="0" * 64, tasks=3, files=9, refused=0, ignored=0))
    assert read_preparation_status(out, time.time()).tasks_done == 0
    assert main([*line, "--out", out.url]) == 3
    assert not (tmp_path / "out" / WORK).exists()


def _put_driver(out: Bucket, record: DriverRecord, number: int = 0) -> float:
    """Write a record; returns when it was written."""
    path = f"{DRIVERS}/{number:032x}.json"
    out.put(path, to_checked_bytes(to_document(record)))
    (stored,) = out.list_objects(path)
    return stored.changed_at / 1e9


def _identify_ended() -> ProcessIdentity:
    """Of a process that has ended."""
    program = "from crossdim.foundation.process_identity import identify_process as i; o = i(); print(o.pid, o.started)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    pid, started = done.stdout.split()
    return replace(identify_process(), pid=int(pid), started=started)


ELSEWHERE = ProcessIdentity(host="elsewhere", pid=7, boot="other", started="70")


@pytest.mark.parametrize(
    ("process", "age_s", "state", "reason"),
    [
        (identify_process, ALIVE_S - 1, "preparing", ""),
        (lambda: ELSEWHERE, ALIVE_S - 1, "preparing", ""),
        (lambda: ELSEWHERE, ALIVE_S + 1, "silent", "no sign of life from process 7 on elsewhere for 1:01"),
        (_identify_ended, 0, "stopped", "ended without a word, as if it was killed"),
        (lambda: replace(identify_process(), started="1"), 0, "stopped", "ended without a word"),
        (lambda: replace(identify_process(), boot="the day before", started="1"), ALIVE_S - 1, "preparing", ""),
    ],
)
def test_whether_its_process_is_at_work_is_known_here_at_once_and_elsewhere_by_its_silence(
    process: Callable[[], ProcessIdentity], age_s: float, state: str, reason: str, begun: Any, tmp_path: Path
) -> None:
    """A process id that another process has now, and one of before a restart of this machine, are not taken for the process."""
    begun(str(tmp_path / "out"))
    out = Bucket(str(tmp_path / "out"))
    out.delete(DRIVERS)
    written_s = _put_driver(out, DriverRecord(process=process()))
    found = read_preparation_status(out, written_s + age_s)
    assert found.state == state
    assert reason in found.reason
    assert len(found.processes) == (state == "preparing")


def test_two_processes_at_once_are_both_named_and_the_one_at_work_counts(begun: Any, tmp_path: Path) -> None:
    begun(str(tmp_path / "out"))
    out = Bucket(str(tmp_path / "out"))
    now = _put_driver(out, DriverRecord(process=ELSEWHERE)) + 1
    found = read_preparation_status(out, now)
    assert (found.state, found.processes) == ("preparing", ("process 7 on elsewhere",))
    _put_driver(out, DriverRecord(process=identify_process()), 1)
    here = f"process {os.getpid()} on {identify_process().host}"
    assert f"  2 processes prepare it at once: {here}, process 7 on elsewhere" in str(read_preparation_status(out, now))


def test_a_record_is_written_again_and_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Bucket(str(tmp_path / "out"))
    monkeypatch.setattr(driver_record, "BEAT_S", 0.01)
    with record_driver(out):
        (first,) = out.list_objects(DRIVERS)
        assert main(["show", out.url]) == 2
        assert "not finished: crossdim status shows how far it is" in capsys.readouterr().err
        deadline = time.monotonic() + 30
        while (again := out.list_objects(DRIVERS)[0]).changed_at == first.changed_at and time.monotonic() < deadline:
            time.sleep(0.005)
        assert again.path == first.path
        assert again.changed_at > first.changed_at
        assert str(read_preparation_status(out, time.time())) == f"{out.url}: preparing, its sources are being scanned"
    assert not Path(out.root, WORK).exists()


def test_an_end_before_there_is_a_plan_leaves_nothing_and_a_later_one_says_why(tmp_path: Path) -> None:
    out = Bucket(str(tmp_path / "out"))
    with pytest.raises(UsageError), record_driver(out):
        raise UsageError("no such thing")
    assert not Path(out.root, WORK).exists()
    write_plan_record(out, PlanRecord(plan="0" * 64, tasks=3, files=9, refused=0, ignored=0))
    for error, state, reason in (
        (UsageError("a sentence\non two lines"), "failed", "a sentence on two lines"),
        (ZeroDivisionError("s3://key:word@lab/x"), "failed", "ZeroDivisionError: s3://***@lab/x"),
        (KeyboardInterrupt(), "stopped", "by SIGINT"),
    ):
        with pytest.raises(type(error)), record_driver(out):
            raise error
        found = read_preparation_status(out, time.time())
        assert (found.state, found.reason) == (state, reason)
        assert len(out.list_objects(DRIVERS)) == 1  # the record of an ended process goes when the next one begins


@pytest.mark.system
@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGINT, "by SIGINT"), (signal.SIGTERM, "by SIGTERM"), (signal.SIGKILL, "ended without a word, as if it was killed")],
)
@pytest.mark.parametrize("in_store", [False, True])
def test_one_that_is_stopped_says_so_at_once(
    number: signal.Signals, reason: str, in_store: bool, line: list[str], s3_bucket: Bucket, tmp_path: Path, capsys: Any
) -> None:
    """A real process between two tasks: by its own words, or because it is gone."""
    out, store = f"{tmp_path}/out", list[str]()
    if in_store:
        out, endpoint = f"{s3_bucket.url}/{number.name}", str(s3_bucket.options.endpoint_url)
        store = ["--endpoint-url", endpoint, "--access-key", "k", "--secret-key", "s", "--region", "us-east-1"]
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, *line, "--out", out, *store], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"a task is done\n"
    code, found = _asked(capsys, out, *store)
    assert (code, found["state"], found["tasks_done"]) == (0, "preparing", 1)
    assert [f"process {process.pid} on {identify_process().host}"] == found["processes"]
    process.send_signal(number)
    process.communicate(timeout=60)
    code, found = _asked(capsys, out, *store)
    assert (code, found["state"]) == (2, "stopped")
    assert found["reason"].endswith(reason)
    assert main([*line, "--out", out, *store]) == 3
    assert "drivers" not in " ".join(one.path for one in (s3_bucket.at(number.name) if in_store else Bucket(out)).list_objects())


_SLOW = """
import sys, time
from crossdim.cli import main
from crossdim.pipelines.jobs import prepare

def run_slowly(documents, work, **_):
    yield work(documents[0])
    print("a task is done", flush=True)
    time.sleep(60)

prepare.run_each = run_slowly
sys.exit(main(sys.argv[1:]))
"""

_WITHOUT = """
import sys
from crossdim.cli import main
code = main(["status", sys.argv[1]])
print(sorted({"ray", "torch", "pandas", "pydicom", "pyarrow", "numpy"} & set(sys.modules)))
sys.exit(code)
"""


def test_it_needs_neither_ray_nor_torch(begun: Any, tmp_path: Path) -> None:
    begun(str(tmp_path / "out"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", _WITHOUT, str(tmp_path / "out")]
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (2, "[]")
