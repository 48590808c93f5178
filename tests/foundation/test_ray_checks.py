"""Machines of a Ray cluster are compared with this one; the cluster itself is in the tests of the whole verb."""

from __future__ import annotations

import pytest

from crossdim.foundation.checks import Level
from crossdim.foundation.ray_checks import compare_node

HERE = {"Python": "3.11.7", "Ray": "2.60.0", "crossdim": "0.1.0"}
MEMORY = {"memory": 4_000_000_000}


def test_a_machine_as_this_one() -> None:
    result = compare_node("node", HERE | MEMORY, HERE, 2e9)
    assert (result.level, result.remedy) == (Level.OK, "")
    assert result.found == "Python 3.11.7, Ray 2.60.0, crossdim 0.1.0, as here; 4.0 GB in /dev/shm"


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"Python": "3.12.1"}, "Python 3.12.1, here 3.11.7"),
        ({"Ray": "2.59.0"}, "Ray 2.59.0, here 2.60.0"),
        ({"crossdim": "0.0.9"}, "crossdim 0.0.9, here 0.1.0"),
        ({"crossdim": None}, "crossdim is not installed, here 0.1.0"),
    ],
)
def test_other_versions(other: dict[str, str | None], found: str) -> None:
    result = compare_node("node", HERE | MEMORY | other, HERE, 0)
    assert (result.level, result.found) == (Level.FAILURE, found)
    assert "pip install 'ray==2.60.0' 'crossdim==0.1.0'" in result.remedy


def test_shared_memory_that_is_smaller_than_the_object_store() -> None:
    result = compare_node("node", HERE | {"memory": 64_000_000}, HERE, 2e9)
    assert (result.level, "--shm-size" in result.remedy) == (Level.WARNING, True)
