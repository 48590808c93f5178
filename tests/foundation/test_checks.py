"""Checks of an installation: one that fails in any way is a finding, and the others go on."""

from __future__ import annotations

import threading

import pytest

from crossdim.foundation.checks import CheckResult, Level, run_check, run_checks
from crossdim.storage_schema.errors import StorageError

FINE = CheckResult(check="one", found="fine")


def test_what_a_check_finds_is_returned() -> None:
    assert run_check("one", lambda: [FINE], "unused") == [FINE]


@pytest.mark.parametrize(
    ("error", "found", "remedy"),
    [
        (StorageError("the store\nis gone"), "the store is gone", "look"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero", "look"),
        (AssertionError(), "AssertionError", "look"),
    ],
)
def test_a_check_that_raises_is_a_failure_with_its_reason(error: Exception, found: str, remedy: str) -> None:
    def check() -> list[CheckResult]:
        raise error

    assert run_check("one", check, remedy) == [CheckResult(check="one", level=Level.FAILURE, found=found, remedy=remedy)]


def test_a_remedy_may_depend_on_the_error() -> None:
    def check() -> list[CheckResult]:
        raise StorageError("the store is gone")

    [result] = run_check("one", check, lambda error: f"about {error}: look")
    assert result.remedy == "about the store is gone: look"


def test_an_unforeseen_error_has_a_remedy_too() -> None:
    [result] = run_check("one", lambda: [CheckResult(check="x", found={}["absent"])])
    assert (result.level, result.found) == (Level.FAILURE, "KeyError: 'absent'")
    assert "report" in result.remedy


def test_checks_run_side_by_side_and_keep_their_order() -> None:
    """Each waits for the other: one after the other they would never end."""
    both = threading.Barrier(2, timeout=30)

    def check(name: str) -> list[CheckResult]:
        both.wait()
        return [CheckResult(check=name, found="there")]

    assert [one.check for one in run_checks([("a", lambda: check("a")), ("b", lambda: check("b"))])] == ["a", "b"]
