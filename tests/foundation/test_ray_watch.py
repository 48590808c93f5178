"""The loss of what listens ends the process with a sentence and exit code 2, whatever its main thread is doing."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


ROOT = Path(__file__).parents[2]
#: Watches a socket of its own, which it then closes; ``how`` says what the main thread does meanwhile.
WATCHER = """
import os, socket, sys, time
from crossdim.foundation import signals
from crossdim.foundation.ray_watch import Endpoint, watch
with socket.create_server(("127.0.0.1", 0)) as server, signals.listen():
    server.listen(100)
    address = "127.0.0.1:%d" % server.getsockname()[1]
    head = Endpoint(name="the head", address=address, patience_s={patience_s})
    with watch([head], lambda: (print("ended", flush=True), os.write(2, b"the last lines of a log\\n"))):
        time.sleep(0.5)
        {how}
print("left", flush=True)
"""


def watch(how: str, patience_s: float = 0.0) -> tuple[int, str, str, float]:
    """Exit code, both streams, and how long it took."""
    began = time.monotonic()
    text = WATCHER.format(how=how.replace("\n", "\n        "), patience_s=patience_s)
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr, time.monotonic() - began


@pytest.mark.parametrize("how", ["server.close()\ntime.sleep(50)", "server.close()\nraise RuntimeError('of Ray')"])
def test_a_loss_ends_the_process_with_a_sentence(how: str) -> None:
    """Also where it has raised an error already, whose way out would lead through Ray."""
    code, out, err, seconds = watch(how)
    assert (code, out) == (2, "ended\n")
    assert re.fullmatch(
        r"the last lines of a log\n"
        r"\nerror: Ray was lost: the head at 127\.0\.0\.1:\d+ has not answered for \d+\.\d s; .*command goes on from here\n",
        err,
    )
    assert seconds < 20


def test_a_head_that_may_come_back_is_waited_for() -> None:
    again = (
        "server.close()\ntime.sleep(1.5)\nserver = socket.create_server(('127.0.0.1', int(address.split(':')[1])))\ntime.sleep(1)"
    )
    assert watch(again, patience_s=30)[:3] == (0, "left\n", "")


def test_an_error_beside_a_ray_that_answers_is_an_error() -> None:
    code, out, err, _ = watch("raise RuntimeError('of ours')")
    assert (code, out) == (1, "")
    assert "of ours" in err


def test_a_loss_after_a_stop_signal_is_the_stop() -> None:
    """Signals to all processes of a service reach Ray's, too."""
    how = "import signal\ntry:\n    signal.raise_signal(signal.SIGTERM)\nexcept KeyboardInterrupt:\n    server.close()"
    code, out, err, _ = watch(f"{how}\n    time.sleep(50)")
    assert (code, out, err) == (
        2,
        "ended\n",
        "the last lines of a log\n\nerror: stopped by SIGTERM; the same command goes on from here\n",
    )
