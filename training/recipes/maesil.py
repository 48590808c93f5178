"""Recipes of MAESIL and of its baselines, as functions that return a configuration.

A baseline's recipe is MAESIL's with another method: the same crops in the same order, optimizer, batch and steps.
"""

from __future__ import annotations

from dataclasses import replace

from crossdim.training.backbones.strided import StridedSettings
from crossdim.training.backbones.superpatch_vit import SuperpatchViTSettings
from crossdim.training.config.optimizers import AdamW
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.methods.autoencoders import Ae, Vae, VqVae
from crossdim.training.methods.base import MethodConfig
from crossdim.training.methods.maesil import Maesil
from crossdim.training.methods.masked_autoencoder import TokenDecoderSettings
from crossdim.training.methods.restoration import Crops

SMALL_CROPS = Crops(solid_side=64, flat_side=256)
TINY_CROPS = Crops(solid_side=32, flat_side=128)
SMALL_VIT = SuperpatchViTSettings(width=192, depth=4, heads=6, hidden=768)
SMALL_DECODER = TokenDecoderSettings(width=96, depth=2, heads=4, hidden=384)
#: About as many weights as the masked autoencoder of this size (ours).
SMALL_STRIDED = StridedSettings(widths=(16, 32, 64, 256))


def paper() -> Pretraining:
    """Superpatches of 128^3: 4,096 tokens, of which 1,024 are visible.

    Rate, decay, betas, batch, clipping and a warm-up over a tenth of the run: code, NEMESIS, configs/pretrain.yaml 53-64.
    That code counts its schedule in epochs and steps it every batch; ours is counted in steps, and ends at 0 instead of
    1e-6. 50 epochs of a dataset of unknown size became 100,000 steps (ours).
    """
    optimizer = AdamW(lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, warmup_steps=10_000)
    return Pretraining(method=Maesil(), steps=100_000, global_batch=4, optimizer=optimizer, clip_norm=1.0)


def _small(method: MethodConfig) -> Pretraining:
    optimizer = AdamW(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, warmup_steps=100)
    return Pretraining(method=method, steps=2000, global_batch=4, optimizer=optimizer, clip_norm=1.0)


def small() -> Pretraining:
    """Superpatches of 64^3: 512 tokens, of which 128 are visible; for two CPU cores."""
    return _small(Maesil(backbone=SMALL_VIT, decoder=SMALL_DECODER, crops=SMALL_CROPS))


def crossdim_small() -> Pretraining:
    """Images of 256^2, unrolled to (16, 64, 64), and superpatches of 64^3: 128 and 512 tokens, a quarter visible.

    Every step holds both (ours); with equal weights of the datasets, a batch of 8 has 4 of each.
    """
    return replace(small(), global_batch=8)


def ae_small() -> Pretraining:
    """The plain autoencoder in the setting of :func:`small`: 16 voxels per number."""
    return _small(Ae(backbone=SMALL_STRIDED, crops=SMALL_CROPS))


def vae_small() -> Pretraining:
    """The variational autoencoder in the setting of :func:`small`: 64 voxels per number."""
    return _small(Vae(backbone=SMALL_STRIDED, crops=SMALL_CROPS))


def vqvae_small() -> Pretraining:
    """The vector-quantised autoencoder in the setting of :func:`small`: 4,096 voxels per index of 512 entries."""
    return _small(VqVae(backbone=SMALL_STRIDED, crops=SMALL_CROPS))


def _tiny(method: MethodConfig) -> Pretraining:
    optimizer = AdamW(lr=3e-3, betas=(0.9, 0.95), weight_decay=0.05, warmup_steps=5)
    return Pretraining(method=method, steps=60, global_batch=8, optimizer=optimizer, clip_norm=1.0)


def tiny() -> Pretraining:
    """Superpatches of 32^3, 64 tokens of which 16 are visible: trains in a minute, with nothing left out."""
    vit = SuperpatchViTSettings(width=48, depth=2, heads=4, hidden=96)
    decoder = TokenDecoderSettings(width=24, depth=1, heads=2, hidden=48)
    return _tiny(Maesil(backbone=vit, decoder=decoder, crops=TINY_CROPS))


_TINY_STRIDED = StridedSettings(widths=(4, 8, 16))


def ae_tiny() -> Pretraining:
    """The plain autoencoder in the setting of :func:`tiny`."""
    return _tiny(Ae(backbone=_TINY_STRIDED, crops=TINY_CROPS))


def vae_tiny() -> Pretraining:
    """The variational autoencoder in the setting of :func:`tiny`."""
    return _tiny(Vae(backbone=_TINY_STRIDED, crops=TINY_CROPS, features=4))


def vqvae_tiny() -> Pretraining:
    """The vector-quantised autoencoder in the setting of :func:`tiny`."""
    return _tiny(VqVae(backbone=_TINY_STRIDED, crops=TINY_CROPS, features=4, entries=32))


#: Baselines of a size, by the crops that they share with MAESIL.
BASELINES = {SMALL_CROPS: (ae_small, vae_small, vqvae_small), TINY_CROPS: (ae_tiny, vae_tiny, vqvae_tiny)}
