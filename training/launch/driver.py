"""Starts a run, in this process or in Ray Train, and follows its progress and signals."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from crossdim.foundation import signals
from crossdim.foundation.bars import write_lines
from crossdim.foundation.bucket import TEMPORARY_PREFIX, Bucket
from crossdim.foundation.cluster import largest_count, ray_session, starts_here
from crossdim.foundation.extras import require
from crossdim.foundation.location import hide_secrets
from crossdim.foundation.threads import repeat_in_thread
from crossdim.storage_schema.errors import CollapseError, CrossdimError, RunError, StorageError, UsageError
from crossdim.storage_schema.names import escape_name
from crossdim.training.config.device_choice import Device
from crossdim.training.config.pretraining import Pretraining, read_config
from crossdim.training.engine.control import Request
from crossdim.training.engine.monitor import Monitoring
from crossdim.training.extensions import check_extensions, list_extensions
from crossdim.training.launch.devices import find_devices
from crossdim.training.launch.gpus import check_gpus
from crossdim.training.launch.mailbox import DriverMailbox, Phase
from crossdim.training.launch.process_control import PROCESS_CONTROL
from crossdim.training.launch.progress_bar import RunProgress, show_run_progress
from crossdim.training.launch.validate import validate_run
from crossdim.training.launch.waiting import describe_workers, find_wait
from crossdim.training.launch.worker import Job, Source, run_ray_worker, train
from crossdim.training.run_dir import checkpoint
from crossdim.training.run_dir.attempts import AttemptRecord
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.checkpoint_contents import check_contents
from crossdim.training.run_dir.checkpoint_listing import newest_step
from crossdim.training.run_dir.events import EventLog
from crossdim.training.run_dir.layout import CONFIG, RAY
from crossdim.training.run_dir.run_config import write_run_config
from crossdim.training.run_dir.run_identity import read_identity
from crossdim.training.trackers.table import read_variables

_LOG = logging.getLogger(__name__)
#: A store that does not answer is asked again for so long by workers; before they start, a mistyped address is an error at once.
PATIENCE_S = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """The workers of a run: ``least`` to ``most`` of Ray Train; 0 trains in this process, without Ray.

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

    @property
    def span(self) -> tuple[int, int]:
        """The fewest and the most processes that train."""
        return max(1, self.least), max(1, self.most)

    def find_devices(self, *, needed: bool) -> Sequence[Device]:
        """Find the devices that workers may use, see :func:`.devices.find_devices`."""
        joins = self.most > 0 and not starts_here(self.address)
        return find_devices(self.address, use_gpu=self.use_gpu, joins=joins, needed=needed)


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
        monitoring: when features are looked at; None for the default.

    Returns:
        The steps that were done before.

    Raises:
        UsageError: if the run does not fit its data, its folder or its workers.
        CollapseError: if features collapsed, and the run was to end then.
        RunError: if another run is in the folder, or the run failed or was requested to stop.
        StorageError: if a store does not answer.
    """
    if workers.most:
        require("ray", "pretrain")
    for name in trackers:
        require(name, f"pretrain --track {name}")
    if workers.use_gpu and (not workers.most or starts_here(workers.address)):
        check_gpus(torch.cuda.device_count(), *workers.span, "this machine", may_join=False)
    validated = validate_run(config, sources, run, workers.most, use_gpu=workers.use_gpu, find_devices=workers.find_devices)
    config = validated.config
    _delete_temporary_files(run)
    state = checkpoint.load(run, check=check_contents)
    done = state.step if state else 0
    signals.tell_written(written=done > 0)
    if done < config.steps and not workers.quiet:
        write_lines([f"pretrain: {choice}" for choice in validated.choices])
    if validated.damage:
        _LOG.warning("%s", validated.damage)
        EventLog(run, workers.most, "driver").add("damaged", done, validated.damage)
    if validated.damage or not run.exists(CONFIG):
        urls = [hide_secrets(escape_name(source.bucket.url)) for source in sources]
        write_run_config(run, validated.identity, urls, provenance)
    if done < config.steps:
        patient = tuple(
            Source(bucket=source.bucket.with_patience(PATIENCE_S), weight=source.weight, manifest=dataset["manifest"])
            for source, dataset in zip(sources, validated.identity["datasets"], strict=True)
        )
        job = Job(
            config=config.document(),
            sources=patient,
            run=run.with_patience(PATIENCE_S),
            saving=saving,
            threads=threads,
            extensions=tuple(list_extensions(config)),
            pictures_at=pictures_at,
            trackers=trackers,
            variables=read_variables() if trackers else {},
            monitoring=monitoring or Monitoring(),
        )
        attempt = AttemptRecord(run, done, provenance)
        with attempt, show_run_progress(run, done, config.steps, quiet=workers.quiet) as progress:
            if workers.most:
                _train_on_ray(job, workers, progress)
            else:
                progress.stage("preparing the first step")
                device = torch.device("cuda", 0) if workers.use_gpu else torch.device("cpu")
                train(job, 0, 1, device, PROCESS_CONTROL)
    return done


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


def _train_on_ray(job: Job, workers: Workers, progress: RunProgress) -> None:
    """Train with Ray Train; errors of workers are raised as ours."""
    progress.stage("starting Ray" if starts_here(workers.address) else "joining Ray")
    with ray_session(workers.address, num_cpus=max(workers.most, torch.get_num_threads())):
        import ray
        from ray.exceptions import RayError
        from ray.train import RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from crossdim.training.launch.ray_backend import LoopbackTorchConfig, is_loopback
        from crossdim.training.launch.ray_callbacks import RunCallback, WorkerSetupCallback
        from crossdim.training.launch.ray_failures import CheckpointFailurePolicy
        from crossdim.training.launch.ray_scaling import RunTrainer

        where = ray.get_runtime_context().gcs_address
        group = LoopbackTorchConfig if is_loopback(where) else TorchConfig
        if workers.use_gpu:
            may_join = not starts_here(workers.address)
            check_gpus(largest_count("GPU"), *workers.span, f"the Ray cluster at {where}", may_join=may_join)
        # Where the controller is, too: a mailbox on a machine that is lost would end the run.
        here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        mailbox = ray.remote(num_cpus=0, scheduling_strategy=here)(DriverMailbox).remote()
        # Annotations are those of Ray Train's first version.
        callbacks: list[Any] = [RunCallback(job.run, mailbox), WorkerSetupCallback()]
        trainer = RunTrainer(
            lambda: run_ray_worker(job),
            failure_policy=CheckpointFailurePolicy(job.run, mailbox),
            torch_config=group(backend="nccl" if workers.use_gpu else "gloo"),
            scaling_config=ScalingConfig(use_gpu=workers.use_gpu, **_elasticity(workers)),
            run_config=RunConfig(name=RAY, callbacks=callbacks, **_ray_storage(job.run)),
        )
        try:
            with _relay_requests(mailbox, job.run, partial(_show_phase, progress, workers)):
                trainer.fit()
        except TrainingFailedError as error:
            raise _to_crossdim_error(error, mailbox) from error
        except RayError as error:  # of the controller: it lives on this machine, and as long as Ray does
            raise RunError(_describe_loss(job.run, where, " ".join(str(error).split())[:300])) from error


def _describe_loss(run: Bucket, where: str, how: str) -> str:
    remedy = "if the head is gone, bring up another; the same line goes on from the newest checkpoint"
    return f"{run.where('')}: Ray at {where} was lost ({how}); {remedy}"


@contextlib.contextmanager
def _relay_requests(mailbox: Any, run: Bucket, show_phase: Callable[[Phase], None]) -> Iterator[None]:
    """Context in which requests by signals to the driver are put into the mailbox, by a thread: handlers must not call Ray.

    Args:
        mailbox: of the driver.
        run: folder of the run.
        show_phase: is called with what the controller is doing, at first and whenever that changes.
    """
    import ray
    from ray.exceptions import RayError

    shown: Phase | None = None

    def relay() -> None:
        """Put a request into the mailbox; a stop that no worker can answer interrupts the driver."""
        nonlocal shown
        request, phase = PROCESS_CONTROL.take(), Phase.STARTING
        if request is Request.STOP:
            with contextlib.suppress(StorageError):
                signals.tell_written(written=newest_step(run) > 0)
        with contextlib.suppress(RayError):
            phase = ray.get(mailbox.put_request.remote(request))
            if phase is not shown:
                shown = phase
                show_phase(phase)
        if request is Request.STOP and phase is not Phase.TRAINING:
            signals.interrupt()  # no worker is there, so there is nothing to save

    with PROCESS_CONTROL.handle_signals(), repeat_in_thread("requests", 0.2, relay):
        yield


def _show_phase(progress: RunProgress, workers: Workers, phase: Phase) -> None:
    """Show what happens before the next step: workers are started, waited for, or at work on it; nothing if the run ends."""
    least, most = workers.span
    if phase is Phase.TRAINING:
        progress.stage("preparing the first step")
    elif phase is Phase.STARTING:
        unit = "GPU" if workers.use_gpu else "CPU"
        progress.stage(f"starting {describe_workers(least, most)}", partial(find_wait, least, most, unit))


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


def _to_crossdim_error(error: Exception, mailbox: Any) -> CrossdimError:
    """Find the error behind a failed Ray Train run: the reason that the failure policy left, else an error of a worker."""
    import ray
    from ray.exceptions import RayError

    failures = [*getattr(error, "worker_failures", {}).values(), getattr(error, "controller_failure", None)]
    causes = [getattr(one, "cause", None) or getattr(one, "controller_failure", None) or one for one in failures]
    if collapse := next((cause for cause in causes if isinstance(cause, CollapseError)), None):
        return collapse  # its class decides the exit code
    with contextlib.suppress(RayError):
        if reason := ray.get(mailbox.get_failure.remote()):
            return RunError(reason)
    if own := next((cause for cause in causes if isinstance(cause, CrossdimError)), None):
        return own
    return RunError(f"the workers failed: {error}")
