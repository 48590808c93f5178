"""Recipes as text and as documents: the list of all, the settings of one, the differences of two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crossdim.foundation.setting_list import format_table
from crossdim.pipelines.recipe_names import RECIPE_SUMMARIES as PREPARE
from crossdim.recipe_finder import FoundRecipe
from crossdim.storage_schema.errors import UsageError
from crossdim.training.evaluation_tasks import EVALUATION_TASKS
from crossdim.training.recipe_names import RECIPE_SUMMARIES as PRETRAIN
from crossdim.training.study_subjects import STUDY_SUBJECTS


def list_recipes() -> tuple[dict[str, object], str]:
    """List what there is for each verb, as a document and as lines."""
    document: dict[str, object] = {
        "prepare": [{"name": name, **one._asdict()} for name, one in PREPARE.items()],
        "pretrain": [{"name": name, **one._asdict()} for name, one in PRETRAIN.items()],
        "study": [{"name": name, "about": about} for name, about in STUDY_SUBJECTS.items()],
        "evaluate": [{"name": name, "about": about} for name, about in EVALUATION_TASKS.items()],
    }
    pretrain = [
        [name, f"{one.steps:,}", str(one.batch), one.optimizer, f"{one.lr:g}", one.precision, f"{one.parameters:,}"]
        for name, one in PRETRAIN.items()
    ]
    sections = [
        ("prepare: --recipe NAME", [["recipe", "takes", "makes", "settings"], *([n, *one] for n, one in PREPARE.items())], ""),
        (
            "pretrain, study: --recipe NAME",
            [["recipe", "steps", "batch", "optimizer", "lr", "precision", "parameters"], *pretrain],
            "lrrlrlr",
        ),
        ("study: NAME", [["study", "compares"], *map(list, STUDY_SUBJECTS.items())], ""),
        ("evaluate: always, as far as the datasets allow", [["task", "measures"], *map(list, EVALUATION_TASKS.items())], ""),
    ]
    lines: list[str] = []
    for title, rows, alignment in sections:
        lines += [title, *(f"  {line}" for line in format_table(rows, alignment)), ""]
    lines += ["precision auto: bf16, and networks are compiled, on GPUs that can; fp32 elsewhere"]
    return document, "\n".join([*lines, "Every setting of a recipe: crossdim recipes NAME"])


def describe_recipe(found: FoundRecipe) -> tuple[dict[str, object], str]:
    """List every setting of a recipe, as a document and as lines."""
    settings = [one.document() for one in found.settings if not one.is_group]
    rows = [["setting", "value", "unit", "type", "meaning"], *(one.cells for one in found.settings)]
    head = f"{found.name}, a recipe of crossdim {found.verb}; change a setting with --set SETTING=VALUE or a file of --config"
    lines = [head, *format_table(rows)]
    return {"name": found.name, "verb": found.verb, "settings": settings}, "\n".join(lines)


def compare_recipes(one: FoundRecipe, other: FoundRecipe) -> tuple[dict[str, object], str]:
    """List the settings in which two recipes differ.

    Args:
        one: a recipe.
        other: of the same verb.

    Returns:
        A document, and lines.

    Raises:
        UsageError: if they are recipes of different verbs.
    """
    if one.verb != other.verb:
        raise UsageError(
            f"{one.name} is a recipe of {one.verb} and {other.name} one of {other.verb}; their settings have no relation"
        )
    ours, theirs = ({s.path: s.document()["value"] for s in each.settings if not s.is_group} for each in (one, other))
    differing = [path for path in {**ours, **theirs} if path not in ours or path not in theirs or ours[path] != theirs[path]]
    document = [{"path": path, one.name: ours.get(path), other.name: theirs.get(path)} for path in differing]
    rows = [["setting", one.name, other.name], *([path, _show(ours, path), _show(theirs, path)] for path in differing)]
    text = "\n".join(format_table(rows)) if differing else f"{one.name} and {other.name} have the same settings"
    return {"recipes": [one.name, other.name], "differences": document}, text


def _show(settings: dict[str, Any], path: str) -> str:
    from crossdim.foundation.yaml_text import format_value

    return format_value(settings[path]) if path in settings else "-"


def describe_task(name: str) -> tuple[dict[str, object], str] | None:
    """What a study or a task of ``evaluate`` is; None if there is none of this name."""
    for verb, table in (("study", STUDY_SUBJECTS), ("evaluate", EVALUATION_TASKS)):
        if name in table:
            text = f"{name}, of crossdim {verb}: {table[name]}. It has no settings of its own; see crossdim {verb} --help"
            return {"name": name, "verb": verb, "about": table[name], "settings": []}, text
    return None


def comment_settings(found: FoundRecipe, above: str) -> dict[str, str]:
    """The meaning of each setting, with its unit, by its path in a document.

    Args:
        found: the recipe.
        above: key under which the document holds the settings.

    Returns:
        Comments for :func:`~crossdim.foundation.yaml_text.write_yaml`.
    """
    return {f"{above}.{one.path}": one.comment for one in found.settings}


def list_names() -> Sequence[str]:
    """The names that ``crossdim recipes`` takes."""
    return (*PREPARE, *PRETRAIN, *STUDY_SUBJECTS, *EVALUATION_TASKS)
