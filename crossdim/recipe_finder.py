"""Finds a recipe of any verb by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from crossdim.foundation.references import describe_unknown_recipe, find_function, import_module, is_reference
from crossdim.foundation.setting_list import Setting, list_settings
from crossdim.foundation.settings import Families
from crossdim.pipelines.recipe_names import RECIPE_NAMES as OF_PREPARE
from crossdim.storage_schema.errors import UsageError
from crossdim.training.evaluation_tasks import EVALUATION_TASKS
from crossdim.training.recipe_names import RECIPE_NAMES as OF_PRETRAIN
from crossdim.training.study_subjects import STUDY_SUBJECTS

#: Recipes that a verb takes.
RECIPES_OF_VERBS = {"prepare": OF_PREPARE, "pretrain": OF_PRETRAIN, "study": OF_PRETRAIN}


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundRecipe:
    """A recipe of ``prepare`` or ``pretrain``.

    Attributes:
        name: as it was asked for.
        verb: that takes it.
        config: its settings.
        families: for each field type that is a family, its members by name.
    """

    name: str
    verb: str
    config: Any
    families: Families

    @property
    def settings(self) -> list[Setting]:
        """Every setting in order."""
        return list_settings(self.config, self.families)


def describe_recipe_of_other_verb(arguments: Sequence[str]) -> str:
    """Describe a recipe on a command line that belongs to another verb.

    Args:
        arguments: of the command line, the verb first.

    Returns:
        A sentence with the recipes of this verb; empty if nothing is wrong, or something else.
    """
    verb, *options = arguments
    mine = RECIPES_OF_VERBS.get(verb, ())
    named = [after for before, after in pairwise(options) if before == "--recipe"]
    named += [one.removeprefix("--recipe=") for one in options if one.startswith("--recipe=")]
    for name in named:
        owners = [other for other, recipes in RECIPES_OF_VERBS.items() if name in recipes]
        if mine and owners and verb not in owners:
            return f"{name} is a recipe of {' and '.join(owners)}; {verb} takes {', '.join(mine)}, or your own module:function"
    return ""


def find_recipe(name: str) -> FoundRecipe:
    """Find a recipe of ``prepare`` or ``pretrain``.

    Args:
        name: of a recipe of ours, or ``module:function`` of another package.

    Returns:
        The recipe with its settings.

    Raises:
        UsageError: for an unknown name, with the nearest ones.
    """
    if name in OF_PREPARE or (is_reference(name) and _is_preparation(name)):
        from crossdim.pipelines.recipes import resolve

        return FoundRecipe(name=name, verb="prepare", config=resolve(name), families={})
    if name not in OF_PRETRAIN and not is_reference(name):
        known = (*OF_PREPARE, *OF_PRETRAIN, *STUDY_SUBJECTS, *EVALUATION_TASKS)
        raise UsageError(describe_unknown_recipe(name, known))
    from crossdim.training.config.pretraining import FAMILIES
    from crossdim.training.recipes import recipe

    return FoundRecipe(name=name, verb="pretrain", config=recipe(name), families=FAMILIES)


def _is_preparation(name: str) -> bool:
    from crossdim.pipelines.jobs.recipe import StagedRecipe

    module, _, function = name.partition(":")
    return isinstance(find_function(import_module(module), function)(), StagedRecipe)
