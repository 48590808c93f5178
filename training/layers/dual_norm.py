"""Normalisation by name, and batch norm with separate running statistics for images and for volumes.

Separate statistics of two kinds of inputs: Xie et al., AdvProp (arXiv 1911.09665), who also duplicate weight and bias.
Sharing those, so that every parameter takes part in every step, is ours. Axes: B batch, C channel, D depth, H height, W
width.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from crossdim.storage_schema.errors import RunError, describe_unknown_name
from crossdim.storage_schema.vocabulary import Presentation

Norm = Literal["bn", "gn", "in", "dual_bn"]
NORMS: tuple[str, ...] = get_args(Norm)
#: Statistics that a batch norm keeps.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
ROW_2D, ROW_3D = 0, 1
#: Row of the statistics that a stream uses and updates.
ROWS = {str(presentation): ROW_2D if presentation.is_2d else ROW_3D for presentation in Presentation}


def build_norm(kind: Norm, channels: int) -> nn.Module:
    """Build the normalisation layer after a convolution.

    Args:
        kind: name of the norm.
        channels: C.

    Returns:
        A module, (B, C, D, H, W) -> (B, C, D, H, W).
    """
    if kind == "bn":
        return nn.BatchNorm3d(channels)
    if kind == "dual_bn":
        return DualBatchNorm3d(channels)
    if kind == "gn":
        return nn.GroupNorm(math.gcd(8, channels), channels)  # 8 groups: code, PCRLv2
    return nn.InstanceNorm3d(channels, affine=True)


class DualBatchNorm3d(nn.Module):
    """Batch norm with separate running statistics for images and for volumes.

    In training mode the output is that of ``nn.BatchNorm3d``, bit for bit: statistics of the batch. The difference is which
    running averages a batch updates, and which are used in evaluation mode. The inner layer ``norm`` is an ordinary batch
    norm that always holds the row in use, so whatever converts, resets or freezes batch norms works here too.

    Attributes:
        running_mean: (2, C), rows for images and for volumes. The row in use is updated when another one is selected and
            when the state is saved; until then ``norm`` has the current values.
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
        self.register_buffer("selected", torch.tensor(ROW_2D))

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """The same shape."""
        normal: Tensor = self.norm(x_BCDHW)
        return normal

    @torch.no_grad()
    def select(self, row: int) -> None:
        """Store the statistics in use and use those of a row."""
        self._store_selected()
        self.selected.fill_(row)
        for name in STATISTICS:
            # A new tensor and not an in-place copy: a pending backward pass may have saved the old one.
            setattr(self.norm, name, getattr(self, name)[row].clone())

    @torch.no_grad()
    def _store_selected(self) -> None:
        if self.selected.is_meta:
            return  # a network on the meta device has no values to store
        for name in STATISTICS:
            getattr(self, name)[self.selected] = getattr(self.norm, name)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        self._store_selected()
        super()._save_to_state_dict(destination, prefix, keep_vars)


def select_statistics(module: nn.Module, stream: str) -> None:
    """Make every dual batch norm in a module use the running statistics of a stream.

    Args:
        module: changed in place; without dual batch norms nothing happens.
        stream: ``image`` or ``pseudo3d`` for statistics of images, ``superpatch`` for those of volumes.

    Raises:
        RunError: if the stream mixes images and volumes, or is unknown.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, DualBatchNorm3d)]
    if layers and stream == "joint":
        raise RunError("dual statistics need separate streams: a joint batch holds images and volumes. Use norm bn, gn or in")
    if layers and stream not in ROWS:
        raise RunError(describe_unknown_name("stream", stream, ROWS))
    for layer in layers:
        layer.select(ROWS[stream])
