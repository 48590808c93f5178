"""Worker: one process of a run. It assembles the parts, trains, saves, and says how far it is."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any, Self

import torch

from foundation.bucket import Bucket
from storage_schema.errors import RunError, StorageError
from storage_schema.sample import Sample
from training import checkpoint
from training.backbones import encoder_bytes
from training.backbones.base import EncoderSpec
from training.config import Pretraining, read_config
from training.data.corpus import Corpus, open_corpus
from training.data.loader import Loading, step_batches
from training.data.order import CorpusOrder, Order, integer_weights
from training.learner import Learner
from training.loop import StepRecord, fit, wrapped
from training.metrics import EventLog, MetricLog

ENCODER = "encoder.pt"
CONFIG = "config.json"
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
    checkpoint_every: int
    keep: int = 3
    threads: int = 2


def order_of(config: Pretraining, corpora: Sequence[Corpus], weights: Sequence[float]) -> Order:
    """The order of a run over its corpora."""
    integers = integer_weights(list(weights))
    orders = (CorpusOrder(num_samples=len(c), weight=w) for c, w in zip(corpora, integers, strict=True))
    return Order(config.seed, tuple(orders), config.mixing.stretch(config.global_batch))


def identity(config: Pretraining, corpora: Sequence[Corpus], weights: Sequence[float]) -> dict[str, Any]:
    """What makes a run the run that it is: equal identities may share checkpoints, others may not."""
    return {
        "config": config.document(),
        "weights": integer_weights(list(weights)),
        "datasets": [
            {"name": c.manifest.name, "manifest": c.manifest.digest, "preprocessing": c.manifest.preprocessing_digest}
            for c in corpora
        ],
    }


def train(job: Job, rank: int, world: int, device: torch.device) -> None:
    """Train this rank's part of a run, from its newest checkpoint to its end.

    Raises:
        RunError: if the checkpoint belongs to another run, or the loss is not finite.
    """
    config = read_config(job.config, "the run's configuration")
    corpora = [open_corpus(source.bucket) for source in job.sources]
    weights = [source.weight for source in job.sources]
    learner = Learner.of(config, device)
    mine = identity(config, corpora, weights)
    passed: list[str] = []
    done = _resumed(job.run, mine, learner, passed)
    loading = Loading(
        order=order_of(config, corpora, weights),
        global_batch=config.global_batch,
        rank=rank,
        world=world,
        joint=config.mixing.mode == "joint",
        threads=job.threads,
    )
    batches = step_batches(
        loading, corpora, CorpusViews(config, corpora), done * config.global_batch, config.steps * config.global_batch
    )
    pen = _Pen(job, config, mine, learner, corpora, done, EventLog(job.run, world), passed) if rank == 0 else None
    note = pen.note if pen else lambda record: None
    with pen or contextlib.nullcontext():
        fit(wrapped(learner.method, device), learner.optimizer, config, batches, done, device, note, learner.moved)


class CorpusViews:
    """Views of the run's method, with the geometry of the corpus that a sample is from."""

    def __init__(self, config: Pretraining, corpora: Sequence[Corpus]) -> None:
        self._method = config.method
        self._geometry: dict[Any, Any] = {corpus.manifest.presentation: corpus.pseudo3d for corpus in corpora}

    def __call__(self, sample: Sample, rng: Any) -> Any:
        """Views of one sample."""
        return self._method.draw(sample, self._geometry[sample.presentation], rng)


def _resumed(run: Bucket, mine: dict[str, Any], learner: Learner, passed: list[str]) -> int:
    """Load the newest checkpoint, if there is one; the number of steps done. What was passed over is added to ``passed``."""
    state = checkpoint.load(run, lambda name, reason: passed.append(f"{name}: {reason}"))
    if state is None:
        return 0
    if state.identity != mine:
        raise RunError(f"{run.url}: the checkpoint of step {state.step} is of another run: {differences(state.identity, mine)}")
    learner.resume(state)
    _LOG.info("resuming %s at step %d, position %d", run.url, state.step, state.position)
    return state.step


def encoder_spec(config: Pretraining, learner: Learner, corpora: Sequence[Corpus]) -> EncoderSpec:
    """What the encoder is and how its data were prepared: all that its users must know."""
    views = [view for corpus in corpora if (view := config.method.seen_as(corpus.pseudo3d))]
    return replace(
        learner.method.encoder_spec,
        pseudo3d=asdict(views[0]) if views else None,
        preprocessing_digests=[corpus.manifest.preprocessing_digest for corpus in corpora],
    )


def differences(theirs: Any, mine: Any, loc: str = "") -> str:
    """Where two documents differ, all places, as one sentence."""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        keys = sorted(theirs.keys() | mine.keys())
        parts = [differences(theirs.get(k), mine.get(k), f"{loc}.{k}".lstrip(".")) for k in keys]
    elif isinstance(theirs, list) and isinstance(mine, list) and len(theirs) == len(mine):
        parts = [differences(a, b, f"{loc}[{i}]") for i, (a, b) in enumerate(zip(theirs, mine, strict=True))]
    else:
        return "" if theirs == mine else f"{loc} was {theirs!r} and is {mine!r}"
    return "; ".join(part for part in parts if part)


class _Pen:
    """What only rank 0 writes: metrics, events, checkpoints, the encoder. Its context is the run's: how it ends is noted."""

    def __init__(
        self,
        job: Job,
        config: Pretraining,
        mine: dict[str, Any],
        learner: Learner,
        corpora: Sequence[Corpus],
        done: int,
        events: EventLog,
        passed: Sequence[str],
    ) -> None:
        self._job, self._config, self._identity = job, config, mine
        self._done, self._events, self._passed = done, events, passed
        self._learner = learner
        self._spec = encoder_spec(config, learner, corpora)
        self._log = MetricLog(job.run, done, config.steps)

    def __enter__(self) -> Self:
        for text in self._passed:
            self._events.add("passed-over", self._done, text)
        self._events.add("resume" if self._done else "start", self._done)
        return self

    def note(self, record: StepRecord) -> None:
        """After every step: log it; at borders: save."""
        self._log.add(record)
        self._done = record.step + 1
        if self._done % self._job.checkpoint_every == 0 or self._done == self._config.steps:
            self._save()
            self._log.checkpointed(record)

    def _save(self) -> None:
        state = self._learner.state(self._done, self._done * self._config.global_batch, self._identity)
        checkpoint.save(self._job.run, state, self._job.keep)
        self._job.run.put(ENCODER, encoder_bytes(self._learner.encoder, self._spec))
        self._events.add("checkpoint", self._done)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._events.add("end", self._done)
            else:
                with contextlib.suppress(StorageError):  # a store that fails may be the error itself, which must be heard
                    self._events.add("failed", self._done, f"{type(error).__name__}: {error}")
        finally:
            self._log.close()


def ray_worker(job: Job) -> None:
    """What Ray Train calls in each of its workers."""
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    train(job, context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
