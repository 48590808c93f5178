"""``python -m crossdim``."""

import sys

from crossdim.cli import main

if __name__ == "__main__":
    sys.exit(main())
