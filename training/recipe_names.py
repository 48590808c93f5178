"""The names of recipes of ``pretrain``, for help, which imports no torch."""

from __future__ import annotations

#: Every name in ``recipes.RECIPES``.
RECIPE_NAMES = (
    "cdssl-p3d",
    "cdssl-p3d:paper",
    "cdssl-p3d:tiny",
    "cross-d",
    "cross-d:tiny",
    "cross-d-supervised",
    "cross-d-supervised:tiny",
    "maesil",
    "maesil:small",
    "maesil:tiny",
    "maesil-crossdim:small",
    "ae:small",
    "ae:tiny",
    "vae:small",
    "vae:tiny",
    "vqvae:small",
    "vqvae:tiny",
)
