"""Recipes of Cross-D: hybrid self-supervision, and supervised pretraining as published."""

from __future__ import annotations

from crossdim.training.backbones.resnet import ResNetSettings
from crossdim.training.config.optimizers import AdamW, Sgd
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.methods.crossd import CrossD
from crossdim.training.methods.crossd_supervised import CrossDSupervised
from crossdim.training.methods.sample_views import ImageViews, SampleViews, VolumeViews

TINY_VIEWS = SampleViews(
    flat=ImageViews(side=64, area=(0.2, 1.0)),
    solid=VolumeViews(side=(32, 32, 32), boxes=((32, 48, 48), (48, 48, 48), (32, 32, 32))),
)
TINY_RESNET = ResNetSettings(base_width=8)


def hybrid() -> Pretraining:
    """ResNet-18 on images and volumes together; all numbers are ours, or SimSiam's where it has one (lr 0.05 at batch 256)."""
    return Pretraining(method=CrossD(), steps=100_000, global_batch=128, optimizer=Sgd(lr=0.025, momentum=0.9, weight_decay=1e-4))


def hybrid_tiny() -> Pretraining:
    """The same at a size that two CPU cores train in minutes."""
    method = CrossD(backbone=TINY_RESNET, views=TINY_VIEWS, projection=64, bottleneck=16)
    return Pretraining(method=method, steps=400, global_batch=16, optimizer=Sgd(lr=0.025, momentum=0.9, weight_decay=1e-4))


def supervised() -> Pretraining:
    """As published: AdamW at 1e-3 and decay 0.01, batch 256; steps and the cosine are ours (90 epochs with three drops there).

    The classes are all labels of the datasets; ``--set method.classes='["ap", "pa"]'`` names some.
    """
    return Pretraining(
        method=CrossDSupervised(),
        steps=100_000,
        global_batch=256,
        optimizer=AdamW(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01),
    )


def supervised_tiny() -> Pretraining:
    """The same at the size of the tiny hybrid."""
    method = CrossDSupervised(backbone=TINY_RESNET, views=TINY_VIEWS)
    return Pretraining(method=method, steps=400, global_batch=16, optimizer=AdamW(lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01))
