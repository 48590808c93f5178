"""Recipes of CDSSL-P3D, as functions that return a configuration."""

from __future__ import annotations

from crossdim.training.backbones.unet3d import UNet3DSettings
from crossdim.training.config.optimizers import Sgd
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.methods.cdssl_p3d import CdsslP3D
from crossdim.training.methods.cdssl_views import Views2D, Views3D


def paper() -> Pretraining:
    """PCRLv2's 3D recipe, since the network is 3D; batch 32 of each dimension, both in every step (ours).

    240 epochs of 623 LUNA scans x 16 crop pairs at batch 32 are 74,760 steps (code: PCRLv2 README, luna_train.txt).
    """
    return Pretraining(method=CdsslP3D(), steps=74_760, global_batch=64, optimizer=Sgd(lr=1e-3, momentum=0.9, weight_decay=1e-4))


def tiny() -> Pretraining:
    """The same at a size that two CPU cores train in a minute: all widths and sides are smaller, nothing is left out.

    PCRLv2's rate, with a warm-up, although a batch is 12 and not 64: by the linear rule it would be a fifth, which moves too
    little in a short run. At thirty times this rate features collapse (LOG.md, sweep of rates).
    """
    method = CdsslP3D(
        backbone=UNet3DSettings(base_width=4),
        flat=Views2D(global_side=64, local_side=32, hole_side=9),
        solid=Views3D(
            global_side=(16, 32, 32),
            local_side=(8, 8, 8),
            global_boxes=((32, 48, 48), (48, 48, 48), (32, 56, 56), (16, 32, 32)),
            local_boxes=((8, 16, 16), (8, 8, 8), (16, 16, 16), (4, 4, 4)),
        ),
    )
    optimizer = Sgd(lr=1e-3, momentum=0.9, weight_decay=1e-4, warmup_steps=6)
    return Pretraining(method=method, steps=60, global_batch=12, optimizer=optimizer)
