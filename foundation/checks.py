"""Checks of an installation: what a check found, at three levels, and how one that itself fails is reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from crossdim.storage_schema.errors import CrossdimError


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """What a check found.

    Attributes:
        check: what was checked, in a few words.
        level: ``failure`` if some verb would fail, ``warning`` if something optional is missing or will be slow.
        found: what is there.
        remedy: what to do, with a command that can be pasted at its end; "" if nothing is to be done.
    """

    check: str
    level: Level = Level.OK
    found: str
    remedy: str = ""


Check = Callable[[], Sequence[CheckResult]]
#: What to do about an error.
Advise = Callable[[Exception], str]


def run_check(name: str, check: Check, remedy: str | Advise = "") -> list[CheckResult]:
    """Run a check. One that raises is a failure that is reported, and the other checks go on.

    Args:
        name: what is checked, for the report of an error.
        check: returns what it found.
        remedy: what to do if it raises.

    Returns:
        What it found, or the failure.
    """
    try:
        return list(check())
    except CrossdimError as error:
        found, said = str(error), remedy(error) if callable(remedy) else remedy
    except Exception as error:  # the only place: what is checked may be broken in any way, and that is the finding
        found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        said = (remedy(error) if callable(remedy) else remedy) or "please report this line; it was not foreseen"
    return [CheckResult(check=name, level=Level.FAILURE, found=" ".join(found.split()), remedy=said)]


def run_checks(checks: Sequence[tuple[str, Check]]) -> list[CheckResult]:
    """Run independent checks side by side, each in a thread of its own.

    Args:
        checks: name and function of each.

    Returns:
        What they found, in the order of the checks.
    """
    with ThreadPoolExecutor(max(len(checks), 1), thread_name_prefix="check") as pool:
        return [result for found in pool.map(lambda one: run_check(*one), checks) for result in found]
