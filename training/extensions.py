"""Methods, backbones and optimizers of other packages: a module that the user names is imported in every process of a run.

Such a module may define ``METHODS``, a sequence of :class:`~crossdim.training.methods.base.MethodConfig` classes, ``BACKBONES``,
one of :class:`~crossdim.training.backbones.base.BackboneSettings` classes, and ``OPTIMIZERS``, one of
:class:`~crossdim.training.config.optimizers.Optimizer` classes. What a run uses of them is recorded in its configuration and in
its encoder by the names of their modules. They are imported only if the user names them, never because a file does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from crossdim.foundation.references import import_module
from crossdim.storage_schema.errors import UsageError
from crossdim.training.backbones import BACKBONES
from crossdim.training.config.optimizers import OPTIMIZERS
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.methods import METHODS

#: What a module may define, and the table of it.
_TABLES: dict[str, dict[str, Any]] = {"METHODS": METHODS, "BACKBONES": BACKBONES, "OPTIMIZERS": OPTIMIZERS}
_loaded: list[str] = []


def load_extension(name: str) -> ModuleType:
    """Import a module and register the methods, backbones and optimizers that it defines.

    Args:
        name: of the module, such as ``my_lab.networks``.

    Returns:
        The module.

    Raises:
        UsageError: if there is no such module, or something in it has a name that is taken.
    """
    module = import_module(name)
    for attribute, table in _TABLES.items():
        for member in getattr(module, attribute, ()):
            _register(table, member, name, attribute)
    if name not in _loaded:
        _loaded.append(name)
    return module


def _register(table: dict[str, Any], member: Any, module: str, attribute: str) -> None:
    kind = getattr(member, "kind", None)
    if not isinstance(member, type) or not isinstance(kind, str):
        raise UsageError(f"{module}.{attribute} holds {member!r}; expected classes of settings with a text `kind`")
    if (taken := table.setdefault(kind, member)) is not member:
        raise UsageError(f"{module}.{attribute}: the kind {kind!r} of {member.__name__} is taken by {taken.__name__}")
    if member.__module__.partition(".")[0] != __name__.partition(".")[0] and "extension" not in vars(member):
        member.extension = module


def load_extensions(names: Iterable[str]) -> None:
    """Import the modules that another process has imported, in the same order."""
    for name in names:
        load_extension(name)


def list_extensions(config: Pretraining) -> list[str]:
    """The modules that parts of a configuration come from, sorted; none for one that is ours alone."""
    return sorted(set(_find_extensions(config)))


def _find_extensions(value: Any) -> Iterator[str]:
    if not dataclasses.is_dataclass(value):
        return
    if name := getattr(type(value), "extension", None):
        yield name
    for field in dataclasses.fields(value):
        yield from _find_extensions(getattr(value, field.name))


def check_extensions(names: Any, subject: str) -> None:
    """Check that the modules that a file names are imported.

    Args:
        names: as recorded; anything but a list of texts is left to the reader of the file.
        subject: the file, for the error.

    Raises:
        UsageError: naming the modules that are not.
    """
    missing = [name for name in names if name not in _loaded] if isinstance(names, list) else []
    if missing:
        options = " ".join(f"--extension {name}" for name in missing)
        raise UsageError(
            f"{subject} uses {', '.join(map(str, missing))}. No module is imported because a file names it: give {options}, or "
            "call crossdim.load_extension in Python"
        )
