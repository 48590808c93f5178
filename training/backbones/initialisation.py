"""Initialisation of transformers. Source: ViT and Swin alike."""

from __future__ import annotations

from torch import nn


def initialise_small_normal(module: nn.Module) -> None:
    """Kernels and matrices from a normal distribution of deviation 0.02, truncated at 2; biases zero. For ``Module.apply``."""
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
