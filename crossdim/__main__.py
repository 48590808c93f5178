"""``python -m crossdim``."""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a verb listens, Ctrl-C ends the process without a traceback

from crossdim.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
