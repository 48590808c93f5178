"""Programs of the environment whose interpreter runs the tests: it need not be activated, and the PATH may lead to another's."""

from __future__ import annotations

import sys
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
RAY = str(PROGRAMS / "ray")
