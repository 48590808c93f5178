"""Starts a run, in this process or in Ray Train, and follows its progress and signals."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from crossdim.foundation import signals
from crossdim.foundation.bars import write_lines
from crossdim.foundation.bucket import TEMPORARY_PREFIX, Bucket
from crossdim.foundation.cluster import ray_session
from crossdim.foundation.extras import require
from crossdim.foundation.location import hide_secrets
from crossdim.foundation.progress import show_stage
from crossdim.storage_schema.errors import UsageError
from crossdim.storage_schema.names import escape_name
from crossdim.training.config.pretraining import Pretraining, read_config
from crossdim.training.engine.monitor import Monitoring
from crossdim.training.extensions import check_extensions, list_extensions
from crossdim.training.launch.gpus import check_gpus
from crossdim.training.launch.process_control import PROCESS_CONTROL
from crossdim.training.launch.progress_bar import show_run_progress
from crossdim.training.launch.ray_driver import train_on_ray
from crossdim.training.launch.validate import ValidatedRun, validate_run
from crossdim.training.launch.worker import Job, Source, train
from crossdim.training.launch.workers import Workers
from crossdim.training.run_dir import checkpoint
from crossdim.training.run_dir.attempts import AttemptRecord, check_not_trained
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.checkpoint_contents import check_contents
from crossdim.training.run_dir.events import EventLog
from crossdim.training.run_dir.layout import CONFIG
from crossdim.training.run_dir.run_config import write_run_config
from crossdim.training.run_dir.run_identity import read_identity
from crossdim.training.trackers.table import read_variables

_LOG = logging.getLogger(__name__)
#: A store that does not answer is asked again for so long by workers; before they start, a mistyped address is an error at once.
PATIENCE_S = 300.0


def pretrain(
    config: Pretraining,
    sources: Sequence[Source],
    run: Bucket,
    workers: Workers,
    saving: Saving,
    threads: int,
    provenance: dict[str, Any] | None = None,
    pictures_at: tuple[int, ...] = (),
    trackers: tuple[str, ...] = (),
    monitoring: Monitoring | None = None,
    *,
    force: bool = False,
) -> int:
    """Start a run, or go on with the one in ``run``, until it is done.

    Args:
        config: of the run.
        sources: its datasets.
        run: its folder.
        workers: how it is spread.
        saving: when checkpoints are written and which stay.
        threads: of each worker that read samples and draw views.
        provenance: of this command, recorded with its outcome, and with the configuration of a new run; for people.
        pictures_at: steps after which pictures of a few samples are drawn.
        trackers: beside TensorBoard, by name.
        monitoring: when features are measured; None for the default.
        force: whether to go on with the run although another process of this machine trains it; that process then ends.

    Returns:
        The steps that were done before.

    Raises:
        UsageError: if the run does not fit its data, its folder or its workers, or another process trains it.
        CollapseError: if features collapsed, and the run was to end then.
        RunError: if another run is in the folder, or the run failed or was requested to stop.
        StorageError: if a store does not answer.
    """
    if workers.most:
        require("ray", "pretrain")
    for name in trackers:
        require(name, f"pretrain --track {name}")
    if workers.use_gpu and not workers.joins:
        check_gpus(torch.cuda.device_count(), *workers.span, "this machine", may_join=False)
    validated = validate_run(config, sources, run, workers.most, use_gpu=workers.use_gpu, find_devices=workers.find_devices)
    config = validated.config
    if not force:
        check_not_trained(run)
    _delete_temporary_files(run)
    state = checkpoint.load(run, check=check_contents)
    done = state.step if state else 0
    signals.tell_written(written=done > 0)
    if done < config.steps and not workers.quiet:
        write_lines([f"pretrain: {choice}" for choice in validated.choices])
    if done == config.steps:
        _record_config(run, validated, sources, workers.most, done, provenance)
        return done
    job = Job(
        config=config.document(),
        sources=_fix_versions(sources, validated),
        run=run.with_patience(PATIENCE_S),
        saving=saving,
        threads=threads,
        extensions=tuple(list_extensions(config)),
        pictures_at=pictures_at,
        trackers=trackers,
        variables=read_variables() if trackers else {},
        monitoring=monitoring or Monitoring(),
    )
    with _join_cluster(workers):  # before anything is written: the address may be wrong
        _record_config(run, validated, sources, workers.most, done, provenance)
        with AttemptRecord(run, done, provenance), show_run_progress(run, done, config.steps, quiet=workers.quiet) as progress:
            if workers.most:
                train_on_ray(job, workers, progress)
            else:
                progress.stage("preparing the first step")
                device = torch.device("cuda", 0) if workers.use_gpu else torch.device("cpu")
                train(job, 0, 1, device, PROCESS_CONTROL)
    return done


def _fix_versions(sources: Sequence[Source], validated: ValidatedRun) -> tuple[Source, ...]:
    """The datasets at the versions that were validated, in stores that workers ask again."""
    return tuple(
        Source(bucket=source.bucket.with_patience(PATIENCE_S), weight=source.weight, manifest=dataset["manifest"])
        for source, dataset in zip(sources, validated.identity["datasets"], strict=True)
    )


def _record_config(
    run: Bucket,
    validated: ValidatedRun,
    sources: Sequence[Source],
    world: int,
    done: int,
    provenance: dict[str, Any] | None,
) -> None:
    """Write the configuration of a run that is new, or whose configuration is damaged."""
    if validated.damage:
        _LOG.warning("%s", validated.damage)
        EventLog(run, world, "driver").add("damaged", done, validated.damage)
    if validated.damage or not run.exists(CONFIG):
        urls = [hide_secrets(escape_name(source.bucket.url)) for source in sources]
        write_run_config(run, validated.identity, urls, provenance)


@contextlib.contextmanager
def _join_cluster(workers: Workers) -> Iterator[None]:
    """Context in which the cluster of the workers is joined; where Ray is started on this machine, that comes later."""
    if not workers.joins:
        yield
        return
    with contextlib.ExitStack() as stack:
        with show_stage("pretrain", "joining Ray", quiet=workers.quiet):
            stack.enter_context(ray_session(workers.address))
        yield


def _delete_temporary_files(run: Bucket) -> None:
    """Delete files that a killed process was still writing: no name leads to them, so nothing else ever would."""
    if run.is_local:
        for leftover in Path(run.root).rglob(f"{TEMPORARY_PREFIX}*"):
            leftover.unlink(missing_ok=True)


def read_saved_config(run: Bucket) -> Pretraining:
    """Read the configuration that a run was started with.

    Raises:
        UsageError: if there is no run, or it uses modules that are not imported.
    """
    found = read_identity(run)
    if found is None:
        raise UsageError(f"{run.where('')} holds no run to go on with; name a --recipe to start one")
    check_extensions(found.identity.get("extensions"), run.where(""))
    return read_config(found.identity["config"], f"the configuration of {run.where('')}")
