"""Compute: how a step is carried out. It changes speed, memory and rounding, never what is minimised."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.modules.batchnorm import _BatchNorm

from crossdim.storage_schema.errors import RunError, UsageError, wrong_settings
from crossdim.training.data.collate import Batch
from crossdim.training.layers.recompute import enable_recomputation
from crossdim.training.layers.sync_batchnorm import convert_sync_batchnorm
from crossdim.training.methods.base import Method

#: Memory formats with channels last, by the number of axes of a kernel. One network may have kernels of both.
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """Switches of the step.

    Attributes:
        precision: ``bf16`` runs networks in bfloat16 by autocast; losses stay in float32, weights and gradients too. ``tf32``
            multiplies with 10 bits of mantissa, where the GPU can; ``fp32`` does not, whatever PyTorch's defaults are.
        accumulate: parts that a rank's batch is cut into, one after the other; batch norm sees one part at a time.
        recompute: keep only the borders of stages, and compute what lies between again in the backward pass.
        compiled: compile the networks with ``torch.compile``.
        channels_last: lay convolution weights out with channels last, in which 3D convolutions are faster.
        sync_bn: batch norm over the samples of all ranks.
        sharded: weights, gradients and the optimizer's state are cut over the ranks (FSDP2), for networks too large for one.
        ema: decay of a moving average of the weights, which then is what is kept of the run; None for the weights themselves.
    """

    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    accumulate: int = 1
    recompute: bool = False
    compiled: bool = False
    channels_last: bool = True
    sync_bn: bool = False
    sharded: bool = False
    ema: float | None = None

    def __post_init__(self) -> None:
        if found := wrong_settings(
            self,
            precision=self.precision in ("fp32", "tf32", "bf16"),
            accumulate=self.accumulate >= 1,
            ema=self.ema is None or 0 < self.ema < 1,
        ):
            message = "compute takes precision fp32, tf32 or bf16, accumulate of at least 1, ema between 0 and 1"
            raise RunError(f"{message}; found {found}")
        if self.sharded and self.ema is not None:
            raise RunError("a sharded run keeps no moving average; leave compute.ema or compute.sharded out")

    def refuse(self, method: Method) -> None:
        """Look whether a method can be computed so; its weights may be on the meta device.

        Raises:
            UsageError: if it has batch norms and is to be cut: running statistics would differ between ranks, and one be kept.
        """
        if self.sharded and any(isinstance(layer, _BatchNorm) for layer in method.modules()):
            raise UsageError(
                "compute.sharded cannot go with batch norm, whose statistics stay apart on each rank; use another norm"
            )

    def prepare(self, method: Method, device: torch.device) -> Method:
        """The method on its device, laid out, synchronised, recomputing, compiled and cut as asked; names of weights stay."""
        self.refuse(method)
        torch.set_float32_matmul_precision("highest" if self.precision == "fp32" else "high")
        torch.backends.cudnn.allow_tf32 = self.precision != "fp32"
        if self.sync_bn:
            method = convert_sync_batchnorm(method, device)
        for kernel in method.parameters() if self.channels_last else ():
            if kernel.ndim in LAYOUTS:
                kernel.data = kernel.data.contiguous(memory_format=LAYOUTS[kernel.ndim])
        for unit in method.units() if self.recompute else ():
            enable_recomputation(unit)
        for network in method.networks() if self.compiled else ():
            network.compile()
        method = method.to(device)
        return _cut(method, device) if self.sharded else method

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The context that networks run in."""
        if self.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def parts(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        """Every batch in as many parts as accumulate asks for, or as the rank with the fewest samples can: all ranks alike."""
        for batch in batches:
            count = max(1, min(self.accumulate, batch.least))
            for number in range(count):
                yield _part(batch, number * len(batch.keys) // count, (number + 1) * len(batch.keys) // count)

    def average(self, method: Method) -> torch.optim.swa_utils.AveragedModel | None:
        """The moving average of the method's weights and buffers, if there is to be one."""
        if self.ema is None:
            return None
        rule = torch.optim.swa_utils.get_ema_multi_avg_fn(self.ema)  # type: ignore[no-untyped-call]
        return torch.optim.swa_utils.AveragedModel(method, multi_avg_fn=rule, use_buffers=True)


def _cut(method: Method, device: torch.device) -> Method:
    """Cut weights over the ranks, in place: units first, and the root last, which takes what is in none of them."""
    if dist.is_initialized():
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for module in (*method.units(), method):
            fully_shard(module, mesh=mesh)
    return method


def _part(batch: Batch, start: int, stop: int) -> Batch:
    if stop - start == len(batch.keys):
        return batch
    return replace(batch, keys=batch.keys[start:stop], tensors={name: t[start:stop] for name, t in batch.tensors.items()})
