"""Worker: one process of a run. It assembles the parts, trains, saves, and says how far it is."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError, StorageError
from crossdim.storage_schema.sample import Sample
from crossdim.training.backbones.base import EncoderSpec
from crossdim.training.config.pretraining import Pretraining, read_config
from crossdim.training.data.dataset import PublishedDataset, open_dataset
from crossdim.training.data.loader import Loading, step_batches
from crossdim.training.data.mixture import integer_weights
from crossdim.training.data.order import DatasetOrder, Order
from crossdim.training.engine.control import HERE, Ask
from crossdim.training.engine.loop import StepRecord, fit, wrapped
from crossdim.training.engine.train_state import Learner
from crossdim.training.run_dir import checkpoint
from crossdim.training.run_dir.async_checkpointer import Saver, Title
from crossdim.training.run_dir.background_writer import Scribe
from crossdim.training.run_dir.checkpoint import Saving, State
from crossdim.training.run_dir.checkpoint_contents import check_contents
from crossdim.training.run_dir.checkpoint_listing import name_of
from crossdim.training.run_dir.differences import run_differences
from crossdim.training.run_dir.events import EventLog, Rereads
from crossdim.training.run_dir.logger import Pen

#: A store that answers wrongly again and again makes no more than one event in so many seconds; the log is told each time.
REREADS_EVERY_S = 60.0
Note = Callable[[StepRecord, Ask], None]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One dataset of a run and its weight in the mixture."""

    bucket: Bucket
    weight: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run and where it happens: all that a worker needs, as plain values."""

    config: dict[str, Any]
    sources: tuple[Source, ...]
    run: Bucket
    saving: Saving
    threads: int = 2


def order_of(config: Pretraining, datasets: Sequence[PublishedDataset], weights: Sequence[float]) -> Order:
    """The order of a run over its datasets."""
    integers = integer_weights(list(weights))
    orders = (DatasetOrder(num_samples=len(c), weight=w) for c, w in zip(datasets, integers, strict=True))
    return Order(config.seed, tuple(orders), config.mixing.stretch(config.global_batch))


def identity(config: Pretraining, datasets: Sequence[PublishedDataset], weights: Sequence[float]) -> dict[str, Any]:
    """What makes a run the run that it is: equal identities may share checkpoints, others may not."""
    return {
        "config": config.document(),
        "weights": integer_weights(list(weights)),
        "datasets": [
            {"name": c.manifest.name, "manifest": c.manifest.digest, "preprocessing": c.manifest.preprocessing_digest}
            for c in datasets
        ],
    }


def train(job: Job, rank: int, world: int, device: torch.device) -> None:
    """Train this rank's part of a run, from its newest checkpoint to its end.

    Raises:
        RunError: if the checkpoint belongs to another run, the loss is not finite, or this or another rank was asked to stop.
    """
    with HERE.answered():
        if _trained(job, rank, world, device) is Ask.STOP:
            if dist.is_initialized():
                dist.barrier()  # nobody leaves before rank 0 has saved
            raise RunError(f"{job.run.where('')}: stopped as asked, and saved; the same command goes on from here")


def _trained(job: Job, rank: int, world: int, device: torch.device) -> Ask:
    config = read_config(job.config, "the run's configuration")
    datasets = [open_dataset(source.bucket) for source in job.sources]
    weights = [source.weight for source in job.sources]
    learner = Learner.of(config, device)
    mine = identity(config, datasets, weights)
    done, passed = _resumed(job.run, mine, learner, rank, device)
    loading = Loading(
        order=order_of(config, datasets, weights),
        global_batch=config.global_batch,
        rank=rank,
        world=world,
        joint=config.mixing.mode == "joint",
        threads=job.threads,
    )
    first, stop = done * config.global_batch, config.steps * config.global_batch
    rereads = Rereads()
    batches = step_batches(loading, datasets, DatasetViews(config, datasets), first, stop, rereads.tell)
    static = len(datasets) == 1 and config.compute.accumulate == 1
    module = wrapped(learner.method, device, static=static)
    steps = functools.partial(fit, module, learner.optimizer, config, batches, done, device)
    spec, batch = encoder_spec(config, learner, datasets), config.global_batch
    title = Title(identity=mine, spec=spec, steps=config.steps, global_batch=batch, rank=rank, world=world)
    with contextlib.closing(Scribe()) as scribe:
        diary = functools.cache(lambda: EventLog(job.run, world, f"rank{rank}"))
        saver = Saver(job.run, title, job.saving, learner, scribe, diary() if rank == 0 else None)
        noted = functools.partial(_noted, steps=config.steps, rereads=rereads, scribe=scribe, diary=diary)
        if rank == 0:
            with Pen(job.run, saver, scribe, diary(), done, config.steps).begin(passed) as pen:
                return steps(noted(pen.note), learner.moved, HERE.take)
        ask = steps(noted(saver.note), learner.moved, HERE.take)
        scribe.finish()
        return ask


def _noted(note: Note, steps: int, rereads: Rereads, scribe: Scribe, diary: Callable[[], EventLog]) -> Note:
    """What a rank does after a step, and now and then an event for what was read once more, for this step or ahead of it."""
    next_s = -math.inf

    def both(record: StepRecord, ask: Ask) -> None:
        nonlocal next_s
        note(record, ask)
        done, now = record.step + 1, time.monotonic()
        if (now >= next_s or ask or done == steps) and (told := rereads.take()):
            next_s = now + REREADS_EVERY_S
            scribe.write(lambda: diary().add("reread", done, told[-1], samples=len(told)))

    return both


class DatasetViews:
    """Views of the run's method, with the geometry of the dataset that a sample is from."""

    def __init__(self, config: Pretraining, datasets: Sequence[PublishedDataset]) -> None:
        self._method = config.method
        self._geometry: dict[Any, Any] = {dataset.manifest.presentation: dataset.pseudo3d for dataset in datasets}

    def __call__(self, sample: Sample, rng: Any) -> Any:
        """Views of one sample."""
        return self._method.draw(sample, self._geometry[sample.presentation], rng)


def _resumed(run: Bucket, mine: dict[str, Any], learner: Learner, rank: int, device: torch.device) -> tuple[int, list[str]]:
    """Load the newest checkpoint that is whole, if there is one.

    Returns:
        The number of steps done, and what was passed over.
    """
    passed: list[str] = []
    below: int | None = None

    def note(name: str, reason: str) -> None:
        passed.append(f"{name}: {reason}")

    while state := _chosen(run, rank, device, below, note, check_contents):
        if state.identity != mine:
            found = f"the checkpoint of step {state.step} is of another run"
            raise RunError(f"{run.where('')}: {found}: {run_differences(state.identity, mine)}")
        try:
            learner.resume(run, state)
        except StorageError as error:  # a part of it; so on all ranks
            below = state.step
            passed.append(f"{name_of(state.step)}: {error}")
            continue
        _LOG.info("resuming %s at step %d, position %d", run.where(""), state.step, state.position)
        return state.step, passed
    return 0, passed


def _chosen(
    run: Bucket,
    rank: int,
    device: torch.device,
    below: int | None,
    passed_over: checkpoint.Told,
    check: Callable[[State], None] = lambda state: None,
) -> State | None:
    """The checkpoint that rank 0 finds: a lost worker may still be writing one, and ranks that look one by one could differ."""
    state = checkpoint.load(run, passed_over, below, check) if rank == 0 else None
    if dist.is_initialized() and dist.get_world_size() > 1:
        step = torch.tensor([state.step if state else 0], device=device)
        dist.broadcast(step, src=0)
        if rank and step.item():
            state = checkpoint.load_step(run, int(step.item()))
    return state


def encoder_spec(config: Pretraining, learner: Learner, datasets: Sequence[PublishedDataset]) -> EncoderSpec:
    """What the encoder is and how its data were prepared: all that its users must know."""
    views = [view for dataset in datasets if (view := config.method.encoder_geometry(dataset.pseudo3d))]
    return replace(
        learner.method.encoder_spec,
        pseudo3d=asdict(views[0]) if views else None,
        preprocessing_digests=[dataset.manifest.preprocessing_digest for dataset in datasets],
    )


def ray_worker(job: Job) -> None:
    """What Ray Train calls in each of its workers."""
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    train(job, context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
