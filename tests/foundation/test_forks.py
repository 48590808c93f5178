"""A forked process and the clients that its parent opened."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import gc, os, sys
from crossdim.foundation.forks import protect_from_forks

class Client:
    def __del__(self):
        os.write(1, f"dropped in {'parent' if os.getpid() == parent else 'child'}\\n".encode())

parent, client = os.getpid(), Client()
if sys.argv[1] == "protected":
    protect_from_forks(client)
for generation in range(2):
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        break
    if generation:
        del client
        gc.collect()
        sys.exit(0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize(("how", "dropped"), [("protected", ["parent"]), ("left alone", ["child", "child", "parent"])])
def test_only_the_process_that_opened_a_client_drops_it(how: str, dropped: list[str]) -> None:
    """Neither a child nor a grandchild, and not when Python ends either: there, locks of the client may never be released."""
    ended = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [f"dropped in {process}" for process in dropped]
