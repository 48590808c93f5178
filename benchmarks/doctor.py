"""How long ``crossdim doctor`` takes. Limit: an interpreter that imports torch and does nothing else; bound: 3 s."""

from __future__ import annotations

import resource
from functools import partial

from benchmarks.help import run
from benchmarks.stopwatch import in_turns, show

BOUND_S = 3.0
LIMIT = "import torch"


def measure_processor_time() -> float:
    """Seconds of all processors that processes started from here took, once they have ended and somebody waited for them."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print a table of wall time, and one of processor time, which matters on a machine that is busy."""
    cases = {LIMIT: partial(run, "-c", "import torch"), "crossdim doctor": partial(run, "-m", "crossdim", "doctor")}
    shown = partial(show, limit=LIMIT, unit="s", per_second=1)
    shown(f"wall time (bound {BOUND_S} s)", in_turns(cases))
    shown("processor time", in_turns(cases, clock=measure_processor_time))


if __name__ == "__main__":
    main()
