"""Batch norm over the samples of all ranks, so that a step does not depend on which rank has which sample.

On CUDA it is PyTorch's SyncBatchNorm. That does not support other devices, for which moments are summed here.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

Module = TypeVar("Module", bound=nn.Module)


def convert_sync_batchnorm(module: Module, device: torch.device) -> Module:
    """Convert every batch norm of a module to a synchronised one; names of weights stay as they are.

    Args:
        module: changed in place, unless it is a batch norm itself.
        device: that the module will be on.

    Returns:
        The converted module.
    """
    if device.type == "cuda":
        converted: Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return converted
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, _BatchNorm) and not isinstance(layer, SummedBatchNorm):
                setattr(parent, name, SummedBatchNorm.of(layer))
    return module


class SummedBatchNorm(_BatchNorm):
    """Batch norm whose mean and variance are computed from sums over all ranks; plain batch norm if there is one rank."""

    @classmethod
    def of(cls, layer: _BatchNorm) -> SummedBatchNorm:
        """The synchronised form of a layer, sharing its tensors."""
        new = cls(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        new._parameters, new._buffers, new.training = layer._parameters, layer._buffers, layer.training
        return new

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...); B may differ between ranks and may be 0."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        axes = [0, *range(2, x.ndim)]
        # Moments in float64: the difference of two large sums is small.
        wide = x.double()
        count = wide.new_full((1,), x.numel() / max(1, x.shape[1]))
        sums = all_reduce(torch.cat([count, wide.sum(axes), wide.square().sum(axes)]))  # type: ignore[no-untyped-call]
        total, first, second = sums[0], sums[1 : 1 + x.shape[1]], sums[1 + x.shape[1] :]
        mean = first / total
        variance = (second / total - mean.square()).clamp_min(0)
        self._remember(mean.detach(), variance.detach() * total.detach() / (total.detach() - 1))
        shape = (1, -1, *[1] * (x.ndim - 2))
        normal = (wide - mean.view(shape)) * (variance.view(shape) + self.eps).rsqrt()
        y: Tensor = normal * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, unbiased: Tensor) -> None:
        """Update running statistics, as batch norm does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)
