"""Runs by name: ``method`` is the paper's size, ``method:variant`` another one."""

from __future__ import annotations

from collections.abc import Callable

from storage_schema.errors import UsageError, unknown_name
from training.config import Pretraining
from training.recipes import cdssl_p3d

RECIPES: dict[str, Callable[[], Pretraining]] = {
    "cdssl-p3d": cdssl_p3d.paper,
    "cdssl-p3d:paper": cdssl_p3d.paper,
    "cdssl-p3d:tiny": cdssl_p3d.tiny,
}


def recipe(name: str) -> Pretraining:
    """The run of that name.

    Raises:
        UsageError: naming the nearest recipes.
    """
    if name not in RECIPES:
        raise UsageError(unknown_name("recipe", name, RECIPES))
    return RECIPES[name]()
