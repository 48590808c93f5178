"""A backend for workers on one machine, whose process group uses a store that listens on the loopback interface only.

PyTorch's store of a process group listens on all interfaces without authentication: whoever reaches it can end the run.
Ray has no setting for it, but lets a backend be replaced. Of Ray's internals, of the version that pyproject.toml names, this
uses the backend for PyTorch.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Any

import ray
import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend
from torch.distributed import TCPStore  # type: ignore[attr-defined]

LOOPBACK = "127.0.0.1"
#: In the process of rank 0: the socket that its store is to listen on.
_LISTENING: list[socket.socket] = []


def is_loopback(address: str) -> bool:
    """Whether a cluster whose head has this address, HOST:PORT, is of one machine, for no other reaches it."""
    return address.rpartition(":")[0] == LOOPBACK


class LoopbackTorchConfig(TorchConfig):
    """Ray's settings for PyTorch, for workers that are all on one machine."""

    @property
    def backend_cls(self) -> Any:
        """The backend that sets the process group up."""
        return LoopbackBackend


class LoopbackBackend(_TorchBackend):
    """Ray's backend for PyTorch, with a store that only this machine reaches."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Set the process group up in all workers.

        Args:
            worker_group: Ray's group of workers, all on this machine.
            backend_config: name of PyTorch's backend and ``timeout_s``.
        """
        worker_group.execute(_set_torch_distributed_env_vars)
        port = worker_group.execute_single(0, _listen)
        world = len(worker_group)
        group = (backend_config.backend, world, port, backend_config.timeout_s)
        ray.get([worker_group.execute_single_async(rank, _join, rank, *group) for rank in range(world)])


def _listen() -> int:
    """Open the socket of rank 0's store; its port."""
    _LISTENING[:] = [socket.create_server((LOOPBACK, 0))]
    port: int = _LISTENING[0].getsockname()[1]
    return port


def _join(rank: int, backend: str, world: int, port: int, timeout_s: float) -> None:
    """Meet the other workers."""
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")  # which NCCL would otherwise leave out
    timeout = timedelta(seconds=timeout_s)
    descriptor = _LISTENING.pop().detach() if rank == 0 else None
    store = TCPStore(LOOPBACK, port, world, is_master=rank == 0, timeout=timeout, master_listen_fd=descriptor)
    dist.init_process_group(backend=backend, store=store, rank=rank, world_size=world, timeout=timeout)
