"""Methods, backbones and optimizers of other packages: a module that the user names is imported in every process of a run.

Such a module may define tuples of classes of settings: ``METHODS`` of
:class:`~crossdim.training.methods.base.MethodConfig`, ``BACKBONES`` of
:class:`~crossdim.training.backbones.base.BackboneSettings`, ``OPTIMIZERS`` of
:class:`~crossdim.training.config.optimizers.Optimizer`, and ``IMAGE_TO_VOLUME`` of
:class:`~crossdim.training.methods.image_to_volume.ImageToVolume`. What a run uses of them is recorded in its configuration and in
its encoder by the names of their modules. They are imported only if the user names them, never because a file does.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from crossdim.foundation.references import import_module, list_members
from crossdim.storage_schema.errors import DocumentError, UsageError
from crossdim.training.backbones import BACKBONES
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.config.optimizers import OPTIMIZERS, Optimizer
from crossdim.training.config.pretraining import Pretraining, read_config
from crossdim.training.methods import METHODS
from crossdim.training.methods.base import MethodConfig
from crossdim.training.methods.image_to_volume import IMAGE_TO_VOLUME, ImageToVolume

#: What a module may define: the base class of its members, and their table.
_TABLES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "METHODS": (MethodConfig, METHODS),
    "BACKBONES": (BackboneSettings, BACKBONES),
    "OPTIMIZERS": (Optimizer, OPTIMIZERS),
    "IMAGE_TO_VOLUME": (ImageToVolume, IMAGE_TO_VOLUME),
}
_FAMILIES: tuple[type[Any], ...] = tuple(family for family, _ in _TABLES.values())
_loaded: list[str] = []


def load_extension(name: str) -> ModuleType:
    """Import a module and register the methods, backbones, optimizers and ways to make volumes that it defines.

    Args:
        name: of the module, such as ``my_lab.networks``.

    Returns:
        The module.

    Raises:
        UsageError: if there is no such module, or something in it is no class of settings or has a name that is taken.
    """
    module = import_module(name)
    for attribute in _TABLES:
        for member in list_members(module, attribute):
            _register(member, name, attribute)
    if name not in _loaded:
        _loaded.append(name)
    return module


def _register(member: Any, module: str, attribute: str) -> None:
    family, table = _TABLES[attribute]
    kind = getattr(member, "kind", None)
    fine = isinstance(member, type) and issubclass(member, family) and dataclasses.is_dataclass(member)
    if not fine or not isinstance(kind, str):
        raise UsageError(
            f"{module}.{attribute} holds {member!r}; expected dataclasses below {family.__name__} with a text `kind`"
        )
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
    members = (part for _, part in _find_parts(config) if isinstance(part, _FAMILIES))
    return sorted({member.extension for member in members if member.extension})


def check_readable(config: Pretraining, subject: str) -> None:
    """Check that workers, who get a configuration as a document, build the same classes from it.

    Args:
        config: of a recipe of another package.
        subject: the recipe, for the error.

    Raises:
        UsageError: naming the first part whose class is in no table or under another's ``kind``, or that would be read as
            another class; or every setting that is not of its type.
    """
    for path, part in _find_parts(config):
        for attribute, (family, table) in _TABLES.items():
            if isinstance(part, family) and table.get(part.kind) is not type(part):
                remedy = f"name it in {attribute} of the module, with a `kind` of its own"
                raise UsageError(
                    f"{subject}: {path} is a {type(part).__name__}, which is not registered as {part.kind!r}; {remedy}"
                )
    try:
        read = read_config(config.document(), subject)
    except DocumentError as error:
        raise UsageError(str(error)) from error
    for (path, part), (_, other) in zip(_find_parts(config), _find_parts(read), strict=True):
        if type(part) is not type(other):
            ours, theirs = type(part).__name__, type(other).__name__
            remedy = f"make a method of your own whose setting is of type {ours}"
            raise UsageError(
                f"{subject}: {path} is a {ours}, and the type of this setting is {theirs}, which workers read; {remedy}"
            )


def _find_parts(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every dataclass in a configuration, and its place such as ``method.backbone``."""
    if isinstance(value, tuple | list):
        for number, item in enumerate(value):
            yield from _find_parts(item, f"{path}[{number}]")
    elif dataclasses.is_dataclass(value):
        yield path, value
        for field in dataclasses.fields(value):
            yield from _find_parts(getattr(value, field.name), f"{path}.{field.name}".removeprefix("."))


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
        options = " ".join(f"--extension {shlex.quote(str(name))}" for name in missing)
        raise UsageError(
            f"{subject} uses {', '.join(map(str, missing))}. No module is imported because a file names it: give {options}, or "
            "call crossdim.load_extension in Python"
        )
