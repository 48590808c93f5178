"""Recipes by name: ``method`` has the paper's size, ``method:variant`` another one."""

from __future__ import annotations

from collections.abc import Callable

from crossdim.storage_schema.errors import UsageError, describe_unknown_name
from crossdim.training.config.pretraining import Pretraining
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
    """The configuration of that name.

    Raises:
        UsageError: naming the nearest recipes.
    """
    if name not in RECIPES:
        raise UsageError(describe_unknown_name("recipe", name, RECIPES))
    return RECIPES[name]()
