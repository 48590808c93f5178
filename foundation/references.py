"""Functions of other packages, given as text such as ``my_lab.recipes:chest_ct``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from crossdim.storage_schema.errors import UsageError, describe_unknown_name


def is_reference(text: str) -> bool:
    """Whether a text is ``module:function`` and the module exists; names of recipes may hold a colon too."""
    module, colon, function = text.partition(":")
    return bool(colon) and function.isidentifier() and _is_there(module)


def _is_there(module: str) -> bool:
    if not all(part.isidentifier() for part in module.split(".")):
        return False
    if module in sys.modules:
        return True
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:  # an installed command does not look where it is started
        sys.path.append(here)
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # no such package above it, or an error in one
        return False


def import_module(name: str) -> ModuleType:
    """Import a module of another package, which may lie in the current folder.

    Args:
        name: such as ``my_lab.recipes``.

    Raises:
        UsageError: if the module does not exist, or imports something that does not.
    """
    if not _is_there(name):
        raise UsageError(f"there is no module {name}; install its package, or start in the folder that holds it")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"the module {name} cannot be imported: {error}") from error


def find_function(module: ModuleType, name: str) -> Callable[[], Any]:
    """Find a function of a module by its name.

    Args:
        module: that holds it.
        name: of the function, which is called without arguments.

    Returns:
        The function.

    Raises:
        UsageError: if there is none, with the nearest names.
    """
    found = getattr(module, name, None)
    if not callable(found):
        known = [each for each in vars(module) if not each.startswith("_") and callable(getattr(module, each))]
        raise UsageError(describe_unknown_name(f"function of {module.__name__}", name, known))
    function: Callable[[], Any] = found
    return function
