"""``python -m training``: the same verbs as ``crossdim``."""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a verb listens, Ctrl-C ends the process without a traceback

from crossdim.foundation import signals  # noqa: E402
from crossdim.training.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(signals.run_process(lambda: main(sys.argv[1:])))
