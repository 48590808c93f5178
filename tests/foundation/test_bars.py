"""A process that was forked while its parent drew a bar."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import io, os, sys, threading
from crossdim.foundation.bars import Bar, write_lines

class Terminal(io.StringIO):
    def isatty(self):
        return True

sys.stderr = Terminal()
bar = Bar(total=3, file=sys.stderr)
taken, end = threading.Event(), threading.Event()

def draw():
    with Bar.get_lock():
        taken.set()
        end.wait()

thread = threading.Thread(target=draw)
thread.start()
taken.wait()
pid = os.fork()
if pid == 0:
    sys.stderr = sys.__stderr__
    write_lines(["a line of the child"])
    bar.refresh()
    bar.close()
    os._exit(0)
_, status = os.waitpid(pid, 0)
end.set()
thread.join()
bar.refresh()
print(bar.disable)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_process_does_not_wait_for_a_bar_of_its_parent() -> None:
    """The lock was held by a thread that a fork does not copy."""
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "False\n", "a line of the child\n")
