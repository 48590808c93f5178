"""The training loop in plain PyTorch. It knows neither Ray nor storage, and can be read in one sitting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from crossdim.foundation.counts import list_some
from crossdim.storage_schema.errors import StepError
from crossdim.training.config.execution import Execution
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.collate import Batch
from crossdim.training.engine.control import Request, StopControl
from crossdim.training.engine.execution import autocast, is_distributed, skip_gradient_sync, split_batches
from crossdim.training.engine.monitor import FeatureMonitor
from crossdim.training.engine.step_record import StepRecord, key_hash
from crossdim.training.engine.train_state import TrainState
from crossdim.training.methods.base import Step, StepOutput, total_of

#: Samples that an error names.
SHOWN_KEYS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """What the loop needs to know of a run.

    Attributes:
        total_steps: optimizer steps of the whole run.
        seed: of the draws that ranks share.
        learning_rate: of a step, by its number.
        execution: how a step is carried out.
        first_step: number of the first step to do: how many are done.
        clip_norm: largest gradient norm; None leaves gradients alone.
    """

    total_steps: int
    seed: int
    learning_rate: Callable[[int], float]
    execution: Execution
    first_step: int = 0
    clip_norm: float | None = None

    @classmethod
    def from_config(cls, config: Pretraining, first_step: int = 0) -> Schedule:
        """Take from a run's configuration what the loop needs.

        Args:
            config: of the run.
            first_step: how many steps are done.

        Returns:
            The schedule from ``first_step`` to the last step.
        """
        return cls(
            total_steps=config.steps,
            seed=config.seed,
            learning_rate=lambda step: config.optimizer.learning_rate(step, config.steps),
            execution=config.compute,
            first_step=first_step,
            clip_norm=config.clip_norm,
        )


class Hook(Protocol):
    """Something to do after each step, on every rank that has it."""

    def after_step(self, record: StepRecord, request: Request) -> None:
        """Called once the weights have moved.

        Args:
            record: the numbers of the step.
            request: what any rank was requested to do after it; the same on all ranks.
        """


def fit(
    state: TrainState,
    batches: Iterable[Sequence[Batch]],
    schedule: Schedule,
    hooks: Sequence[Hook] = (),
    control: StopControl | None = None,
    monitor: FeatureMonitor | None = None,
) -> Request:
    """Train to the last step, or until requested to stop.

    Args:
        state: what is trained; it is changed in place.
        batches: for each step from ``schedule.first_step`` on, this rank's batches: one of each stream.
        schedule: steps, seed, learning rate and settings of the step.
        hooks: called in this order after each step.
        control: where this rank's requests are taken from, once a step; None for a training that nobody stops.
        monitor: measures features after a step, and adds to what is logged of it.

    Returns:
        ``STOP`` if the run was requested to stop before its last step, else ``NOTHING``; the same on all ranks.

    Raises:
        StepError: when a loss or the gradient is not finite, with the terms and the sample keys.
    """
    state.module.train()
    started = left = time.perf_counter()
    for number, streams in enumerate(batches, schedule.first_step):
        waited = time.perf_counter() - started
        lr = _start_step(state.optimizer, schedule, number)
        sums = _compute_gradient(state, streams, schedule, number)
        _remove_gradients(state.method, sums.unused)
        norm = float(_clip_gradient(state.module, schedule.clip_norm or math.inf))
        request = control.take() if control else Request.NOTHING
        reduced = _reduce(sums, streams, state.module, sums.ready - left, request)
        left = time.perf_counter()
        _check_finite(number, reduced.losses, norm, streams)
        state.optimizer.step()
        state.update_average()
        reduced.monitors.update(monitor.measure(state, schedule.execution, number + 1) if monitor else {})
        record = reduced.record(number, lr, norm, streams, waited, time.perf_counter() - started)
        for hook in hooks:
            hook.after_step(record, reduced.request)
        if reduced.request is Request.STOP and number + 1 < schedule.total_steps:
            return Request.STOP
        started = time.perf_counter()
    return Request.NOTHING


def _start_step(optimizer: torch.optim.Optimizer, schedule: Schedule, number: int) -> float:
    """Set the learning rate of a step and remove gradients; returns the rate."""
    lr = schedule.learning_rate(number)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    return lr


@dataclass(kw_only=True, slots=True)
class Sums:
    """Named scalars of a step, as sums over its parts: of losses as they are minimised, of monitors as means of a stream.

    ``unused`` are the submodules that no part used, None before the first one. ``ready`` is when this rank began the backward
    pass in which it waits for the others.
    """

    losses: dict[str, torch.Tensor] = field(default_factory=dict)
    monitors: dict[str, torch.Tensor] = field(default_factory=dict)
    unused: frozenset[str] | None = None
    ready: float = 0.0

    def add(self, outcome: StepOutput, stream: str, share: float, streams: int) -> None:
        """Add the loss terms and monitors of one part of a stream.

        Args:
            outcome: of the part.
            stream: name of the stream, which begins the names of its terms.
            share: fraction of the stream's samples that the part holds.
            streams: number of streams in the step; losses of streams weigh equally.
        """
        for mine, terms, weight in ((self.losses, outcome.losses, share / streams), (self.monitors, outcome.monitors, share)):
            for name, value in terms.items():
                name = f"{stream}/{name}"
                mine[name] = mine.get(name, 0) + value.detach() * weight
        self.unused = outcome.unused if self.unused is None else self.unused & outcome.unused


def _compute_gradient(state: TrainState, batches: Sequence[Batch], schedule: Schedule, number: int) -> Sums:
    """Add up the gradient of a step, part by part; returns the step's numbers."""
    step = Step(index=number, total=schedule.total_steps, seed=schedule.seed)
    world = dist.get_world_size() if is_distributed(state.module) else 1
    parts, sums = list(split_batches(batches, schedule.execution.accumulate)), Sums()
    for part in parts:
        with skip_gradient_sync(state.module, last=part is parts[-1]):
            with autocast(schedule.execution, state.device):
                outcome: StepOutput = state.module(part.to(state.device), step)
            share = len(part.keys) / part.global_size
            sums.ready = time.perf_counter()
            # Streams weigh equally (ours; PCRLv2 has one). DDP averages over ranks, so a rank's mean is scaled by its share.
            torch.autograd.backward(total_of(outcome.losses) * (share / len(batches) * world))
        sums.add(outcome, part.stream, share, len(batches))
    return sums


def _remove_gradients(method: nn.Module, unused: frozenset[str] | None) -> None:
    """Take the gradients, which are 0, from submodules that the step did not use, so that the optimizer leaves them alone."""
    for name in unused or ():
        for parameter in method.get_submodule(name).parameters():
            parameter.grad = None


def _clip_gradient(module: nn.Module, max_norm: float) -> torch.Tensor:
    """Clip the gradient of all ranks together; returns its norm before that."""
    norm = nn.utils.clip_grad_norm_(module.parameters(), max_norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reduced:
    """The numbers of a step, summed over the ranks."""

    losses: dict[str, float]
    monitors: dict[str, float]
    samples: int
    voxels: int
    arrivals_s: list[float]
    request: Request

    def record(self, step: int, lr: float, norm: float, batches: Sequence[Batch], waited_s: float, spent_s: float) -> StepRecord:
        """Build the record of the step."""
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


def _reduce(sums: Sums, batches: Sequence[Batch], module: nn.Module, arrival_s: float, request: Request) -> _Reduced:
    """Sum the step's numbers and requests over the ranks; synchronises with the device once a step."""
    several = is_distributed(module)
    rank, world = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)
    scalars = torch.stack([*sums.losses.values(), *sums.monitors.values()]).double()
    arrivals = [arrival_s if number == rank else 0.0 for number in range(world)]  # summed, everybody's
    values = torch.cat([scalars, scalars.new_tensor(arrivals)])
    keys = sum(key_hash(key) for batch in batches for key in batch.keys) % 2**62
    voxels = sum(tensor.numel() for batch in batches if batch.keys for tensor in batch.tensors.values())
    counts = [keys, voxels, request >= Request.SAVE, request >= Request.STOP]
    counted = torch.tensor(counts, dtype=torch.int64, device=values.device)
    if several:
        dist.all_reduce(values)
        dist.all_reduce(counted)
    numbers, (samples, total, saves, stops) = values.tolist(), counted.tolist()
    return _Reduced(
        losses=dict(zip(sums.losses, numbers, strict=False)),
        monitors=dict(zip(sums.monitors, numbers[len(sums.losses) : len(scalars)], strict=True)),
        samples=samples % 2**62,
        voxels=total,
        arrivals_s=numbers[len(scalars) :],
        request=Request.STOP if stops else Request.SAVE if saves else Request.NOTHING,
    )


def _check_finite(number: int, losses: dict[str, float], norm: float, batches: Sequence[Batch]) -> None:
    if all(map(math.isfinite, losses.values())) and math.isfinite(norm):
        return
    damaged = [key for batch in batches for key in _find_not_finite(batch)]
    keys = damaged or [key for batch in batches for key in batch.keys]
    terms = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    remedy = "a lower optimizer.lr or a higher optimizer.warmup_steps and another --out"
    raise StepError(
        f"step {number}: loss or gradient is not finite ({terms}; gradient norm {norm:.4g}). If it fails there again, start "
        f"another run with {remedy}. Samples of this rank{' whose input is not finite' * bool(damaged)}: "
        f"{list_some(keys, SHOWN_KEYS)}"
    )


def _find_not_finite(batch: Batch) -> list[str]:
    """Keys of the samples of which some input is not finite."""
    finite_B = torch.ones(len(batch.keys), dtype=torch.bool)
    for tensor in batch.tensors.values():
        if tensor.is_floating_point() and len(tensor) == len(finite_B):
            finite_B &= tensor.reshape(len(tensor), -1).isfinite().all(dim=1).cpu()
    return [key for key, is_finite in zip(batch.keys, finite_B.tolist(), strict=True) if not is_finite]
