"""Checks of Python and of the packages: those that are always needed, and those of each extra, with what they are for."""

from __future__ import annotations

import sys
from importlib import metadata

from packaging.requirements import Requirement

from crossdim.foundation.checks import CheckResult, Level
from crossdim.foundation.extras import EXTRAS, is_found

OLDEST_PYTHON = (3, 11)
#: Extra -> what it is for.
USES = {
    "dicom": "compressed DICOM files",
    "s3": "s3:// locations",
    "ray": "prepare and verify of large jobs, pretrain with --workers above 0, --ray-address",
    "train": "pretrain, evaluate and study",
    "wandb": "pretrain --track wandb",
    "mlflow": "pretrain --track mlflow",
    "demo": "the demo",
}


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> list[CheckResult]:
    """Check the version of Python."""
    oldest, found = ".".join(map(str, OLDEST_PYTHON)), ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        remedy = f"make an environment with Python {oldest}: python{oldest} -m venv .venv"
        return [CheckResult(check="Python", level=Level.FAILURE, found=f"{found}; {oldest} or newer is needed", remedy=remedy)]
    untested = "" if version[:2] == OLDEST_PYTHON else f"; crossdim is tested with {oldest}"
    return [CheckResult(check="Python", found=f"{found}{untested}")]


def check_packages() -> list[CheckResult]:
    """Check that the packages are installed, can be found by Python, and have versions that are supported."""
    try:
        stated = [Requirement(text) for text in metadata.requires("crossdim") or ()]
    except metadata.PackageNotFoundError:
        source = "crossdim is not installed but runs from its source, so versions of packages are not known to be supported"
        unknown = CheckResult(check="packages", level=Level.WARNING, found=source, remedy="pip install -e '.[all]' in its folder")
        return [unknown, *(_check_extra(extra, []) for extra in USES)]
    always = [one for one in stated if one.marker is None]
    return [_check_always(always), *(_check_extra(extra, _select_extra(stated, extra)) for extra in USES)]


def _select_extra(stated: list[Requirement], extra: str) -> list[Requirement]:
    return [one for one in stated if one.marker is not None and one.marker.evaluate({"extra": extra})]


def _check_always(wanted: list[Requirement]) -> CheckResult:
    absent, unsupported = _find_absent(wanted), _find_unsupported(wanted)
    if not (absent or unsupported):
        return CheckResult(check="packages", found=f"all {len(wanted)} are installed, in supported versions")
    level = Level.FAILURE if absent else Level.WARNING
    return _report("packages", level, [], absent, unsupported, "pip install --upgrade crossdim")


def _check_extra(extra: str, wanted: list[Requirement]) -> CheckResult:
    name, purpose = f"extra {extra}", f"for {USES[extra]}"
    absent, unsupported = _find_absent(wanted), _find_unsupported(wanted)
    hidden = [] if absent else [package for package, (_, owner) in EXTRAS.items() if owner == extra and not is_found(package)]
    if absent or unsupported or hidden:
        level = Level.FAILURE if hidden and wanted else Level.WARNING
        return _report(name, level, hidden, absent, unsupported, f"pip install 'crossdim[{extra}]'", purpose)
    versions = ", ".join(f"{one.name} {metadata.version(one.name)}" for one in wanted)
    return CheckResult(check=name, found=f"{versions or 'found'}; {purpose}")


def _report(
    check: str, level: Level, hidden: list[str], absent: list[str], unsupported: list[str], remedy: str, purpose: str = ""
) -> CheckResult:
    said = [f"not installed: {', '.join(absent)}"] if absent else []
    said += [f"not supported: {', '.join(unsupported)}"] if unsupported else []
    said += [f"cannot be imported: {', '.join(hidden)}"] if hidden else []
    return CheckResult(check=check, level=level, found="; ".join([*said, purpose] if purpose else said), remedy=remedy)


def _find_absent(wanted: list[Requirement]) -> list[str]:
    return [one.name for one in wanted if _find_version(one.name) is None]


def _find_unsupported(wanted: list[Requirement]) -> list[str]:
    """Packages of other versions than ours are tested with, and what is asked for."""
    versions = ((one, _find_version(one.name)) for one in wanted)
    return [f"{one.name} {found} ({one.specifier})" for one, found in versions if found and found not in one.specifier]


def _find_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
