"""The names of recipes of ``prepare``, for help, which imports no reader."""

from __future__ import annotations

#: Every name in ``recipes.RECIPES``.
RECIPE_NAMES = (
    "xray-pseudo3d",
    "xray-pseudo3d:tiny",
    "ct-superpatches",
    "mixed-superpatches",
    "mixed-superpatches:tiny",
)
