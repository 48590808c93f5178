"""Functions of other packages, given as text such as ``my_lab.recipes:chest_ct``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable
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
    except ModuleNotFoundError as error:  # of a package above it, or of what that imports
        return not f"{module}.".startswith(f"{error.name}.")
    except (ImportError, SyntaxError):  # the package above it is there; importing tells what is wrong
        return True
    except ValueError:
        return False


def describe_unknown_recipe(name: str, known: Iterable[str]) -> str:
    """Describe a name that is neither a recipe nor a function of a module.

    Args:
        name: that was asked for.
        known: every recipe that exists.

    Returns:
        One sentence with the nearest recipes, and the module that is not there if the name has the form of a reference.
    """
    module, colon, function = name.partition(":")
    form = f"{describe_unknown_name('recipe', name, known)}; one of your own is module:function"
    if colon and function.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return f"{form}, and there is no module {module}"
    return form


def import_module(name: str) -> ModuleType:
    """Import a module of another package, which may lie in the current folder.

    Args:
        name: such as ``my_lab.recipes``.

    Raises:
        UsageError: if the module does not exist, is no Python, or imports something that does not exist.
    """
    if not _is_there(name):
        raise UsageError(f"there is no module {name}; install its package, or start in the folder that holds it")
    try:
        return importlib.import_module(name)
    except (ImportError, SyntaxError) as error:
        raise UsageError(f"the module {name} cannot be imported: {error}") from error


def list_members(module: ModuleType, attribute: str) -> tuple[Any, ...]:
    """List what a module adds to a table.

    Args:
        module: of another package.
        attribute: its name for the table, such as ``READERS``.

    Returns:
        The members in the module's order; none if it has no such name.

    Raises:
        UsageError: if it is neither a tuple nor a list, as with a forgotten comma.
    """
    found = getattr(module, attribute, ())
    if not isinstance(found, tuple | list):
        raise UsageError(
            f"{module.__name__}.{attribute} is of type {type(found).__name__}; expected a tuple or a list: "
            f"for one member {attribute} = (member,) with the comma"
        )
    return tuple(found)


def find_function(module: ModuleType, name: str) -> Callable[[], Any]:
    """Find a function of a module by its name.

    Args:
        module: that holds it.
        name: of the function, which is called without arguments.

    Returns:
        The function.

    Raises:
        UsageError: if there is none, with the nearest names; or if it cannot be called without arguments.
    """
    found = getattr(module, name, None)
    if not callable(found):
        known = [each for each in vars(module) if not each.startswith("_") and callable(getattr(module, each))]
        raise UsageError(describe_unknown_name(f"function of {module.__name__}", name, known))
    try:
        inspect.signature(found).bind()
    except ValueError:  # of a function without a signature nothing is known
        pass
    except TypeError as error:
        raise UsageError(f"{module.__name__}.{name} is called without arguments: {error}") from None
    function: Callable[[], Any] = found
    return function
