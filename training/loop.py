"""The training step as plain PyTorch. It knows neither Ray nor storage, and can be read in one sitting."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from storage_schema.errors import RunError
from training.config import Pretraining
from training.data.collate import Batch
from training.methods.base import Method, Outcome, Step, total_of


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """What is known of one step after it, on every rank alike (times are this rank's).

    ``samples`` is a digest of the keys that all ranks together trained on: the sum of their 64-bit hashes, so neither
    their order nor the number of ranks shows in it.
    """

    step: int
    loss: float
    terms: dict[str, float]
    lr: float
    grad_norm: float
    counts: dict[str, int]
    samples: int
    wait_s: float
    step_s: float


def key_hash(key: str) -> int:
    """63 bits of a sample key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def wrapped(method: Method, device: torch.device) -> nn.Module:
    """The method as the loop calls it: with gradients averaged over ranks where there are several."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return method
    return DistributedDataParallel(method, device_ids=[device.index] if device.type == "cuda" else None)


def fit(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: Pretraining,
    steps: Iterable[Sequence[Batch]],
    first_step: int,
    device: torch.device,
    on_step: Callable[[StepRecord], None],
) -> None:
    """Train from ``first_step`` to the last.

    Args:
        module: the method, see :func:`wrapped`.
        optimizer: of its parameters.
        config: of the run.
        steps: for each step, this rank's batches.
        first_step: number of the first of them.
        device: where to compute.
        on_step: called after every step on every rank.

    Raises:
        RunError: when a loss is not finite, with the terms and the sample keys.
    """
    module.train()
    world = dist.get_world_size() if isinstance(module, DistributedDataParallel) else 1
    started = time.perf_counter()
    for number, batches in enumerate(steps, first_step):
        waited = time.perf_counter() - started
        step = Step(index=number, total=config.steps, seed=config.seed)
        lr = config.optimizer.rate(number, config.steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        terms = [
            _backward(module, batch.to(device), step, world, last=batch is batches[-1], streams=len(batches)) for batch in batches
        ]
        norm = nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm or math.inf)
        losses, samples = _agreed(terms, batches, module)
        _refuse_non_finite(number, losses, float(norm), batches)
        optimizer.step()
        on_step(
            StepRecord(
                step=number,
                loss=sum(losses.values()),
                terms=losses,
                lr=lr,
                grad_norm=float(norm),
                counts={name: count for b in batches for name, count in b.counts.items()},
                samples=samples,
                wait_s=waited,
                step_s=time.perf_counter() - started,
            )
        )
        started = time.perf_counter()


def _backward(module: nn.Module, batch: Batch, step: Step, world: int, *, last: bool, streams: int) -> dict[str, torch.Tensor]:
    """Gradient of one batch, and its terms as this rank's part of the global mean.

    Streams weigh equally (ours; PCRLv2 has one). Ranks are averaged by DDP, so a rank's mean is scaled by its share.
    """
    together = nullcontext() if last or not isinstance(module, DistributedDataParallel) else module.no_sync()
    share = len(batch.keys) / batch.global_size / streams
    with _entered(together):
        outcome: Outcome = module(batch, step)
        torch.autograd.backward(total_of(outcome.losses) * share * world)
    return {f"{batch.stream}/{name}": term.detach() * share for name, term in outcome.losses.items()}


def _entered(context: object) -> AbstractContextManager[None]:
    assert isinstance(context, AbstractContextManager)  # DDP's no_sync is untyped
    return context


def _agreed(
    terms: Sequence[dict[str, torch.Tensor]], batches: Sequence[Batch], module: nn.Module
) -> tuple[dict[str, float], int]:
    """Terms and sample digest summed over ranks; one synchronisation with the device a step."""
    named = {name: value for part in terms for name, value in part.items()}
    values = torch.stack(list(named.values())).double()
    keys = sum(key_hash(key) for batch in batches for key in batch.keys) % 2**62
    digest = torch.tensor([keys], dtype=torch.int64, device=values.device)
    if isinstance(module, DistributedDataParallel):
        dist.all_reduce(values)
        dist.all_reduce(digest)
    return dict(zip(named, values.tolist(), strict=True)), int(digest.item()) % 2**62


def _refuse_non_finite(number: int, losses: dict[str, float], norm: float, batches: Sequence[Batch]) -> None:
    if all(map(math.isfinite, losses.values())) and math.isfinite(norm):
        return
    keys = ", ".join(key for batch in batches for key in batch.keys)
    terms = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    raise RunError(
        f"step {number}: loss or gradient is not finite ({terms}; gradient norm {norm:.4g}). Samples of this rank: {keys}"
    )
