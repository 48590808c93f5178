"""Methods by name. A new method needs its module, a recipe, a test, and a line here."""

from __future__ import annotations

from crossdim.training.methods.autoencoders import Ae, Vae, VqVae
from crossdim.training.methods.base import MethodConfig
from crossdim.training.methods.cdssl_p3d import CdsslP3D
from crossdim.training.methods.crossd import CrossD
from crossdim.training.methods.crossd_supervised import CrossDSupervised
from crossdim.training.methods.maesil import Maesil

METHODS: dict[str, type[MethodConfig]] = {
    config.kind: config for config in (CdsslP3D, CrossD, CrossDSupervised, Maesil, Ae, Vae, VqVae)
}
