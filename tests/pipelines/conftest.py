"""Where the shared real images lie, and small inputs that tests make."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before anything imports Ray: no usage report, no token left in the developer's home.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real medical images; tests that need it are skipped where it is not."""
    if not (REAL_DATA / "index.csv").is_file():
        pytest.skip(f"real images are not here: {REAL_DATA}")
    return REAL_DATA
