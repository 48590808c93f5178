"""Normalisation by name, and batch norm with one affine map and running statistics for each family of streams.

Statistics of two families of inputs kept apart: Xie et al., AdvProp (arXiv 1911.09665), who also double weight and bias.
Sharing those, so that every parameter takes part in every step, is ours.
Axes: B batch, C channel, D depth, H height, W width.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from crossdim.storage_schema.errors import RunError, unknown_name
from crossdim.storage_schema.vocabulary import Presentation

Norm = Literal["bn", "gn", "in", "dual_bn"]
NORMS: tuple[str, ...] = get_args(Norm)
#: Statistics that a batch norm keeps.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
FLAT, SOLID = 0, 1
#: Which row of the statistics a stream reads and updates.
ROWS = {str(presentation): FLAT if presentation.is_flat else SOLID for presentation in Presentation}


def normalisation(kind: Norm, channels: int) -> nn.Module:
    """The normalisation layer after a convolution, for (B, C, D, H, W)."""
    if kind == "bn":
        return nn.BatchNorm3d(channels)
    if kind == "dual_bn":
        return DualBatchNorm3d(channels)
    if kind == "gn":
        return nn.GroupNorm(math.gcd(8, channels), channels)  # 8 groups: code, PCRLv2
    return nn.InstanceNorm3d(channels, affine=True)


class DualBatchNorm3d(nn.Module):
    """Batch norm that keeps the running statistics of flat images and of solid volumes apart.

    In training mode the output is that of ``nn.BatchNorm3d``, bit for bit: statistics of the batch. What differs is which
    running averages a batch moves, and which are used in evaluation mode. The layer inside, ``norm``, is an ordinary batch
    norm that always holds the row in use, so whatever converts, resets or freezes batch norms does the right thing here.

    Attributes:
        running_mean: (2, C), rows flat and solid. The row in use is brought up to date when another is selected and
            when the state is saved; until then ``norm`` knows better.
        running_var: (2, C).
        num_batches_tracked: (2,).
        selected: the row in use, a scalar; part of the state, so that a run resumes as it was.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    selected: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm3d(channels)
        self.register_buffer("running_mean", torch.zeros(2, channels))
        self.register_buffer("running_var", torch.ones(2, channels))
        self.register_buffer("num_batches_tracked", torch.zeros(2, dtype=torch.long))
        self.register_buffer("selected", torch.tensor(FLAT))

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """The same shape."""
        normal: Tensor = self.norm(x_BCDHW)
        return normal

    @torch.no_grad()
    def select(self, row: int) -> None:
        """Put the statistics in use aside and use those of a row."""
        self._put_aside()
        self.selected.fill_(row)
        for name in STATISTICS:
            # A new tensor and no copy in place: a backward pass still to come may have saved the old one.
            setattr(self.norm, name, getattr(self, name)[row].clone())

    @torch.no_grad()
    def _put_aside(self) -> None:
        if self.selected.is_meta:
            return  # a network that is only described has no numbers to put aside
        for name in STATISTICS:
            getattr(self, name)[self.selected] = getattr(self.norm, name)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        self._put_aside()
        super()._save_to_state_dict(destination, prefix, keep_vars)


def select_statistics(module: nn.Module, stream: str) -> None:
    """From now on, every dual batch norm inside a module uses the running statistics of a stream's family.

    Args:
        module: changed in place; without dual batch norms nothing happens.
        stream: ``image`` or ``pseudo3d`` for flat statistics, ``superpatch`` for solid ones.

    Raises:
        RunError: if the stream mixes both families, or is unknown.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, DualBatchNorm3d)]
    if layers and stream == "joint":
        raise RunError("dual statistics need separate streams: a joint batch holds images and volumes. Use norm bn, gn or in")
    if layers and stream not in ROWS:
        raise RunError(unknown_name("stream", stream, ROWS))
    for layer in layers:
        layer.select(ROWS[stream])
