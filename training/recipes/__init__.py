"""Recipes by name: ``method`` has the paper's size, ``method:variant`` another one."""

from __future__ import annotations

from collections.abc import Callable

from crossdim.foundation.references import describe_unknown_recipe, find_function, is_reference
from crossdim.storage_schema.errors import UsageError
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.extensions import check_readable, load_extension
from crossdim.training.recipes import cdssl_p3d, crossd, maesil

RECIPES: dict[str, Callable[[], Pretraining]] = {
    "cdssl-p3d": cdssl_p3d.paper,
    "cdssl-p3d:paper": cdssl_p3d.paper,
    "cdssl-p3d:tiny": cdssl_p3d.tiny,
    "cross-d": crossd.hybrid,
    "cross-d:tiny": crossd.hybrid_tiny,
    "cross-d-supervised": crossd.supervised,
    "cross-d-supervised:tiny": crossd.supervised_tiny,
    "maesil": maesil.paper,
    "maesil:small": maesil.small,
    "maesil:tiny": maesil.tiny,
    "maesil-crossdim:small": maesil.crossdim_small,
    "ae:small": maesil.ae_small,
    "ae:tiny": maesil.ae_tiny,
    "vae:small": maesil.vae_small,
    "vae:tiny": maesil.vae_tiny,
    "vqvae:small": maesil.vqvae_small,
    "vqvae:tiny": maesil.vqvae_tiny,
}


def recipe(name: str) -> Pretraining:
    """Find a configuration by its name.

    Args:
        name: of a recipe of ours, or ``module:function`` of another package, whose methods, backbones and optimizers are
            registered then.

    Returns:
        The configuration.

    Raises:
        UsageError: for an unknown name, with the nearest ones; or for a function that does not return a configuration, or one
            with a part that is not registered.
    """
    if name in RECIPES:
        return RECIPES[name]()
    if not is_reference(name):
        raise UsageError(describe_unknown_recipe(name, RECIPES))
    module, _, function = name.partition(":")
    config = find_function(load_extension(module), function)()
    if not isinstance(config, Pretraining):
        raise UsageError(
            f"{name} returns {type(config).__name__}; a recipe is a Pretraining (crossdim.training.config.pretraining)"
        )
    check_readable(config, name)
    return config
