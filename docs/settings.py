"""The reference of settings, written from the same documents that ``crossdim recipes NAME --json`` prints."""

from __future__ import annotations

import json
from typing import Any

from crossdim.foundation.setting_list import list_settings
from crossdim.pipelines.recipe_names import RECIPE_NAMES as OF_PREPARE
from crossdim.recipe_finder import find_recipe
from crossdim.recipe_text import compare_recipes, describe_recipe
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.config.optimizers import Optimizer
from crossdim.training.config.pretraining import FAMILIES
from crossdim.training.methods.image_to_volume import ImageToVolume
from crossdim.training.recipe_names import RECIPE_NAMES as OF_PRETRAIN
from docs.tables import code, format_markdown_table

COLUMNS = ("setting", "value", "unit", "type", "meaning")
#: Families whose members can be made from defaults -> the word for a member. Methods are what recipes are of.
PARTS: dict[type[Any], str] = {BackboneSettings: "Backbone", Optimizer: "Optimizer", ImageToVolume: "Image to volume"}

_HEAD = """# Settings of the recipes

Every setting of every recipe, as `crossdim recipes NAME --json` prints it. Change one with `--set SETTING=VALUE`, or under
`set` in a file that `--config` reads. Of a recipe `name:variant`, only the settings that differ from `name` are listed.
The settings of other backbones, optimizers and conversions of images to volumes are [at the end](#parts-that-a-setting-names).
"""


def find_base(name: str, names: tuple[str, ...]) -> str | None:
    """Find the recipe that another one is described by.

    Args:
        name: of a recipe.
        names: of all recipes of its verb.

    Returns:
        The first recipe of the same family; None for that one itself.
    """
    base = next(one for one in names if one.partition(":")[0] == name.partition(":")[0])
    return None if base == name else base


def write_settings() -> str:
    """The page: the recipes of ``prepare``, then those of ``pretrain``."""
    lines = [_HEAD]
    for verb, names in (("prepare", OF_PREPARE), ("pretrain", OF_PRETRAIN)):
        for name in names:
            base = find_base(name, names)
            lines += [f"## {name}", "", f"Of `crossdim {verb}`.", ""]
            lines += [*(_list_settings(name) if base is None else _list_differences(name, base)), ""]
    return "\n".join([*lines, *_list_parts()])


def _list_parts() -> list[str]:
    """Settings of each backbone, optimizer and way from image to volume, at their defaults."""
    lines = [
        "## Parts that a setting names",
        "",
        'Written as `--set method.backbone=\'{"kind": "swin3d"}\'`; what is left out has its default.',
        "",
    ]
    for family, title in PARTS.items():
        for kind, part in FAMILIES[family].items():
            rows = [_row(one.document()) for one in list_settings(part(), FAMILIES) if not one.is_group]
            lines += [f"### {title} {kind}", "", *(format_markdown_table(COLUMNS, rows) if rows else ["No settings."]), ""]
    return lines


def _list_settings(name: str) -> list[str]:
    document, _ = describe_recipe(find_recipe(name))
    settings: Any = document["settings"]
    return format_markdown_table(COLUMNS, [_row(one) for one in settings])


def _row(setting: dict[str, Any]) -> tuple[str, ...]:
    return (code(setting["path"]), _show(setting["value"]), setting["unit"], setting["type"], setting["meaning"])


def _list_differences(name: str, base: str) -> list[str]:
    document, _ = compare_recipes(find_recipe(base), find_recipe(name))
    differences: Any = document["differences"]
    if not differences:
        return [f"The settings of `{base}`."]
    return format_markdown_table(
        ("setting", base, name), [(code(one["path"]), _show(one[base]), _show(one[name])) for one in differences]
    )


def _show(value: object) -> str:
    return code(json.dumps(value, ensure_ascii=False))
