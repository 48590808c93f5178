"""Copies this rank's parts to host memory before the weights change, so that they can be written while training goes on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


@torch.no_grad()
def snapshot(tensors: Mapping[str, Tensor], earlier: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Copy tensors to the host; no rank waits for another.

    A DTensor's copy is a DTensor of the same mesh and placements whose local part is on the CPU: ``write`` takes it, and
    computing with it is not meant.

    Args:
        tensors: plain tensors and DTensors by name.
        earlier: an earlier snapshot that nobody needs any more; its memory is used again where it fits.

    Returns:
        The copies by name; of CUDA tensors in pinned memory.
    """
    kept = earlier or {}
    copies = {name: _allocate(tensor, kept.get(name)) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        _local(copies[name]).copy_(_local(tensor), non_blocking=True)
    if any(tensor.is_cuda for tensor in tensors.values()):
        torch.cuda.current_stream().synchronize()  # copies are under way until then
    return copies


def size_bytes(tensor: Tensor) -> int:
    """The size in bytes of a tensor as a whole, wherever its parts are."""
    return tensor.numel() * tensor.element_size()


def _allocate(tensor: Tensor, kept: Tensor | None) -> Tensor:
    if kept is not None and _layout(kept) == _layout(tensor):
        return kept
    pinned = tensor.is_cuda and _local(tensor).numel() > 0
    return torch.empty_like(tensor, device="cpu", pin_memory=pinned, requires_grad=False)


def _layout(tensor: Tensor) -> tuple[object, ...]:
    sharding = (tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else ()
    return (tensor.shape, tensor.dtype, *sharding)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
