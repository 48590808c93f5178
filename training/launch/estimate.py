"""Measures a few steps of a run in this process, from which ``run_plan`` says what it will take. It writes nothing.

A step's time and what its backward pass keeps are measured at the share of rank 0 of the most workers, and taken to grow with
the samples of a worker. Sizes are those of this run's own weights and state. Waiting for data
is understated: two steps are fetched ahead, which is much of a probe. What a step keeps may depend on what it draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn

from crossdim.foundation.usage import Usage, measure_peak_bytes, measure_usage
from crossdim.training.backbones import serialise_encoder
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.collate import Batch
from crossdim.training.data.dataset import PublishedDataset
from crossdim.training.data.loader import Loading, step_batches
from crossdim.training.engine.control import Request
from crossdim.training.engine.loop import Schedule, fit
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.engine.train_state import TrainState
from crossdim.training.launch.worker import DatasetViews, build_encoder_spec, build_identity, build_order
from crossdim.training.methods.base import Method, Step, StepOutput
from crossdim.training.run_dir.checkpoint_state import serialise_state
from crossdim.training.run_dir.resume import capture

#: Measured steps, at least; those of one cycle of the mixture go before them to warm up.
MEASURED = 3
#: Largest number of steps; of a mixture with a longer cycle only the beginning is measured.
LONGEST = 16


class MeasuredMethod(nn.Module):
    """Measures the forward passes of a method: how many samples, and how many bytes are kept for the backward pass."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.samples, self.kept_bytes = 0, 0

    def forward(self, batch: Batch, step: Step) -> StepOutput:
        """Call the method with one part of a step, and measure it.

        Parts follow one another, each with its backward pass, so the largest is what is needed.

        Args:
            batch: the part.
            step: of the run.

        Returns:
            The method's output, unchanged.
        """
        kept: dict[int, int] = {}
        weights = {p.untyped_storage().data_ptr() for p in self.method.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outcome: StepOutput = self.method(batch, step)
        self.samples += len(batch.keys)
        self.kept_bytes = max(self.kept_bytes, sum(kept.values()))
        return outcome


class _Records:
    """A hook that keeps the record of each step."""

    def __init__(self) -> None:
        self.found: list[StepRecord] = []

    def after_step(self, record: StepRecord, request: Request) -> None:
        """Keep the record."""
        self.found.append(record)


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What was measured as rank 0 of ``world``; times are means of ``steps`` steps, after those that warm up.

    Attributes:
        samples: of this rank in a step.
        kept_bytes: of what the backward pass of this rank's largest part needs, weights left out.
        fixed_bytes: what a worker holds whatever its samples, by name; if ``sharded``, what all workers hold together.
        stored_bytes: of the files of a checkpoint, by name.
        cpu_step_s: of processors, for a step.
        start_s: what comes before the first step, and what the first steps take longer than the others.
        save_s: for a checkpoint, without writing it to the store.
        host_bytes: the most that this process held.
        device_bytes: the most that was held on the GPU; 0 without one.
    """

    device: str
    world: int
    steps: int
    samples: float
    step_s: float
    wait_s: float
    kept_bytes: int
    fixed_bytes: dict[str, int]
    stored_bytes: dict[str, int]
    sharded: bool = False
    cpu_step_s: float = 0.0
    start_s: float = 0.0
    save_s: float = 0.0
    host_bytes: int = 0
    device_bytes: int = 0


def probe(
    config: Pretraining,
    datasets: Sequence[PublishedDataset],
    weights: Sequence[float],
    world: int,
    device: torch.device,
    threads: int,
    begun: Usage,
) -> Probe:
    """Measure the first steps of a run, as rank 0 of ``world`` would do them.

    Args:
        config: of the run.
        datasets: of the run.
        weights: of the datasets in the mixture.
        world: how many workers share a step.
        device: where to compute.
        threads: that read samples and draw views.
        begun: seconds so far when the command began.

    Returns:
        Times, sizes and numbers of samples, see :class:`Probe`.
    """
    train_state = TrainState.build(config, device)
    # Blocks hold what single steps hold, in longer rows: a few steps of the latter see every dataset.
    mixing = replace(config.mixing, mode="ratio") if config.mixing.mode == "block" else config.mixing
    order, batch = build_order(replace(config, mixing=mixing), datasets, weights), config.global_batch
    cycle = lcm(batch, order.period) // batch
    steps = min(config.steps, LONGEST, cycle + -(-MEASURED // cycle) * cycle)
    loading = Loading(order=order, global_batch=batch, rank=0, world=world, joint=config.mixing.mode == "joint", threads=threads)
    batches = step_batches(loading, datasets, DatasetViews(config, datasets), 0, steps * batch)
    measured, records = MeasuredMethod(train_state.method), _Records()
    before = measure_usage()
    fit(replace(train_state, module=measured), batches, Schedule.from_config(config), [records])
    fitted = measure_usage()
    warm = records.found[min(cycle, steps // 2) :]
    step_s = sum(record.step_s for record in warm) / len(warm)
    state = capture(train_state, config.steps, config.steps * batch, build_identity(config, datasets, weights))
    spec = build_encoder_spec(config, train_state, datasets)
    parts = train_state.tensors() if train_state.sharded else {}
    held, moments = ({n: t for n, t in parts.items() if n.startswith("state.") is of} for of in (False, True))
    in_parts = {"parts": _bytes(parts)} if parts else {}
    stored_bytes = {
        "state": len(serialise_state(state)),
        **in_parts,
        "encoder": len(serialise_encoder(train_state.gather_encoder() if parts else state.encoder, spec)),
    }
    saved, used = measure_usage() - fitted, fitted - before
    return Probe(
        device=str(device),
        world=world,
        steps=len(warm),
        samples=measured.samples / steps,
        step_s=step_s,
        wait_s=sum(record.wait_s for record in warm) / len(warm),
        kept_bytes=measured.kept_bytes,
        fixed_bytes={
            "weights": _bytes(state.model or held),
            "gradients": _bytes([p for p in train_state.method.parameters() if p.requires_grad]),
            "optimizer": _bytes(state.optimizer.get("state", moments)),
            "average": _bytes(state.average),
        },
        stored_bytes=stored_bytes,
        sharded=train_state.sharded,
        cpu_step_s=step_s * used.cpu_s / used.wall_s,
        start_s=(before - begun).wall_s + max(0.0, used.wall_s - steps * step_s),
        save_s=saved.wall_s,
        host_bytes=measure_peak_bytes(),
        device_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
    )


def _bytes(found: Any) -> int:
    """Bytes of all tensors in a tree."""
    if isinstance(found, Tensor):
        return found.nbytes
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return sum(map(_bytes, inner))
