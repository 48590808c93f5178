"""Launch: what the driver decides before a worker starts, and the Ray Train run that it starts then."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from foundation.bucket import TEMPORARY_PREFIX, Bucket
from foundation.cluster import ray_session
from storage_schema.digest import canonical_json
from storage_schema.errors import CrossdimError, DocumentError, Problem, RunError, StorageError
from storage_schema.vocabulary import Presentation
from training import checkpoint
from training.asks import HERE
from training.checkpoint import Saving
from training.config import Pretraining, read_config
from training.data.corpus import Corpus, open_corpus, read_sample
from training.data.ranges import open_ranges
from training.metrics import PROGRESS, legible
from training.worker import CONFIG, Job, Source, differences, identity, order_of, ray_worker, train

#: A store that does not answer is asked again for so long by workers; before they start, a mistyped address is an error at once.
PATIENCE_S = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """How a run is spread: ``least`` to ``most`` Ray Train workers; 0 trains in this process, without Ray.

    Where the two differ the run is elastic: Ray starts with what there is, restarts the workers when machines come or go,
    and each start goes on from the newest checkpoint with the same global batch, order and schedule. Every
    ``resize_every_s`` it looks whether there are more.
    """

    least: int
    most: int
    use_gpu: bool
    address: str | None
    quiet: bool
    resize_every_s: float = 60.0


#: Seen with PyTorch 2.13 and oneDNN: NaN in the weight gradient of a 64-channel 3x3x3 convolution on a 2x4x4 map, now and then.
BF16_ON_CPU = "bf16 needs --gpu: on a CPU gradients of small 3D convolutions come out as NaN now and then; use fp32"


def admit(config: Pretraining, sources: Sequence[Source], run: Bucket, world: int, *, use_gpu: bool) -> dict[str, Any]:
    """Hold a run against its data, its folder and its workers before anything starts.

    Returns:
        The run's identity.

    Raises:
        RunError: naming everything that does not fit.
    """
    corpora = [open_corpus(source.bucket) for source in sources]
    weights = [source.weight for source in sources]
    problems = _data_problems(config, corpora) + _world_problems(config, corpora, weights, world)
    if config.mixing.mode == "joint":
        problems += _joint_problems(config, corpora)
    if config.compute.precision == "bf16" and not use_gpu:
        problems.append(Problem(loc="compute.precision", message=BF16_ON_CPU))
    if problems:
        raise DocumentError(f"the run does not fit its data ({config.method.kind})", problems)
    with torch.device("meta"):  # nothing is drawn or held
        config.compute.refuse(config.method.build())
    mine = identity(config, corpora, weights)
    if run.exists(CONFIG):
        before = json.loads(run.read(CONFIG))["identity"]
        if before != mine:
            raise RunError(
                f"{run.url} holds another run: {differences(before, mine)}. "
                "Resume it with what it was started with, or choose another --out"
            )
    return mine


def _data_problems(config: Pretraining, corpora: Sequence[Corpus]) -> list[Problem]:
    problems = []
    seen: dict[Presentation, str] = {}
    for corpus in corpora:
        presentation, url = corpus.manifest.presentation, corpus.bucket.url
        if presentation not in config.method.accepts:
            known = ", ".join(sorted(config.method.accepts))
            problems.append(Problem(loc=url, message=f"holds {presentation}; {config.method.kind} accepts {known}"))
        if corpus.pseudo3d and not corpus.pseudo3d.reversible:
            problems.append(
                Problem(loc=url, message="its pseudo-3D view cannot be folded back exactly; prepare it with stride = window")
            )
        first = seen.setdefault(presentation, url)
        theirs = next(c.pseudo3d for c in corpora if c.bucket.url == first)
        if theirs != corpus.pseudo3d:
            problems.append(Problem(loc=url, message=f"has another pseudo-3D geometry than {first}"))
    return problems


def _joint_problems(config: Pretraining, corpora: Sequence[Corpus]) -> list[Problem]:
    """Views of one sample of each dataset must have equal names and shapes to share a tensor."""
    shapes = [
        {
            name: view.shape
            for name, view in config.method.draw(
                read_sample(corpus, 0, open_ranges(corpus.bucket)), corpus.pseudo3d, np.random.default_rng(0)
            ).items()
        }
        for corpus in corpora
    ]
    return [
        Problem(loc=corpus.bucket.url, message=f"mixing joint needs views alike; its views are {shape}, the first {shapes[0]}")
        for corpus, shape in zip(corpora, shapes, strict=True)
        if shape != shapes[0]
    ]


def _world_problems(config: Pretraining, corpora: Sequence[Corpus], weights: Sequence[float], world: int) -> list[Problem]:
    world, needed, parts = max(1, world), config.method.min_rank_batch, config.compute.accumulate
    if world > config.global_batch:
        found = f"{world} workers share a global_batch of {config.global_batch}: some would never have a sample"
        return [Problem(loc="workers", message=f"{found}; at most {config.global_batch} workers, or a larger global_batch")]
    order = order_of(config, corpora, weights)
    if config.compute.sync_bn:  # statistics are of all workers' samples together, and nobody's are borrowed
        if not config.mixing.smallest_batch(order, config.global_batch, world):
            message = f"{world} workers leave one without a sample of a dataset; synchronised batch norm needs one of each"
            return [Problem(loc="workers", message=message)]
        world = 1
    least = config.mixing.smallest_batch(order, config.global_batch, world) // parts
    if least >= needed:
        return []
    cut = f", in {parts} parts," if parts > 1 else ""
    found = f"global_batch {config.global_batch} over {len(corpora)} datasets and {world} workers{cut}"
    wanted = f"{config.method.kind} needs {needed} for batch norm"
    return [Problem(loc="workers", message=f"{found} leaves a worker {least} samples of one dataset at a time; {wanted}")]


def pretrain(config: Pretraining, sources: Sequence[Source], run: Bucket, workers: Workers, saving: Saving, threads: int) -> int:
    """Start a run, or go on with the one in ``run``; returns the steps done before."""
    mine = admit(config, sources, run, workers.most, use_gpu=workers.use_gpu)
    _sweep(run)
    state = checkpoint.load(run)
    done = state.step if state else 0
    if not run.exists(CONFIG):
        run.put(CONFIG, canonical_json({"identity": mine, "sources": [s.bucket.url for s in sources]}) + b"\n")
    if done < config.steps:
        patient = tuple(Source(bucket=source.bucket.with_patience(PATIENCE_S), weight=source.weight) for source in sources)
        job = Job(config=config.document(), sources=patient, run=run.with_patience(PATIENCE_S), saving=saving, threads=threads)
        with _progress(run, done, config.steps, quiet=workers.quiet):
            if workers.most:
                _train_on_ray(job, workers)
            else:
                train(job, 0, 1, torch.device("cuda", 0) if workers.use_gpu else torch.device("cpu"))
    return done


def _sweep(run: Bucket) -> None:
    """Remove files that a killed process was still writing: no name leads to them, so nothing else ever would."""
    if run.is_local:
        for leftover in Path(run.root).rglob(f"{TEMPORARY_PREFIX}*"):
            leftover.unlink(missing_ok=True)


def saved_config(run: Bucket) -> Pretraining:
    """The configuration that a run was started with.

    Raises:
        RunError: if there is no run.
    """
    if not run.exists(CONFIG):
        raise RunError(f"{run.url} holds no run to go on with; name a --recipe to start one")
    return read_config(json.loads(run.read(CONFIG))["identity"]["config"], run.where(CONFIG))


def _train_on_ray(job: Job, workers: Workers) -> None:
    """Hand the job to Ray Train; errors of workers come back as ours."""
    with ray_session(workers.address, num_cpus=max(workers.most, torch.get_num_threads())):
        import ray
        from ray.exceptions import RayError
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from training.warden import Box, Readiness, Warden

        # Where the controller is, too: a box on a machine that is lost would end the run.
        where = ray.get_runtime_context().gcs_address
        here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        box = ray.remote(num_cpus=0, scheduling_strategy=here)(Box).remote()
        callbacks: list[Any] = [Warden(job.run, box), Readiness()]  # annotations are those of Ray Train's first version
        trainer = TorchTrainer(
            lambda: ray_worker(job),
            torch_config=TorchConfig(backend="nccl" if workers.use_gpu else "gloo"),
            scaling_config=ScalingConfig(use_gpu=workers.use_gpu, **_elasticity(workers)),
            run_config=RunConfig(
                name="ray",
                failure_config=FailureConfig(max_failures=-1),  # the warden counts: Ray's budget does not know progress
                callbacks=callbacks,
                **_ray_storage(job.run),
            ),
        )
        try:
            with _relayed(box):
                trainer.fit()
        except TrainingFailedError as error:
            raise _worker_error(error) from error
        except RayError as error:  # of the controller: it lives on this machine, and as long as Ray does
            said = " ".join(str(error).split())[:300]
            remedy = "if the head is gone, bring up another; the same line goes on from the newest checkpoint"
            raise RunError(f"{job.run.url}: Ray at {where} was lost ({said}); {remedy}") from error


@contextlib.contextmanager
def _relayed(box: Any) -> Iterator[None]:
    """Meanwhile, what signals ask of the driver lands in the box. A thread carries it: Ray is not called inside a signal."""
    stop = threading.Event()

    def carry() -> None:
        while not stop.wait(0.2):
            if asked := HERE.take():
                box.ask.remote(asked)

    with HERE.heard():
        carrier = threading.Thread(target=carry, name="asks", daemon=True)
        carrier.start()
        try:
            yield
        finally:
            stop.set()
            carrier.join()


def _elasticity(workers: Workers) -> dict[str, Any]:
    if workers.least == workers.most:
        return {"num_workers": workers.most}
    return {"num_workers": (workers.least, workers.most), "elastic_resize_monitor_interval_s": workers.resize_every_s}


def _ray_storage(run: Bucket) -> dict[str, Any]:
    """Where Ray keeps its own notes: inside the run's folder, reached as we reach it. Our checkpoints are not Ray's."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    if run.is_local:
        return {"storage_path": run.root}
    return {"storage_path": run.root, "storage_filesystem": PyFileSystem(FSSpecHandler(run.filesystem))}


def _worker_error(error: Exception) -> CrossdimError:
    """The sentence behind a failed Ray Train run."""
    failures = [*getattr(error, "worker_failures", {}).values(), getattr(error, "controller_failure", None)]
    for failure in failures:
        cause = getattr(failure, "cause", None) or getattr(failure, "controller_failure", None) or failure
        if isinstance(cause, CrossdimError):
            return cause
    return RunError(f"the workers failed: {error}")


@contextlib.contextmanager
def _progress(run: Bucket, done: int, total: int, *, quiet: bool) -> Iterator[None]:
    """A bar fed by the progress note of rank 0: the same whether workers are here or elsewhere."""
    if quiet:
        yield
        return
    stop = threading.Event()
    with tqdm(total=total, initial=done, unit="step", desc="pretrain", file=sys.stderr, dynamic_ncols=True) as bar:

        def follow() -> None:
            while not stop.wait(1.0):
                # A bar that cannot be moved is no news: what ails the store stops the run itself, with a sentence.
                with contextlib.suppress(StorageError):
                    _shown(run, bar)

        follower = threading.Thread(target=follow, name="progress", daemon=True)
        follower.start()
        try:
            yield
        finally:
            stop.set()
            follower.join()
            with contextlib.suppress(StorageError):
                _shown(run, bar)


def _shown(run: Bucket, bar: Any) -> None:
    for note in legible(run, PROGRESS):
        if note["step"] > bar.n:
            share = note["wait_s"] / max(note["step_s"], 1e-9)
            bar.set_postfix_str(f"loss {note['loss']:.4f}, data-wait {share:.0%}", refresh=False)
            bar.update(note["step"] - bar.n)
