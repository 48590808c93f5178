"""The optional packages that decode compressed DICOM: which are installed, and whether Python can import them."""

from __future__ import annotations

import importlib
from importlib import metadata

from crossdim.foundation.checks import CheckResult, Level

#: Package -> its module. Pillow and pydicom itself, which decode too, are always there.
MODULES = {
    "python-gdcm": "gdcm",
    "pyjpegls": "jpeg_ls",
    "pylibjpeg": "pylibjpeg",
    "pylibjpeg-openjpeg": "openjpeg",
    "pylibjpeg-rle": "rle",
    "pylibjpeg-libjpeg": "libjpeg",
}
#: Not in the extra, for its licence.
NOT_IN_EXTRA = {"pylibjpeg-libjpeg": "GPL"}
REINSTALL = "pip install --force-reinstall"


def check_codec_packages() -> list[CheckResult]:
    """Check that what is installed can be imported: with one that is broken, pydicom may not be importable at all."""
    installed = [name for name in MODULES if is_installed(name)]
    broken = [name for name in installed if not can_import(name)]
    if broken:
        found = f"installed, but cannot be imported: {', '.join(broken)}"
        remedy = f"{REINSTALL} {' '.join(broken)}"
        return [CheckResult(check="DICOM codecs", level=Level.FAILURE, found=found, remedy=remedy)]
    return [CheckResult(check="DICOM codecs", found=f"{', '.join(['pydicom', 'Pillow', *installed])} are installed")]


def can_import(package: str) -> bool:
    """Whether the module of a package of ``MODULES`` can be imported."""
    try:
        importlib.import_module(MODULES[package])
    except (ImportError, OSError):  # it is absent, or a library that it needs is
        return False
    return True


def is_installed(package: str) -> bool:
    """Whether a package is installed, even if it cannot be imported."""
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False
