"""Checks of Python and of packages: what is absent, too old or new, or hidden is named with the command that installs it."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Any

import pytest

from crossdim.foundation.checks import CheckResult, Level
from crossdim.foundation.package_checks import USES, check_packages, check_python


def _check(monkeypatch: pytest.MonkeyPatch, *requirements: str) -> dict[str, CheckResult]:
    """As if crossdim stated these requirements."""
    monkeypatch.setattr(metadata, "requires", lambda _: list(requirements))
    return {one.check: one for one in check_packages()}


@pytest.mark.parametrize(("version", "level"), [((3, 10, 9), "failure"), ((3, 11, 0), "ok"), ((3, 13, 1), "ok")])
def test_python(version: tuple[int, ...], level: str) -> None:
    [result] = check_python(version)
    assert result.level == level
    assert ("tested with 3.11" in result.found) == (version[:2] == (3, 13))
    assert bool(result.remedy) == (level == "failure")


def test_what_is_installed_here_is_supported() -> None:
    results = check_packages()
    assert [one.check for one in results] == ["packages", *(f"extra {extra}" for extra in USES)]
    assert {one.check: one for one in results if one.level is not Level.OK} == {}


def test_absent_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is always needed is a failure; one of an extra is needed by some verbs only."""
    found = _check(monkeypatch, "no-such-package>=1", 'no-such-codec; extra == "dicom"')
    assert (found["packages"].level, found["packages"].found) == (Level.FAILURE, "not installed: no-such-package")
    dicom = found["extra dicom"]
    assert (dicom.level, dicom.remedy) == (Level.WARNING, "pip install 'crossdim[dicom]'")
    assert dicom.found == "not installed: no-such-codec; for compressed DICOM files"


def test_versions_outside_of_the_bounds_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _check(monkeypatch, "numpy<1.5", 's3fs>=9999; extra == "s3"')
    assert (found["packages"].level, found["extra s3"].level) == (Level.WARNING, Level.WARNING)
    assert found["packages"].found == f"not supported: numpy {metadata.version('numpy')} (<1.5)"


def test_a_package_that_is_installed_but_hidden_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == "tensorboardX":
                raise ModuleNotFoundError(name)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "tensorboardX", raising=False)
    found = {one.check: one for one in check_packages()}
    assert (found["extra train"].level, "cannot be imported: tensorboardX" in found["extra train"].found) == (Level.FAILURE, True)


def test_a_source_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    source, *extras = check_packages()
    assert (source.level, "runs from its source" in source.found) == (Level.WARNING, True)
    assert {one.level for one in extras} == {Level.OK}
