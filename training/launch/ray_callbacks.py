"""Callbacks of a run in Ray Train: checkpoints before workers are restarted, requests of the driver, events in the run's folder.

Ray restarts the workers whenever machines come or go, without a word to them. The newest step is saved first, so that what is
announced costs no training. What was not announced is written as an event.

This uses Ray's callbacks for developers, of the version that pyproject.toml names.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import PreemptingState, ResizingState, ShuttingDownState
from ray.train.v2._internal.execution.failure_handling import FailureDecision

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError
from crossdim.training.engine.control import Request
from crossdim.training.launch.mailbox import Phase
from crossdim.training.launch.network import interface_of
from crossdim.training.launch.process_control import PROCESS_CONTROL, save_in_this_process
from crossdim.training.launch.ray_failures import find_causes, summarize
from crossdim.training.launch.ray_scaling import release_reservation, update_cluster_view
from crossdim.training.run_dir.checkpoint_listing import newest_step
from crossdim.training.run_dir.events import EventLog, Kind
from crossdim.training.run_dir.layout import RAY_REQUESTER

#: How long workers may take to save before they are restarted.
SAVE_TIMEOUT_S = 120.0
#: The last save begins so long before a machine is taken away: these seconds, and so many times what the first took.
PREEMPTION_MARGIN_S, PREEMPTION_MARGIN_SAVES = 3.0, 3.0


class WorkerSetupCallback(WorkerCallback):
    """What a worker does before training, in its main thread: Ray trains in another, and signals come to this one."""

    def after_init_train_context(self) -> None:
        """Handle signals, and reduce gradients over the network that Ray uses.

        Gloo would take the address of the host's name: on Debian that is one that no other machine reaches.
        """
        PROCESS_CONTROL.install_handlers()
        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        if interface := interface_of(address):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


class RunCallback(ControllerCallback, WorkerGroupCallback):
    """Lives in Ray's controller, from the first worker to the end of the run.

    Args:
        run: folder of the run.
        mailbox: handle of the :class:`~.mailbox.DriverMailbox`.
    """

    def __init__(self, run: Bucket, mailbox: Any) -> None:
        self._run, self._mailbox = run, mailbox
        self._events: EventLog | None = None
        self._workers: list[Any] = []
        self._failed = False
        self._last_save_at = math.inf

    def after_controller_start(self, train_run_context: Any) -> None:
        """Release what a driver of this run that was killed had reserved."""
        if self._run.exists(RAY_REQUESTER):
            release_reservation(self._run.read(RAY_REQUESTER).decode(errors="replace"))
        self._run.put(RAY_REQUESTER, f"train-{train_run_context.run_id}".encode())
        update_cluster_view([])

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Remember the workers."""
        self._workers, self._failed, self._last_save_at = worker_group.get_workers(), False, math.inf
        ray.get(self._mailbox.set_phase.remote(Phase.TRAINING))

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        """From now on no worker follows requests; others are started, unless the run ends."""
        ray.get(self._mailbox.set_phase.remote(Phase.STARTING))

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Save if workers are about to be restarted or a machine will be taken away; then again shortly before it goes.

        A run that ends, done, failed or stopped, says so before its workers are shut down: none are started after them.

        Args:
            previous_state: of Ray Train's controller.
            current_state: of Ray Train's controller.
        """
        if isinstance(current_state, ShuttingDownState):
            ray.get(self._mailbox.set_phase.remote(Phase.ENDING))
        if isinstance(current_state, ResizingState):
            decision: Any = current_state.scaling_decision
            self._save("resize", f"{len(self._workers)} workers become {decision.num_workers}")
        if isinstance(current_state, PreemptingState):
            going = f"machines of ranks {sorted(current_state.preemption_info.preempted_ranks)}"
            deadline_ms = current_state.preemption_info.deadline_ms
            if not isinstance(previous_state, PreemptingState):
                began = time.monotonic()
                self._save("preempted", f"{going} will be taken away")
                margin = PREEMPTION_MARGIN_S + PREEMPTION_MARGIN_SAVES * (time.monotonic() - began)
                self._last_save_at = deadline_ms / 1000 - margin if deadline_ms else math.inf
            elif time.time() >= self._last_save_at and not self._failed:
                self._last_save_at = math.inf
                self._save("preempted", f"{going} are about to go")

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Write an event when workers failed, once; follow requests of the driver.

        Raises:
            RunError: to stop as requested: Ray has no other way by which a callback ends a run.
        """
        if worker_group_status.errors and not self._failed:
            self._failed = True
            errors = find_causes(list(worker_group_status.errors.values()))
            self._add_event("lost", newest_step(self._run), summarize(errors))
        request = Request.NOTHING if self._failed else ray.get(self._mailbox.take_request.remote())
        if request is Request.SAVE:
            self._save("asked", "by a signal to the driver")
        if request is Request.STOP:
            step = self._save("stopped", "by a signal to the driver")
            progress = f"step {step} is saved; the same command goes on from here" if step else "nothing was written yet"
            raise RunError(f"{self._run.where('')}: stopped as asked; {progress}")

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """Write an event if the failure policy ends the run; else find out which machines are left."""
        if failure_decision is not FailureDecision.RAISE:
            update_cluster_view(self._workers)
        elif reason := ray.get(self._mailbox.get_failure.remote()):
            self._add_event("failed", newest_step(self._run), reason)

    def _add_event(self, kind: Kind, step: int, text: str) -> None:
        if self._events is None:
            self._events = EventLog(self._run, 0, "controller")
        self._events.add(kind, step, text, workers=len(self._workers))

    def _save(self, why: Kind, text: str) -> int:
        """Have rank 0 save, wait for it, and write an event; workers that cannot save are restarted all the same."""
        began = time.monotonic()
        try:
            saving = self._workers[0].execute_async(save_in_this_process, SAVE_TIMEOUT_S)
            step = ray.get(saving, timeout=SAVE_TIMEOUT_S + 10)
            text += f"; step {step} saved in {time.monotonic() - began:.1f} s" if step else "; nobody trained, nothing was saved"
        except (GetTimeoutError, RayError) as error:
            step, text = None, f"{text}; nothing was saved: {summarize([error])}"
        done: int = newest_step(self._run) if step is None else step
        self._add_event(why, done, text)
        return done
