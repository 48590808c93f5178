"""Activation checkpointing: a module saves only its input, and recomputes its activations in the backward pass.

Chen et al., Training deep nets with sublinear memory cost (arXiv 1604.06174); the mechanism is PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from crossdim.training.layers.dual_norm import STATISTICS

Module = TypeVar("Module", bound=nn.Module)


def enable_recomputation(module: Module) -> Module:
    """Make a module recompute its activations in the backward pass.

    Outputs, gradients and running statistics are the same, bit for bit: batch norms count a batch once. Names in the state
    stay as they are, because only the instance's ``forward`` changes; a deep copy recomputes too, with its own weights.

    Args:
        module: takes tensors by position; changed in place. Must not be called with other weights before its backward pass.

    Returns:
        The same module.
    """
    # Partials of bound methods: a deep copy binds them to the copied module, unlike closures.
    module.forward = partial(_uncompiled_checkpoint(), module, module.forward)
    return module


@cache
def _uncompiled_checkpoint() -> Callable[..., object]:
    """A compiled checkpoint takes no context, so it is not compiled; the module's computation may still be.

    Not a decorator of the function: ``torch.compiler`` imports TorchDynamo, a second that most processes can save.
    """
    wrapped: Callable[..., object] = torch.compiler.disable(_checkpoint, recursive=False)  # type: ignore[no-untyped-call]
    return wrapped


def _checkpoint(module: nn.Module, forward: Callable[..., object], *inputs: Tensor) -> object:
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, module))


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first pass and of the recomputation."""
    return nullcontext(), _preserve_statistics(module)


@contextmanager
def _preserve_statistics(module: nn.Module) -> Iterator[None]:
    """Discard all changes of batch-norm statistics inside of this context."""
    layers = [layer for layer in module.modules() if isinstance(layer, _NormBase) and layer.track_running_stats]
    kept = [(layer, name, getattr(layer, name)) for layer in layers for name in STATISTICS]
    for layer, name, statistic in kept:
        setattr(layer, name, statistic.clone())
    try:
        yield
    finally:
        for layer, name, statistic in kept:
            setattr(layer, name, statistic)
