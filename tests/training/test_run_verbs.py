"""``crossdim runs rm`` and ``crossdim status --watch`` on the command line: questions, answers, signals and failures."""

from __future__ import annotations

import io
import json
import os
import pty
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
from crossdim.storage_schema.errors import RunError, StorageError
from crossdim.training.run_dir import status
from crossdim.training.run_dir.events import EventLog
from crossdim.training.run_dir.run_list import list_runs
from crossdim.training.run_dir.status import Status, read_status
from tests.training.run_dir.small_runs import write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Three runs that are done."""
    return [write_run(Bucket(str(tmp_path / name)), "start", "end").url for name in "abc"]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Answers questions on standard input, as a person at a terminal."""

    def say(text: str) -> None:
        terminal = io.StringIO(f"{text}\n")
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", terminal)

    return say


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_runs_are_removed_after_a_question(
    s3_bucket: Bucket, answer: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing beside them is touched, nor what has a name that begins alike; no is an answer and no error."""
    for name in ("b", "b2"):
        write_run(s3_bucket.at(name), "start", "end")
    options = s3_bucket.options
    line = ["--endpoint-url", str(options.endpoint_url), "--access-key", "k", "--secret-key", "s", "--region", "us-east-1"]
    for word in ("n", "", "yesterday"):
        answer(word)
        assert main(["runs", "rm", f"{s3_bucket.url}/b", *line]) == 1
        message = capsys.readouterr().err
        assert "done, step 2 of 10, " in message
        assert message.endswith("Remove permanently? [y/N] nothing was removed\n")
        assert "error" not in message
    assert {row.run for row in list_runs(s3_bucket, now=0.0)} == {"b", "b2"}
    answer("y")
    assert main(["runs", "rm", f"{s3_bucket.url}/b", *line]) == 0
    assert capsys.readouterr().out.startswith(f"removed {s3_bucket.url}/b: done")
    assert {stored.path.partition("/")[0] for stored in s3_bucket.list_objects()} == {"b2"}


@pytest.mark.parametrize("stdin", ["pipe", "closed", "none"])
def test_where_nobody_can_answer_nothing_is_removed(
    stdin: str, runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO("y\n")
    if stdin == "closed":
        stream.close()
    monkeypatch.setattr("sys.stdin", None if stdin == "none" else stream)
    assert main(["runs", "rm", *runs, "--dry-run"]) == 0
    assert all(f"would remove {run}" in capsys.readouterr().out for run in runs[:1])
    assert all(Path(run).is_dir() for run in runs)
    assert main(["runs", "rm", runs[0]]) == 1
    assert capsys.readouterr().err.endswith("but stdin is not a terminal; pass --yes\n")
    assert _names(tmp_path) == ["a", "b", "c"]


def test_a_question_to_a_closed_stdin_is_not_a_fault(runs: list[str], tmp_path: Path) -> None:
    """In a process without one, as of some schedulers."""
    line = f"exec {sys.executable} -m crossdim runs rm {runs[0]} <&-"
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "stdin is not a terminal; pass --yes" in done.stderr
    assert _names(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["rm"], "runs rm: RUN is missing"),
        (["rm", "--yes"], "runs rm: RUN is missing"),
        (["a", "b"], "to remove runs: crossdim runs rm RUN"),
        (["a", "--yes"], "--yes, --force and --dry-run are options of crossdim runs rm"),
        (["a", "--force"], "--yes, --force and --dry-run are options of crossdim runs rm"),
        (["rm", "a", "b", "a", "--yes"], "a is named twice; name each run once"),
        (["rm", "a", "./b/../a/", "--yes"], "a is named twice"),
        (["rm", "a", "linked/a", "--yes"], "linked/a is named twice"),
        (["rm", "a", "b/notes", "--yes"], "notes holds no run"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked_or_removed(
    line: list[str],
    said: str,
    runs: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path)
    assert main(["runs", *line]) == (2 if "no run" in said else 1)
    assert said in capsys.readouterr().err
    assert _names(tmp_path) == ["a", "b", "c", "linked"]


def test_one_place_of_a_store_has_two_spellings(s3_bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(s3_bucket.at("a"), "start", "end")
    options = ["--endpoint-url", str(s3_bucket.options.endpoint_url), "--access-key", "k", "--secret-key", "s"]
    other = s3_bucket.url.replace("s3://", "s3a://")
    assert main(["runs", "rm", f"{s3_bucket.url}/a", f"{other}/a/", "--yes", *options]) == 1
    assert "named twice" in capsys.readouterr().err
    assert [row.run for row in list_runs(s3_bucket, now=0.0)] == ["a"]


def test_a_silent_run_needs_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(Bucket(str(tmp_path / "run")), "start", age_s=1e6)
    assert main(["runs", "rm", run.url, "--yes"]) == 1
    assert "pass --force" in capsys.readouterr().err
    assert main(["runs", "rm", run.url, "--yes", "--force"]) == 0
    assert _names(tmp_path) == []


def test_a_run_that_starts_while_the_question_waits_is_not_removed(
    runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, *_: Any) -> str:
            EventLog(Bucket(runs[1]), workers=1).add("resume", 2)
            return "y\n"

    monkeypatch.setattr("sys.stdin", Slow())
    assert main(["runs", "rm", *runs]) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].startswith(f"removed {runs[0]}: done")
    assert f"{runs[1]} is running; stop it first" in printed.err
    assert printed.err.endswith(f"(removed: {runs[0]}; not removed: {runs[1]}, {runs[2]})\n")
    assert _names(tmp_path) == ["b", "c"]


def test_a_failure_midway_says_what_was_removed_and_what_not(
    runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    delete = Bucket.delete_exactly

    def fail(self: Bucket, paths: Any) -> None:
        if self.url == runs[1]:
            raise StorageError(f"{self.url}: no answer")
        delete(self, paths)

    monkeypatch.setattr(Bucket, "delete_exactly", fail)
    assert main(["runs", "rm", *runs, "--yes", "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"removed": runs[:1], "not_removed": runs[1:]}
    assert printed.err == f"error: {runs[1]}: no answer (removed: {runs[0]}; not removed: {runs[1]}, {runs[2]})\n"
    assert _names(tmp_path) == ["b", "c"]


#: The command, which is told to stop while it removes the second run.
INTERRUPTED = """
import os, signal, sys
from crossdim.cli import main
from crossdim.training.run_dir import removal
remove = removal.remove_run

def interrupt(found, *rest, **how):
    if found.run.url == {second!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return remove(found, *rest, **how)

removal.remove_run = interrupt
sys.exit(main(["runs", "rm", *{runs}, "--yes"]))
"""


def test_ctrl_c_ends_after_the_run_that_is_being_removed(runs: list[str], tmp_path: Path) -> None:
    line = [sys.executable, "-c", INTERRUPTED.format(second=runs[1], runs=runs)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [f"removed {run}" for run in runs[:2]]
    assert done.stderr == f"interrupted; removed: {runs[0]}, {runs[1]}; not removed: {runs[2]}\n"
    assert _names(tmp_path) == ["c"]


def test_ctrl_c_at_the_question_removes_nothing(runs: list[str], tmp_path: Path) -> None:
    """In a process at a real terminal, which sends the signal itself."""
    controller, terminal = pty.openpty()
    line = [sys.executable, "-m", "crossdim", "runs", "rm", runs[0]]
    process = subprocess.Popen(
        line, cwd=ROOT, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal, start_new_session=True, preexec_fn=_take_terminal
    )
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(controller, 1024)
    os.write(controller, b"\x03")
    process.communicate(timeout=30)
    shown += os.read(controller, 1024)
    os.close(terminal)  # only now: with the last end of a terminal, what was not read yet may be lost
    os.close(controller)
    assert process.returncode == 130
    assert b"\r\ninterrupted; nothing was removed\r\n" in shown
    assert _names(tmp_path) == ["a", "b", "c"]


def _take_terminal() -> None:
    """Make standard input the controlling terminal of this process, so that Ctrl-C on it is a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize(
    ("number", "code", "message"), [(signal.SIGINT, 130, ""), (signal.SIGTERM, 2, "error: stopped by SIGTERM\n")]
)
def test_a_signal_ends_watching_without_talk_of_saving(number: int, code: int, message: str, tmp_path: Path) -> None:
    run = write_run(Bucket(str(tmp_path / "run")), "start")
    line = [sys.executable, "-m", "crossdim", "status", run.url, "--watch", "60", "--json"]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["state"] == "running"
        process.send_signal(number)
        assert process.communicate(timeout=30) == ("", message)
        assert process.returncode == code


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Lets the looks of ``status --watch`` find given states or errors, one after the other."""
    run = write_run(Bucket(str(tmp_path / "run")), "start")
    known = read_status(run, time.time())

    def give(*found: Any) -> str:
        given = iter(found)

        def look(*_: Any) -> Status:
            one = next(given)
            if isinstance(one, Exception):
                raise one
            return replace(known, state=one)

        monkeypatch.setattr(status, "read_status", look)
        return run.url

    monkeypatch.setattr(time, "sleep", lambda _: None)
    return give


@pytest.mark.parametrize(("end", "code"), [("done", 0), ("failed", 2), ("stopped", 2)])
def test_a_run_is_watched_until_it_ends(
    end: str, code: int, looks: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Not until it is silent, which it may be for an hour, and not until the store fails for once."""
    run = looks("waiting", "running", "silent", StorageError("s3://lab: no answer"), "restarting", "running", end)
    assert main(["status", run, "--watch", "2"]) == code
    printed = capsys.readouterr()
    assert printed.out.count(f"{run}: ") == 6
    assert printed.err == "s3://lab: no answer; trying again in 2 s\n"


def test_watching_ends_when_nobody_reads_it(tmp_path: Path) -> None:
    """As with ``| head -1``."""
    run = write_run(Bucket(str(tmp_path / "run")), "start")
    line = [sys.executable, "-m", "crossdim", "status", run.url, "--watch", "0.1", "--json"]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["state"] == "running"
        process.stdout.close()
        assert (process.wait(timeout=30), process.stderr.read()) == (0, "")


@pytest.mark.parametrize("error", [StorageError("there is no such bucket"), RunError("holds no run")])
def test_an_error_at_the_first_look_ends_watching(
    error: Exception, looks: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", looks(error), "--watch"]) == 2
    assert capsys.readouterr().err == f"error: {error}\n"
