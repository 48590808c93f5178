"""``python -m training``: the same verbs as ``crossdim``."""

import sys

from crossdim.training.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
