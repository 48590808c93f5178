"""Snapshot: a copy of a run's state in host memory, made before the weights move on, so that it can be written meanwhile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class HostCopy:
    """Copies trees of tensors into memory that it keeps for the next copy; pinned where they come from a GPU.

    A copy lasts until the next one is made: whoever writes it must be done by then.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], Tensor] = {}

    def __call__(self, tree: Any) -> Any:
        """The same tree, with every tensor copied."""
        copy = self._copied(tree, ())
        if any(tensor.is_pinned() for tensor in self._kept.values()):
            torch.cuda.synchronize()  # copies from a GPU are under way until then
        return copy

    def _copied(self, tree: Any, path: tuple[object, ...]) -> Any:
        if isinstance(tree, Tensor):
            return self._buffer(tree, path).copy_(tree.detach(), non_blocking=True)
        if isinstance(tree, dict):
            return {name: self._copied(value, (*path, name)) for name, value in tree.items()}
        if isinstance(tree, list):
            return [self._copied(value, (*path, number)) for number, value in enumerate(tree)]
        return tree

    def _buffer(self, tensor: Tensor, path: tuple[object, ...]) -> Tensor:
        kept = self._kept.get(path)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            self._kept[path] = kept = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        return kept
