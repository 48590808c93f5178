"""What the laboratory adds, and its recipe, named ``net_lab.recipes:slim`` on the command line."""

from __future__ import annotations

from crossdim.training.config.pretraining import Pretraining
from crossdim.training.methods.restoration import Crops
from net_lab.gamma_restoration import GammaRestoration
from net_lab.slim import SlimSettings

METHODS = (GammaRestoration,)
BACKBONES = (SlimSettings,)


def slim() -> Pretraining:
    method = GammaRestoration(backbone=SlimSettings(), crops=Crops(solid_side=16, flat_side=32))
    return Pretraining(method=method, steps=4, global_batch=4)


def plain() -> Pretraining:
    """Of crossdim's own parts alone."""
    from crossdim.training.recipes.maesil import ae_tiny

    return ae_tiny()


def no_recipe() -> str:
    return "nothing"
