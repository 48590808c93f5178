"""Batch-norm statistics of the data at hand.

A run that alternates images and volumes keeps one running average over both streams, which fits neither. Before an encoder
is evaluated on a dataset, its statistics are recomputed from the inputs of that dataset, without labels, and likewise those
of the baselines.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def recompute_statistics(
    module: Module, call: Callable[[Module], Callable[[Tensor], object]], batches: Iterable[Tensor]
) -> Module:
    """Copy a module and replace its batch-norm statistics by those of ``batches``; nothing else of the copy is in training mode.

    Args:
        module: left as it is.
        call: which function of the copy is called with the batches.
        batches: inputs, of at least two samples each.

    Returns:
        The copy, in evaluation mode.
    """
    fresh = copy.deepcopy(module).eval()  # the rest too, such as dropout, which would draw from PyTorch's generator
    norms = [layer for layer in fresh.modules() if isinstance(layer, _BatchNorm)]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
        layer.train()
    forward = call(fresh)
    for x in batches:
        forward(x)
    return fresh.eval()
