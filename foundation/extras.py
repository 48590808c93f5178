"""Extras: which optional package belongs to which extra of crossdim, and the error where one is missing."""

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
    "tensorboardX": ("tensorboardX", "train"),
    "wandb": ("Weights & Biases", "wandb"),
    "mlflow": ("MLflow", "mlflow"),
    "nilearn": ("nilearn", "demo"),
    "skimage": ("scikit-image", "demo"),
}


def build_missing_error(who: str, package: str) -> UsageError:
    """Build the error for a package that is not installed. It is a usage error, which no retry can repair.

    Args:
        who: what needs the package, such as the name of a verb.
        package: as it is imported, a key of ``EXTRAS``.

    Returns:
        The error, with the ``pip install`` command that helps.
    """
    name, extra = EXTRAS[package]
    return UsageError(f"{who} needs {name}: pip install 'crossdim[{extra}]'")


def is_found(package: str) -> bool:
    """Whether Python finds a package; it is not imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # as import hooks that hide a package say it
        return False


def require(package: str, who: str) -> None:
    """Check that a package is installed before any work is done.

    Args:
        package: as it is imported, a key of ``EXTRAS``.
        who: what needs the package, such as the name of a verb.

    Raises:
        UsageError: if it is not installed.
    """
    if not is_found(package):
        raise build_missing_error(who, package)


def explain_import_error(error: BaseException, who: str) -> UsageError | None:
    """Turn the failed import of a package of an extra into an error that says how to install it.

    Args:
        error: any error.
        who: what needs the package, such as the name of a verb.

    Returns:
        The error of :func:`build_missing_error`; None if ``error`` is another one, or of a package that is in no extra.
    """
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return build_missing_error(who, package) if package in EXTRAS else None
