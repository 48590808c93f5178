"""Named recipes: functions that return a complete configuration of ``prepare``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from crossdim.foundation.references import describe_unknown_recipe, find_function, is_reference
from crossdim.foundation.settings import Override, override_settings
from crossdim.pipelines.extensions import load_extension
from crossdim.pipelines.jobs.recipe import ImageRecipe, Recipe, VolumeRecipe
from crossdim.pipelines.recipes import images, volumes
from crossdim.storage_schema.errors import UsageError

#: A new recipe is a function and a line here.
RECIPES: dict[str, Callable[[], Recipe]] = {
    "xray-pseudo3d": images.xray_pseudo3d,
    "xray-pseudo3d:tiny": images.xray_pseudo3d_tiny,
    "ct-superpatches": volumes.ct_superpatches,
    "mixed-superpatches": volumes.mixed_superpatches,
    "mixed-superpatches:tiny": volumes.mixed_superpatches_tiny,
}


def resolve(name: str, overrides: Sequence[str | Override] = ()) -> Recipe:
    """Find a recipe by name and apply ``path=value`` overrides.

    Args:
        name: of a recipe of ours, or ``module:function`` of another package, whose readers and stages are registered then.
        overrides: such as ``fit.max_side=512``.

    Returns:
        The recipe with the overrides.

    Raises:
        UsageError: for an unknown name or setting, with the nearest ones; or for a function that does not return a recipe.
    """
    if name in RECIPES:
        return override_settings(RECIPES[name](), overrides)
    if not is_reference(name):
        raise UsageError(describe_unknown_recipe(name, RECIPES))
    module, _, function = name.partition(":")
    recipe = find_function(load_extension(module), function)()
    if not isinstance(recipe, ImageRecipe | VolumeRecipe):
        raise UsageError(f"{name} returns {type(recipe).__name__}; a recipe is an ImageRecipe or a VolumeRecipe")
    return override_settings(recipe, overrides)


def default_name(recipe: str) -> str:
    """The default name of a dataset: that of its recipe, or of the function that makes it."""
    return recipe.replace(":", "-") if recipe in RECIPES else recipe.rpartition(":")[2]
