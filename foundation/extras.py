"""Extras: which optional package belongs to which extra of crossdim, and what to say where one is missing."""

from __future__ import annotations

import importlib.util

from crossdim.storage_schema.errors import UsageError

#: Package as it is imported -> its name, and the extra that installs it. Codecs of DICOM are told by their decoder.
EXTRAS = {
    "ray": ("Ray", "ray"),
    "grpc": ("Ray with its dashboard", "ray"),
    "pandas": ("Ray Data", "ray"),
    "pydantic": ("Ray Train", "ray"),
    "s3fs": ("s3fs", "s3"),
    "aiobotocore": ("s3fs", "s3"),
    "botocore": ("s3fs", "s3"),
    "aiohttp": ("s3fs", "s3"),
    "torch": ("PyTorch", "train"),
    "scipy": ("SciPy", "train"),
    "sklearn": ("scikit-learn", "train"),
    "jinja2": ("Jinja2", "train"),
    "tensorboardX": ("tensorboardX", "train"),
    "nilearn": ("nilearn", "demo"),
    "skimage": ("scikit-image", "demo"),
}


def missing(who: str, package: str) -> UsageError:
    """The error of ``who`` needs a package that is not installed: a fault of the command here, that no retry mends."""
    name, extra = EXTRAS[package]
    return UsageError(f"{who} needs {name}: pip install 'crossdim[{extra}]'")


def require(package: str, who: str) -> None:
    """Say that a package is missing before anything is begun.

    Raises:
        UsageError: if it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise missing(who, package)


def missing_in(error: BaseException, who: str) -> UsageError | None:
    """The same for an import that failed; None if it is not for want of a package of an extra."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return missing(who, package) if package in EXTRAS else None
