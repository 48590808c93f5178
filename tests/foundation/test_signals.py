"""Stop signals: the first interrupts once, where it may; the second ends the process whatever it is doing; children are gone."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crossdim import cli
from crossdim.foundation import signals
from crossdim.foundation.processes import find_descendants, find_started_with

pytestmark = pytest.mark.integration


ROOT = Path(__file__).parents[2]
LINE = "interrupted; the same command goes on from here\n"

#: A verb that does as it is told, and says when it is about to.
VERB = """
import argparse, sys, time
from crossdim.foundation import entry_point, signals
from crossdim.storage_schema.errors import RunError
def verb(arguments):
    print("ready", flush=True)
    {body}
    return 0
sys.exit(signals.run_process(lambda: entry_point.run(verb, argparse.Namespace())))
"""


def start(body: str) -> subprocess.Popen[str]:
    indented = body.replace("\n", "\n    ")
    line = [sys.executable, "-c", VERB.format(body=indented)]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    ready = b""
    while not ready.endswith(b"\n"):  # byte by byte: what readline() keeps in its buffer, communicate() does not return
        ready += os.read(process.stdout.fileno(), 1)
    assert ready == b"ready\n"
    time.sleep(0.2)
    return process


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, LINE), (signal.SIGTERM, 2, "error: stopped by SIGTERM; the same command goes on from here\n")],
)
def test_the_first_signal_ends_a_verb_with_one_line(number: signal.Signals, code: int, line: str) -> None:
    with start("time.sleep(60)") as process:
        process.send_signal(number)
        assert process.communicate(timeout=20)[1] == line
        assert process.returncode == code


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "interrupted; nothing was written yet\n"),
        (signal.SIGTERM, 2, "error: stopped by SIGTERM; nothing was written yet\n"),
    ],
)
def test_what_left_nothing_does_not_claim_to_go_on(number: signal.Signals, code: int, line: str) -> None:
    body = "from crossdim.foundation import signals\nsignals.tell_written(written=False)\ntime.sleep(60)"
    with start(body) as process:
        process.send_signal(number)
        assert process.communicate(timeout=20)[1] == line
        assert process.returncode == code


def test_two_signals_at_once_are_one() -> None:
    """As ``timeout`` sends them: to the process, and to its group. What is being put away is put away."""
    body = "try:\n    time.sleep(60)\nfinally:\n    time.sleep(0.5)\n    print('put away', flush=True)"
    with start(body) as process:
        process.send_signal(signal.SIGINT)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "put away\n", LINE)


#: Calls that hold the main thread: Python's handlers do not run before they are over.
DEAF = {
    "in a call of C that keeps no ear open": "import ctypes\nctypes.CDLL(None).sleep(60)\nctypes.CDLL(None).sleep(60)",
    "where the first is kept": "with signals.hold():\n    time.sleep(60)",
    "in what is put away at the end": "try:\n    time.sleep(60)\nfinally:\n    time.sleep(60)",
}


@pytest.mark.parametrize("body", DEAF.values(), ids=DEAF.keys())
def test_the_second_signal_ends_a_verb_at_once(body: str) -> None:
    with start(body) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.communicate(timeout=20)[1].strip("\n") == LINE.strip("\n")
        assert time.monotonic() - began < 2
        assert process.returncode == 130


#: Ends of a process that take long.
SLOW_ENDS = {
    "in an exit handler": "import atexit\natexit.register(time.sleep, 3)",
    "while objects are taken down": (
        "class Slow:\n    def __del__(self, sleep=time.sleep):\n        sleep(3)\nsys.modules['__main__'].slow = Slow()"
    ),
    "while threads end": "import threading\nthreading.Thread(target=time.sleep, args=(3,)).start()",
}


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("body", SLOW_ENDS.values(), ids=SLOW_ENDS.keys())
def test_once_the_line_is_printed_the_code_stays(body: str, second: signal.Signals) -> None:
    """Whenever the second signal comes, and whichever it is."""
    with start(f"{body}\ntime.sleep(60)") as process:
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == LINE
        time.sleep(0.6)
        process.send_signal(second)
        process.communicate(timeout=20)
        assert process.returncode == 130


def test_a_kept_signal_interrupts_when_its_block_is_done() -> None:
    body = "with signals.hold():\n    time.sleep(1)\n    print('whole', flush=True)\nprint('never', flush=True)"
    with start(body) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "whole\n", LINE)


def test_an_interrupt_that_a_library_drops_comes_again_at_the_next_result() -> None:
    """As in a callback from C++, or in ``__del__``: Python prints the ``KeyboardInterrupt`` there and goes on."""
    body = """class Library:
    def __del__(self):
        time.sleep(1)
library = Library()
del library
for _ in range(3):
    signals.check()
print("went on")"""
    with start(body) as process:
        process.send_signal(signal.SIGINT)
        printed, message = process.communicate(timeout=20)
        assert (process.returncode, printed, message.splitlines()[-1]) == (130, "", LINE.strip())
        assert "Exception ignored in" in message


@pytest.mark.parametrize(
    ("after", "line"),
    [
        ("ZeroDivisionError()", LINE),
        ("RunError('step 7 is saved')", "interrupted; step 7 is saved\n"),
    ],
)
def test_what_fails_after_a_signal_follows_from_it(after: str, line: str) -> None:
    """An error of ours tells what became of the work; one that is not ours is no news."""
    body = f"try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    raise {after}"
    with start(body) as process:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[1] == line
        assert process.returncode == 130


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_the_second_signal_takes_all_that_was_started_along() -> None:
    """Also a child's child, in a session of its own."""
    child = "import subprocess, sys, time; subprocess.Popen(['sleep', '61'], start_new_session=True); time.sleep(61)"
    body = f"import subprocess\nsubprocess.Popen([sys.executable, '-c', {child!r}])\nwith signals.hold():\n    time.sleep(60)"
    with start(body) as process:
        deadline = time.monotonic() + 20
        while len(below := find_descendants(process.pid)) < 2:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        time.sleep(2)  # a busy machine may hear signals late, and take two that it hears together for one
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        while any(Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in below):
            assert time.monotonic() < deadline + 20


def test_a_forked_process_has_signals_of_its_own() -> None:
    """What a child is told is not taken for the second signal of its parent, however early it is told."""
    body = """import os, signal
for wait_s in [0] * 20 + [0.5]:
    child = os.fork()
    if child == 0:
        time.sleep(60)
    for _ in range(2):
        os.kill(child, signal.SIGTERM)
        time.sleep(wait_s)
    print(os.waitpid(child, 0)[1], flush=True)"""
    with start(body) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, f"{int(signal.SIGTERM)}\n" * 21, "")


def test_an_interrupt_while_a_verb_is_imported_promises_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert cli.main(["pretrain"]) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written yet\n"


ON_IMPORT = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
runpy.run_module(sys.argv[1], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("package", "module"),
    [("crossdim", "crossdim.cli"), ("pipelines", "crossdim.pipelines.cli"), ("training", "crossdim.training.cli")],
)
def test_ctrl_c_before_anything_listens_leaves_no_traceback(package: str, module: str) -> None:
    line = [sys.executable, "-c", ON_IMPORT, package, module]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=Path(cli.__file__).parents[1])
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


def test_handlers_are_put_back_and_a_new_verb_begins_anew() -> None:
    before = [signal.getsignal(number) for number in signals.EXIT_CODES]
    with signals.listen():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
        assert signals.received() is None
    assert [signal.getsignal(number) for number in signals.EXIT_CODES] == before


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_processes_are_found_by_what_they_were_started_with() -> None:
    with subprocess.Popen(["sleep", "60"], env={"CROSSDIM_TEST": "a=b"}) as process:
        assert find_started_with("CROSSDIM_TEST", "a=b") == [process.pid]
        assert find_started_with("CROSSDIM_TEST", "a=") == []
        process.kill()


def test_a_signal_to_a_child_that_is_being_forked_ends_it_without_a_traceback() -> None:
    """As Ctrl-C does, which every process of the terminal gets: here between the fork and the end of our hook in the child."""
    code = (
        "import os, signal\n"
        "os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGINT))\n"  # runs before ours
        "from crossdim.foundation import signals\n"
        "with signals.listen():\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os._exit(7)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{-signal.SIGINT}\n", "")
