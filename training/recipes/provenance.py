"""Records how a run is started: its recipe, the settings that differ from it, the command, versions and device."""

from __future__ import annotations

import json
from typing import Any

import torch

from crossdim.foundation.provenance import record_provenance
from crossdim.foundation.setting_list import list_settings
from crossdim.training.config.pretraining import FAMILIES, Pretraining
from crossdim.training.recipes import recipe

#: Distributions that decide what a run computes, and how.
PACKAGES = ("torch", "ray", "numpy")


def record_run(name: str | None, config: Pretraining, *, use_gpu: bool) -> dict[str, Any]:
    """Record how a run is started.

    Args:
        name: of its recipe; None for a run that is resumed without one.
        config: of the run.
        use_gpu: whether workers use a GPU each.

    Returns:
        JSON values: the command, versions and machine; the device; the recipe, and path, value and the recipe's value of each
        setting that differs.
    """
    record = record_provenance(PACKAGES)
    gpu = torch.cuda.get_device_name() if use_gpu and torch.cuda.is_available() else "GPU"
    record |= {"device": gpu if use_gpu else "CPU"}
    return record | {"recipe": name, "changed": compare_with_recipe(config, name)} if name else record


def compare_with_recipe(config: Pretraining, name: str) -> list[list[str]]:
    """List the settings in which a configuration differs from a recipe.

    Args:
        config: of a run.
        name: of the recipe.

    Returns:
        Path, value and the recipe's value of each, as JSON text; a dash where there is no such setting.
    """
    ours, theirs = (
        {one.path: json.dumps(one.value) for one in list_settings(each, FAMILIES) if not one.is_group}
        for each in (config, recipe(name))
    )
    paths = [path for path in {**ours, **theirs} if ours.get(path) != theirs.get(path)]
    return [[path, ours.get(path, "-"), theirs.get(path, "-")] for path in paths]
