"""Finds the devices that a run may use: those of this machine, or of each machine of the cluster that it joins."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence

import torch

from crossdim.foundation.cluster import ray_session
from crossdim.foundation.extras import is_found
from crossdim.training.config.device_choice import CPU, Device

_LOG = logging.getLogger(__name__)
#: Triton, which ``torch.compile`` needs, has code for GPUs from this capability on (Volta).
TRITON_CAPABILITY = (7, 0)
#: Machines of a cluster import PyTorch before they answer.
PATIENCE_S = 60.0
#: Hidden from workers of Ray that ask for no GPU.
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def find_devices(address: str | None, *, use_gpu: bool, joins: bool, needed: bool) -> Sequence[Device]:
    """Find the devices that a run may use, one of each kind.

    Args:
        address: of the cluster that the run joins.
        use_gpu: whether workers have GPUs.
        joins: whether the run joins a cluster, and does not train on this machine alone.
        needed: whether anything depends on them; a cluster is asked only then.

    Returns:
        The devices; none if a machine of the cluster could not be asked, or none with a GPU is there yet.
    """
    if not use_gpu:
        return (CPU,)
    if not joins:
        return list_gpus()
    return _ask_cluster(address) if needed else ()


def list_gpus() -> Sequence[Device]:
    """List the GPUs of this machine, one of each kind."""
    numbers = range(torch.cuda.device_count())
    return tuple(dict.fromkeys(_read_gpu(number) for number in numbers))


def _read_gpu(number: int) -> Device:
    """Read what a GPU can do; a compiler is needed for the programs that start Triton's kernels."""
    has_compiler = any(map(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang"))))
    recent = torch.cuda.get_device_capability(number) >= TRITON_CAPABILITY
    with torch.cuda.device(number):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Device(name=torch.cuda.get_device_name(number), bf16=bf16, compiles=recent and has_compiler and is_found("triton"))


def _list_hidden_gpus() -> Sequence[Device]:
    """List the GPUs of the machine of a worker of Ray that asked for none, so that it need not wait for them."""
    os.environ.pop(VISIBLE_GPUS, None)
    return list_gpus()


def _ask_cluster(address: str | None) -> Sequence[Device]:
    with ray_session(address):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        known = ray.nodes()  # type: ignore[no-untyped-call]
        nodes = [node["NodeID"] for node in known if node["Alive"] and node["Resources"].get("GPU")]
        # The process ends after the call, for it has changed what it sees.
        ask = ray.remote(num_cpus=0, num_gpus=0, max_calls=1, max_retries=0)(_list_hidden_gpus)
        there = [ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes]
        answered, silent = ray.wait(there, num_returns=len(there), timeout=PATIENCE_S) if there else ([], [])
        found = [] if silent else ray.get(answered)
    if not found or not all(found):
        _LOG.info("%d of %d machines with GPUs told what their GPUs can do", len(list(filter(None, found))), len(nodes))
        return ()
    return tuple(dict.fromkeys(device for devices in found for device in devices))
