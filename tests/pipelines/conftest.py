"""Where the shared real images lie, and small inputs that tests make."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
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


@pytest.fixture(scope="module")
def without_ray() -> Iterator[None]:
    """The same work in this process: what is published does not depend on who does it."""
    from crossdim.pipelines import cli
    from crossdim.pipelines.jobs import prepare, scan, verify, voxel_kinds

    with pytest.MonkeyPatch.context() as patch:
        for module in (scan, prepare, voxel_kinds, verify):
            patch.setattr(module, "run_each", lambda documents, work, **_: map(work, documents))
        patch.setattr(cli, "ray_session", lambda *_, **__: nullcontext())
        yield
