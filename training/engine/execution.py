"""Apply the settings of a step to a model and its batches: precision, layout, recomputation, accumulation, sharding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from crossdim.storage_schema.errors import UsageError
from crossdim.training.config.execution import Execution
from crossdim.training.data.collate import Batch
from crossdim.training.layers.recompute import enable_recomputation
from crossdim.training.layers.sync_batchnorm import convert_sync_batchnorm
from crossdim.training.methods.base import Method

#: Memory formats with channels last, by the number of axes of a kernel. One network may have kernels of both.
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def check_execution(execution: Execution, method: Method) -> None:
    """Check that a method can be computed with these settings; its weights may be on the meta device.

    Args:
        execution: settings of the step.
        method: what will be trained.

    Raises:
        UsageError: if the method has batch norms and is to be sharded: their running statistics would differ between ranks,
            and only those of one rank would be stored.
    """
    if execution.sharded and any(isinstance(layer, _BatchNorm) for layer in method.modules()):
        raise UsageError("compute.sharded cannot go with batch norm, whose statistics stay apart on each rank; use another norm")


def prepare(method: Method, execution: Execution, device: torch.device) -> Method:
    """Move a method to its device and apply the settings to it; names of weights do not change.

    Sets PyTorch's precision of float32 products for the whole process. What is still ``auto`` is float32 and not compiled: for a
    run its devices have chosen before.

    Args:
        method: freshly built, on the CPU; it is changed in place.
        execution: settings of the step.
        device: where to compute.

    Returns:
        The method: with synchronised batch norm, weights laid out with channels last, recomputing units, compiled networks and
        weights sharded over the ranks, each if asked for.

    Raises:
        UsageError: see :func:`check_execution`.
    """
    check_execution(execution, method)
    rounded = execution.precision in ("tf32", "bf16")
    torch.set_float32_matmul_precision("high" if rounded else "highest")
    torch.backends.cudnn.allow_tf32 = rounded
    if execution.sync_bn:
        method = convert_sync_batchnorm(method, device)
    for kernel in method.parameters() if execution.channels_last else ():
        if kernel.ndim in LAYOUTS:
            kernel.data = kernel.data.contiguous(memory_format=LAYOUTS[kernel.ndim])
    for unit in method.units() if execution.recompute else ():
        enable_recomputation(unit)
    for network in method.networks() if execution.compiled is True else ():
        network.compile()
    method = method.to(device)
    return _shard(method, device) if execution.sharded else method


def _shard(method: Method, device: torch.device) -> Method:
    """Shard weights over the ranks, in place: units first, and last the root, which takes what is in none of them."""
    if dist.is_initialized():
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for module in (*method.units(), method):
            fully_shard(module, mesh=mesh)
        register_fsdp_forward_method(method, "embed")  # it gathers weights as forward does
    return method


def distribute(method: Method, device: torch.device, *, static: bool = False) -> nn.Module:
    """Return the module whose gradients are averaged over the ranks, where there are several.

    Args:
        method: may be sharded over the ranks already; it then averages by itself.
        device: where it lies.
        static: whether every step is one forward and one backward pass of the same parameters.

    Returns:
        The method itself, or the method in ``DistributedDataParallel``.
    """
    if isinstance(method, FSDPModule) or not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return method
    device_ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(method, device_ids=device_ids, gradient_as_bucket_view=True, static_graph=static)


def is_distributed(module: nn.Module) -> bool:
    """Whether ranks train this module together."""
    return isinstance(module, DistributedDataParallel | FSDPModule)


def skip_gradient_sync(module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Return the context of a backward pass in which gradients are added up and not yet averaged over ranks.

    Args:
        module: see :func:`distribute`.
        last: whether this is the last backward pass of the step, after which gradients are averaged.

    Returns:
        A context manager for the backward pass.
    """
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    if last or not isinstance(module, DistributedDataParallel):
        return contextlib.nullcontext()
    context = module.no_sync()
    assert isinstance(context, AbstractContextManager)  # DDP's no_sync is untyped
    return context


def autocast(execution: Execution, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which networks run.

    Args:
        execution: settings of the step; precision ``bf16`` casts to bfloat16.
        device: where to compute.

    Returns:
        A context manager; one that does nothing in float32.
    """
    if execution.precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def split_batches(batches: Sequence[Batch], accumulate: int) -> Iterator[Batch]:
    """Split every batch into parts, one forward and backward pass each; all ranks make the same number of parts.

    Args:
        batches: this rank's batches of a step.
        accumulate: parts of a batch; fewer where the rank with the fewest samples has fewer.

    Yields:
        The parts, in order.
    """
    for batch in batches:
        count = max(1, min(accumulate, batch.least))
        for number in range(count):
            yield _slice(batch, number * len(batch.keys) // count, (number + 1) * len(batch.keys) // count)


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    if stop - start == len(batch.keys):
        return batch
    return replace(batch, keys=batch.keys[start:stop], tensors={name: t[start:stop] for name, t in batch.tensors.items()})


def build_average(method: Method, decay: float | None) -> AveragedModel | None:
    """Build the exponential moving average of a method's weights and buffers.

    Args:
        method: on its device.
        decay: of the average, between 0 and 1; None for no average.

    Returns:
        The average, which starts as a copy of the method; None for no average.
    """
    if decay is None:
        return None
    rule = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(method, multi_avg_fn=rule, use_buffers=True)
