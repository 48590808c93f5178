"""The training step as plain PyTorch. It knows neither Ray nor storage, and can be read in one sitting."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from crossdim.storage_schema.errors import StepError
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.collate import Batch
from crossdim.training.engine.control import Ask
from crossdim.training.engine.execution import Compute
from crossdim.training.methods.base import Method, Step, StepOutput, total_of


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """What is known of one step after it, on every rank alike (times are this rank's).

    Attributes:
        terms: loss terms as they are summed, by stream.
        monitors: what the method watches, by stream.
        counts: samples by presentation: the mix that was realised.
        samples: a digest of the keys that all ranks together trained on: the sum of their 63-bit hashes, so neither their
            order nor the number of ranks shows in it.
        voxels: numbers in all views of all ranks; where views are made on the device, in what they are made from.
        wait_s: how long this rank waited for data.
        step_s: waiting included.
        skew_s: between the first and the last rank that came to where ranks wait for one another, on the same start: what the
            others lost to the last. Of a GPU it is the time until work was handed to it, which shows late data, not slow kernels.
            Ranks that wait for one another in the forward pass already (sharded weights, synchronised norms) show less of it.
        slowest: the rank that came last.
    """

    step: int
    loss: float
    terms: dict[str, float]
    monitors: dict[str, float]
    lr: float
    grad_norm: float
    counts: dict[str, int]
    samples: int
    voxels: int
    wait_s: float
    step_s: float
    skew_s: float
    slowest: int

    @property
    def rates(self) -> dict[str, float]:
        """Samples and voxels a second, of all ranks together."""
        return {"samples_per_s": sum(self.counts.values()) / self.step_s, "voxels_per_s": self.voxels / self.step_s}


def key_hash(key: str) -> int:
    """63 bits of a sample key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def wrapped(method: Method, device: torch.device, *, static: bool = False) -> nn.Module:
    """The method as the loop calls it: with gradients averaged over ranks where there are several.

    Args:
        method: which may be cut over the ranks already, and averages by itself then.
        device: where it lies.
        static: whether every step is one forward and one backward pass of the same parameters.
    """
    if isinstance(method, FSDPModule) or not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return method
    place = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(method, device_ids=place, gradient_as_bucket_view=True, static_graph=static)


def _together(module: nn.Module) -> bool:
    """Whether ranks train this module together."""
    return isinstance(module, DistributedDataParallel | FSDPModule)


def fit(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: Pretraining,
    steps: Iterable[Sequence[Batch]],
    first_step: int,
    device: torch.device,
    on_step: Callable[[StepRecord, Ask], None],
    after_update: Callable[[], None] = lambda: None,
    asked: Callable[[], Ask] = lambda: Ask.NOTHING,
) -> Ask:
    """Train from ``first_step`` to the last, or until asked to stop.

    Args:
        module: the method, see :func:`wrapped`.
        optimizer: of its parameters.
        config: of the run.
        steps: for each step, this rank's batches.
        first_step: number of the first of them.
        device: where to compute.
        on_step: called after every step on every rank, with what any rank was asked to do after it.
        after_update: called when weights have moved; a moving average goes here.
        asked: what this rank is asked, once a step.

    Returns:
        Whether it was asked to stop; alike on all ranks.

    Raises:
        StepError: when a loss is not finite, with the terms and the sample keys.
    """
    module.train()
    started = left = time.perf_counter()
    for number, batches in enumerate(steps, first_step):
        waited = time.perf_counter() - started
        step = Step(index=number, total=config.steps, seed=config.seed)
        lr = _prepared(optimizer, config, number)
        sums = _gradient(module, batches, step, config.compute, device)
        norm = float(_clipped(module, config.clip_norm or math.inf))
        agreed = _agreed(sums, batches, module, sums.ready - left, asked())
        left = time.perf_counter()
        _refuse_non_finite(number, agreed.losses, norm, batches)
        optimizer.step()
        after_update()
        on_step(agreed.record(number, lr, norm, batches, waited, time.perf_counter() - started), agreed.ask)
        if agreed.ask is Ask.STOP and number + 1 < config.steps:
            return Ask.STOP
        started = time.perf_counter()
    return Ask.NOTHING


def _prepared(optimizer: torch.optim.Optimizer, config: Pretraining, number: int) -> float:
    """The optimizer at a step's rate, without gradients; the rate."""
    lr = config.optimizer.rate(number, config.steps)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    return lr


@dataclass(kw_only=True, slots=True)
class Sums:
    """Named scalars of a step, as sums over its parts: of losses as they are minimised, of monitors as means of a stream.

    ``ready`` is when this rank began the backward pass in which it waits for the others.
    """

    losses: dict[str, torch.Tensor] = field(default_factory=dict)
    monitors: dict[str, torch.Tensor] = field(default_factory=dict)
    ready: float = 0.0

    def add(self, outcome: StepOutput, stream: str, share: float, streams: int) -> None:
        """One part of a stream, which holds ``share`` of its samples."""
        for mine, terms, weight in ((self.losses, outcome.losses, share / streams), (self.monitors, outcome.monitors, share)):
            for name, value in terms.items():
                name = f"{stream}/{name}"
                mine[name] = mine.get(name, 0) + value.detach() * weight


def _gradient(module: nn.Module, batches: Sequence[Batch], step: Step, compute: Compute, device: torch.device) -> Sums:
    """Add up the gradient of a step, part by part; the step's numbers."""
    world = dist.get_world_size() if _together(module) else 1
    parts, sums = list(compute.parts(batches)), Sums()
    for part in parts:
        with _unsynchronised(module, last=part is parts[-1]):
            with compute.autocast(device):
                outcome: StepOutput = module(part.to(device), step)
            share = len(part.keys) / part.global_size
            sums.ready = time.perf_counter()
            # Streams weigh equally (ours; PCRLv2 has one). DDP averages over ranks, so a rank's mean is scaled by its share.
            torch.autograd.backward(total_of(outcome.losses) * (share / len(batches) * world))
        sums.add(outcome, part.stream, share, len(batches))
    return sums


def _clipped(module: nn.Module, largest: float) -> torch.Tensor:
    """Clip the gradient of all ranks together; its norm before."""
    norm = nn.utils.clip_grad_norm_(module.parameters(), largest)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _unsynchronised(module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Where gradients are added up and not yet averaged over ranks."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    if last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    context = module.no_sync()
    assert isinstance(context, AbstractContextManager)  # DDP's no_sync is untyped
    return context


@dataclass(frozen=True, kw_only=True, slots=True)
class _Agreed:
    losses: dict[str, float]
    monitors: dict[str, float]
    samples: int
    voxels: int
    arrivals_s: list[float]
    ask: Ask

    def record(self, step: int, lr: float, norm: float, batches: Sequence[Batch], waited_s: float, spent_s: float) -> StepRecord:
        """The step as it is noted."""
        last = max(self.arrivals_s)
        return StepRecord(
            step=step,
            loss=sum(self.losses.values()),
            terms=self.losses,
            monitors=self.monitors,
            lr=lr,
            grad_norm=norm,
            counts={name: count for batch in batches for name, count in batch.counts.items()},
            samples=self.samples,
            voxels=self.voxels,
            wait_s=waited_s,
            step_s=spent_s,
            skew_s=last - min(self.arrivals_s),
            slowest=self.arrivals_s.index(last),
        )


def _agreed(sums: Sums, batches: Sequence[Batch], module: nn.Module, arrival_s: float, ask: Ask) -> _Agreed:
    """The step's numbers summed over ranks, and what any of them was asked; one synchronisation with the device a step."""
    several = _together(module)
    rank, world = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)
    scalars = torch.stack([*sums.losses.values(), *sums.monitors.values()]).double()
    arrivals = [arrival_s if number == rank else 0.0 for number in range(world)]  # summed, everybody's
    values = torch.cat([scalars, scalars.new_tensor(arrivals)])
    keys = sum(key_hash(key) for batch in batches for key in batch.keys) % 2**62
    voxels = sum(tensor.numel() for batch in batches if batch.keys for tensor in batch.tensors.values())
    counts = [keys, voxels, ask >= Ask.SAVE, ask >= Ask.STOP]
    counted = torch.tensor(counts, dtype=torch.int64, device=values.device)
    if several:
        dist.all_reduce(values)
        dist.all_reduce(counted)
    numbers, (samples, total, saves, stops) = values.tolist(), counted.tolist()
    return _Agreed(
        losses=dict(zip(sums.losses, numbers, strict=False)),
        monitors=dict(zip(sums.monitors, numbers[len(sums.losses) : len(scalars)], strict=True)),
        samples=samples % 2**62,
        voxels=total,
        arrivals_s=numbers[len(scalars) :],
        ask=Ask.STOP if stops else Ask.SAVE if saves else Ask.NOTHING,
    )


def _refuse_non_finite(number: int, losses: dict[str, float], norm: float, batches: Sequence[Batch]) -> None:
    if all(map(math.isfinite, losses.values())) and math.isfinite(norm):
        return
    keys = ", ".join(key for batch in batches for key in batch.keys)
    terms = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    raise StepError(
        f"step {number}: loss or gradient is not finite ({terms}; gradient norm {norm:.4g}). Samples of this rank: {keys}"
    )
