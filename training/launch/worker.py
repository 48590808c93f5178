"""One process of a run: it puts the parts together, trains and saves."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from threadpoolctl import threadpool_limits

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import CollapseError, RunError
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Split
from crossdim.training.backbones.base import EncoderSpec
from crossdim.training.config.pretraining import Pretraining, read_config
from crossdim.training.data.dataset import PublishedDataset, open_dataset
from crossdim.training.data.fixed_batch import read_fixed_batches
from crossdim.training.data.loader import Loading, step_batches
from crossdim.training.data.mixture import integer_weights
from crossdim.training.data.order import DatasetOrder, Order
from crossdim.training.engine.control import Request, StopControl
from crossdim.training.engine.loop import Hook, Schedule, fit
from crossdim.training.engine.monitor import FeatureMonitor, Monitoring
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.engine.train_state import TrainState
from crossdim.training.extensions import list_extensions, load_extensions
from crossdim.training.launch.collapse_guard import CollapseGuard
from crossdim.training.launch.process_control import PROCESS_CONTROL
from crossdim.training.pictures.hook import PictureHook
from crossdim.training.run_dir.async_checkpointer import AsyncCheckpointer, RunHeader
from crossdim.training.run_dir.background_writer import BackgroundWriter
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.events import EventLog
from crossdim.training.run_dir.logger import RunLogger
from crossdim.training.run_dir.rereads import RereadReporter
from crossdim.training.run_dir.resume import resume
from crossdim.training.trackers.table import set_variables
from crossdim.training.trackers.tracking import Tracking


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One dataset of a run and its weight in the mixture.

    Attributes:
        manifest: digest of the version that is asked for, or that the run began with; empty for the newest.
    """

    bucket: Bucket
    weight: float
    manifest: str = ""

    def open(self, split: Split | None = Split.TRAIN) -> PublishedDataset:
        """Open the version that is asked for; the newest one where none is, or where that version was removed.

        Args:
            split: which samples to take; None takes all.
        """
        return open_dataset(self.bucket, split, prefer_digest=self.manifest or None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run and where it happens: all that a worker needs, as plain values."""

    config: dict[str, Any]
    sources: tuple[Source, ...]
    run: Bucket
    saving: Saving
    threads: int = 2
    extensions: tuple[str, ...] = ()
    pictures_at: tuple[int, ...] = ()
    trackers: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    monitoring: Monitoring = field(default_factory=Monitoring)


def build_order(config: Pretraining, datasets: Sequence[PublishedDataset], weights: Sequence[float]) -> Order:
    """Build the order in which a run goes through its samples.

    Args:
        config: of the run.
        datasets: its datasets.
        weights: of the datasets in the mixture.

    Returns:
        The order; weights become the smallest integers in nearly the same proportions.
    """
    integers = integer_weights(list(weights))
    orders = (DatasetOrder(num_samples=len(c), weight=w) for c, w in zip(datasets, integers, strict=True))
    return Order(config.seed, tuple(orders), config.mixing.stretch(config.global_batch))


def build_identity(config: Pretraining, datasets: Sequence[PublishedDataset], weights: Sequence[float]) -> dict[str, Any]:
    """Collect what makes a run the same run: only runs of equal identities share checkpoints.

    Args:
        config: of the run.
        datasets: its datasets.
        weights: of the datasets in the mixture.

    Returns:
        Configuration, integer weights, and name and digests of each dataset, as JSON values; and ``extensions``, the modules
        that parts of the configuration come from, if there are any.
    """
    extensions = list_extensions(config)
    return {
        "config": config.document(),
        "weights": integer_weights(list(weights)),
        "datasets": [
            {"name": c.manifest.name, "manifest": c.manifest.digest, "preprocessing": c.manifest.preprocessing_digest}
            for c in datasets
        ],
        **({"extensions": extensions} if extensions else {}),
    }


def train(job: Job, rank: int, world: int, device: torch.device, control: StopControl) -> None:
    """Train this rank's part of a run, from its newest checkpoint to its end.

    Args:
        job: the run.
        rank: of this process.
        world: how many processes train.
        device: where to compute.
        control: passes requests to this training.

    Raises:
        CollapseError: if features collapsed, and the run was to end then.
        RunError: if the checkpoint belongs to another run, the loss is not finite, or this or another rank was requested to
            stop.
    """
    # Loader threads share the cores already: products of NumPy in one of them that take every core slow all down.
    with control.follow_requests(), threadpool_limits(1, user_api="blas"):
        request, collapse = _train_until_stop(job, rank, world, device, control)
        if request is Request.STOP:
            if dist.is_initialized():
                dist.barrier()  # no rank ends before rank 0 has saved
            where = job.run.where("")
            if collapse:
                raise CollapseError(
                    f"{where}: {collapse}. Stopped and saved; without --stop-on-collapse the run goes on from here"
                )
            step = control.find_saved_step()
            saved = ", and saved" if step is None else f"; step {step} is saved"
            raise RunError(f"{where}: stopped as asked{saved}; the same command goes on from here")


def _train_until_stop(job: Job, rank: int, world: int, device: torch.device, control: StopControl) -> tuple[Request, str]:
    """Train; returns whether the run was requested to stop, and the collapse for which it was."""
    config = read_config(job.config, "the run's configuration")
    datasets = [source.open() for source in job.sources]
    weights = [source.weight for source in job.sources]
    state = TrainState.build(config, device)
    mine = build_identity(config, datasets, weights)
    done, skipped = resume(job.run, state, mine, rank)
    state = state.distribute(static=len(datasets) == 1 and config.compute.accumulate == 1)
    loading = Loading(
        order=build_order(config, datasets, weights),
        global_batch=config.global_batch,
        rank=rank,
        world=world,
        joint=config.mixing.mode == "joint",
        threads=job.threads,
    )
    header = RunHeader(
        identity=mine,
        spec=build_encoder_spec(config, state, datasets),
        steps=config.steps,
        global_batch=config.global_batch,
        rank=rank,
        world=world,
    )
    with contextlib.closing(BackgroundWriter()) as writer, contextlib.ExitStack() as stack:
        open_log = functools.cache(lambda: EventLog(job.run, world, f"rank{rank}"))
        rereads = RereadReporter(open_log, writer, config.steps)
        views = DatasetViews(config, datasets)
        first, stop = done * config.global_batch, config.steps * config.global_batch
        batches = step_batches(loading, datasets, views, first, stop, rereads.report)
        checkpointer = functools.partial(AsyncCheckpointer, job.run, header, job.saving, state, writer, control)
        fixed = WholeViews(config, datasets) if not config.method.compares else views
        read = functools.partial(read_fixed_batches, datasets, fixed, job.threads, joint=loading.joint)
        monitor = FeatureMonitor(read, job.monitoring.every, warns=config.method.compares)
        guard = functools.partial(CollapseGuard, monitor, control, stops=job.monitoring.stop_on_collapse)
        hooks: list[Hook]
        if rank == 0:
            logger = RunLogger(job.run, open_log(), writer, done, config.steps, skipped, job.config)
            tracking = stack.enter_context(Tracking(job.run, job.trackers, job.config, done, config.steps))
            pictures = PictureHook(job.run, config, datasets, state, job.pictures_at)
            watching = guard(report=lambda step, text: writer.write(open_log().add, "collapse", step, text))

            def before_checkpoint(record: StepRecord) -> None:
                logger.before_checkpoint(record)
                tracking.before_checkpoint(record)

            hooks = [logger, tracking, checkpointer(open_log(), before_checkpoint), rereads, watching, pictures]
            stack.enter_context(logger)
            stack.enter_context(contextlib.closing(pictures)).start(done)
        else:
            watching = guard(report=None)
            hooks = [checkpointer(None), rereads, watching]
        request = fit(state, batches, Schedule.from_config(config, done), hooks, control, monitor)
        writer.finish()  # what it raises of the last checkpoint, the logger writes down
        return request, watching.stopped_for


class DatasetViews:
    """Draws views by the run's method, with the geometry of the dataset that a sample is from."""

    def __init__(self, config: Pretraining, datasets: Sequence[PublishedDataset]) -> None:
        self._method = config.method
        self._geometry: dict[Any, Any] = {dataset.manifest.presentation: dataset.pseudo3d for dataset in datasets}

    def __call__(self, sample: Sample, rng: Any) -> Any:
        """Draw the views of one sample.

        Args:
            sample: of one of the datasets.
            rng: generator of the draws.
        """
        return self._method.draw(sample, self._geometry[sample.presentation], rng)


class WholeViews(DatasetViews):
    """Takes whole samples, as the encoder takes them after training."""

    def __call__(self, sample: Sample, rng: Any) -> Any:
        """The whole sample.

        Args:
            sample: of one of the datasets.
            rng: not used.
        """
        return self._method.whole(sample, self._geometry[sample.presentation])


def build_encoder_spec(config: Pretraining, state: TrainState, datasets: Sequence[PublishedDataset]) -> EncoderSpec:
    """Describe the encoder and how its data were prepared: all that its users must know.

    Args:
        config: of the run.
        state: holds the method.
        datasets: datasets of the run.

    Returns:
        The encoder's spec, with the geometry of unrolled images and the digests of the datasets' preprocessing.
    """
    views = [view for dataset in datasets if (view := config.method.encoder_geometry(dataset.pseudo3d))]
    return replace(
        state.method.encoder_spec,
        pseudo3d=asdict(views[0]) if views else None,
        preprocessing_digests=[dataset.manifest.preprocessing_digest for dataset in datasets],
    )


def run_ray_worker(job: Job) -> None:
    """Train in a worker of Ray Train, which calls this in each of them."""
    import ray.train
    import ray.train.torch

    load_extensions(job.extensions)
    set_variables(job.variables)
    context = ray.train.get_context()
    train(job, context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device(), PROCESS_CONTROL)
