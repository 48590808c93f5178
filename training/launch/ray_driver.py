"""Trains a run with Ray Train, and relays requests and errors between its workers and this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from crossdim.foundation import signals
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.cluster import largest_count, ray_session
from crossdim.foundation.threads import repeat_in_thread
from crossdim.storage_schema.errors import CollapseError, CrossdimError, RunError, StorageError
from crossdim.training.engine.control import Request
from crossdim.training.launch.gpus import check_gpus
from crossdim.training.launch.mailbox import DriverMailbox, Phase
from crossdim.training.launch.process_control import PROCESS_CONTROL
from crossdim.training.launch.progress_bar import RunProgress
from crossdim.training.launch.waiting import describe_workers, find_wait
from crossdim.training.launch.worker import Job, run_ray_worker
from crossdim.training.launch.workers import Workers
from crossdim.training.run_dir.checkpoint_listing import newest_step
from crossdim.training.run_dir.layout import RAY


def train_on_ray(job: Job, workers: Workers, progress: RunProgress) -> None:
    """Train with Ray Train; errors of workers are raised as ours.

    Args:
        job: what each worker does.
        workers: how the run is spread.
        progress: shows what is waited for before the first step.

    Raises:
        RunError: if the run failed or was requested to stop, or Ray was lost.
    """
    if not workers.joins:
        progress.stage("starting Ray")
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
            check_gpus(largest_count("GPU"), *workers.span, f"the Ray cluster at {where}", may_join=workers.joins)
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
