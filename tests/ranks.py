"""Runs a function on several ranks: processes of one gloo group.

The ranks are forked from a server that has imported PyTorch once (spawned ones spend their time on imports), and they end without
taking the interpreter down. A process that does take it down now and then aborts: DTensor's caches keep the process group, and
its threads may then be releasing a tensor (PyTorch 2.13, 4 of 300 processes, "terminate called without an active exception").
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

#: What most ranks need; a module is imported before the first rank starts, or by each rank that needs it.
PRELOADED = ["torch.distributed.tensor", "torch.distributed.checkpoint", "crossdim.training.launch.worker", "pytest"]


def run_on_ranks(world: int, work: Callable[..., None], *args: Any) -> None:
    """Call ``work(rank, world, *args)`` in ``world`` processes of one gloo group, each with one thread, and wait for them.

    Args:
        world: number of processes.
        work: function of a module; not a closure.
        args: what it is called with beside rank and world size; pickled.

    Raises:
        ProcessRaisedException: if it raised on a rank; with that rank's traceback.
        ProcessExitedException: if a rank ended otherwise.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _process, args=(world, f"file://{folder}/rendezvous", work, args), nprocs=world, start_method="forkserver"
        )


def _process(rank: int, world: int, rendezvous: str, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world)
    work(rank, world, *args)
    dist.destroy_process_group()
