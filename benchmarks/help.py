"""How long the command line takes to print help. Limit: an interpreter that starts and does nothing; bound: 0.7 s."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from benchmarks.stopwatch import in_turns, show

BOUND_S = 0.7
LINES = (("--help",), ("prepare", "--help"), ("pretrain", "--help"))


def run(*arguments: str) -> None:
    """Start an interpreter and wait for its end."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Print the table."""
    cases = {"python -c pass": partial(run, "-c", "pass")}
    cases |= {"crossdim " + " ".join(line): partial(run, "-m", "crossdim", *line) for line in LINES}
    show(f"command line (bound {BOUND_S} s)", in_turns(cases), limit="python -c pass", unit="s", per_second=1, digits=3)


if __name__ == "__main__":
    main()
