"""Readers and stages of other packages: a module that a recipe names is imported in every process that does part of the work.

Such a module may define ``READERS``, a sequence of :class:`~crossdim.pipelines.readers.reader.Reader`, and ``STAGES``, a
sequence of :class:`~crossdim.pipelines.stages.stage.Stage` classes that run in the decoder process.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

from crossdim.foundation.references import import_module, list_members
from crossdim.pipelines.readers.registry import register_readers
from crossdim.pipelines.stages.registry import register_stages

_loaded: list[str] = []


def load_extension(name: str) -> ModuleType:
    """Import a module and register the readers and stages that it defines.

    Args:
        name: of the module, such as ``my_lab.recipes``.

    Raises:
        UsageError: if there is no such module, its READERS or STAGES is no tuple or list, or one of its readers or stages has
            a name that is taken.
    """
    module = import_module(name)
    register_readers(list_members(module, "READERS"))
    register_stages(list_members(module, "STAGES"))
    if name not in _loaded:
        _loaded.append(name)
    return module


def load_extensions(names: Iterable[str]) -> None:
    """Import the modules that another process has imported, in the same order."""
    for name in names:
        load_extension(name)


def list_extensions() -> tuple[str, ...]:
    """The modules that were imported, in order; sent to every process that does part of the work."""
    return tuple(_loaded)
