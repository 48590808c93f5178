"""Warden: who watches over the workers of a run from Ray's controller: saves before they are taken away, counts what fails.

Ray restarts the workers whenever machines come or go, and asks nobody. The warden has the newest step saved first, so that
what is announced costs no training. What was not announced is told in the run's folder; and a run that fails without getting
on is ended, because Ray's own budget of failures does not know progress.

It stands on Ray's callbacks for developers, of the version that pyproject.toml names; nothing else of ours does.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import PreemptingState, ResizingState

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import CrossdimError, RunError, StepError, StorageError
from crossdim.training.engine.control import HERE, Ask, save_here
from crossdim.training.launch.network import interface_of
from crossdim.training.launch.ray_scaling import recount, release
from crossdim.training.run_dir.checkpoint_listing import newest_step
from crossdim.training.run_dir.events import EventLog, Kind

#: A step that fails so often, one after the other, is no accident.
ATTEMPTS = 3
#: How long workers may take to save before they are restarted.
SAVE_PATIENCE_S = 120.0
#: The last save begins so long before a machine is taken away: these seconds, and so many times what the first took.
PREEMPTION_MARGIN_S, PREEMPTION_MARGIN_SAVES = 3.0, 3.0
#: The name under which the newest driver of a run has reserved machines, among Ray's own notes.
REQUESTER = "ray/requester"


class Box:
    """Where the driver leaves what it was asked: an actor, because the controller is in another process."""

    def __init__(self) -> None:
        self._asked, self._watched = Ask.NOTHING, False

    def ask(self, what: Ask) -> bool:
        """Leave it; whether there are workers for whom it will be taken."""
        self._asked = max(self._asked, what)
        return self._watched

    def watch(self, *, watched: bool) -> None:
        """Say whether there are workers now."""
        self._watched = watched

    def take(self) -> Ask:
        """What was left; from now on nothing is."""
        taken, self._asked = self._asked, Ask.NOTHING
        return taken


class Readiness(WorkerCallback):
    """What a worker does before training, in its main thread: Ray trains in another, and signals come to this one."""

    def after_init_train_context(self) -> None:
        """Hear signals, and reduce gradients over the network that Ray uses.

        Gloo would take what the host's name stands for: on Debian that is an address that no other machine reaches.
        """
        HERE.hear()
        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        if interface := interface_of(address):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


@dataclass(kw_only=True, slots=True)
class Guard:
    """Counts failures in a row that no checkpoint lies between."""

    step: int = -1
    count: int = 0
    reasons: list[str] = field(default_factory=list)

    def verdict(self, saved: int, errors: Sequence[BaseException]) -> str | None:
        """Why not to try again; None to try again."""
        if saved > self.step:
            self.step, self.count, self.reasons = saved, 0, []
        self.count += 1
        self.reasons.append(sentence(errors))
        final = [e for e in errors if isinstance(e, CrossdimError) and not isinstance(e, StorageError | StepError)]
        if final:
            return sentence(final)
        if self.count < ATTEMPTS:
            return None
        told = "; ".join(f"{number}. {reason}" for number, reason in enumerate(self.reasons, 1))
        return (
            f"{self.count} starts in a row from step {saved} failed before the next checkpoint: {told}. If machines were lost "
            "and no step is at fault, the same line goes on; a lower --checkpoint-every lets a run get further between losses"
        )


def sentence(errors: Sequence[BaseException]) -> str:
    """What went wrong, told once; of errors that follow from one another the one that is ours."""
    ours = [str(e) for e in errors if isinstance(e, CrossdimError)]
    return ours[0] if ours else next((" ".join(str(e).split())[:300] for e in errors), "no reason was given")


class Warden(ControllerCallback, WorkerGroupCallback):
    """Lives in the controller, from the first worker to the end of the run."""

    def __init__(self, run: Bucket, box: Any) -> None:
        self._run, self._box, self._guard = run, box, Guard()
        self._events: EventLog | None = None
        self._workers: list[Any] = []
        self._failed = False
        self._verdict: str | None = None
        self._last_save_at = math.inf

    def after_controller_start(self, train_run_context: Any) -> None:
        """Give back what a driver of this run that was killed had reserved."""
        if self._run.exists(REQUESTER):
            release(self._run.read(REQUESTER).decode(errors="replace"))
        self._run.put(REQUESTER, f"train-{train_run_context.run_id}".encode())
        recount([])

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Keep hold of the workers."""
        self._workers, self._failed, self._last_save_at = worker_group.get_workers(), False, math.inf
        ray.get(self._box.watch.remote(watched=True))

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        """From now on nobody answers."""
        ray.get(self._box.watch.remote(watched=False))

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Workers are about to be restarted, or a machine will be taken away: save now; of a machine also shortly before."""
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
        """Tell of workers that failed, once, and count; look into the driver's box."""
        if worker_group_status.errors and not self._failed:
            self._failed = True
            errors = [getattr(error, "cause", None) or error for error in worker_group_status.errors.values()]
            saved = newest_step(self._run)
            self._note("lost", saved, sentence(errors))
            self._verdict = self._guard.verdict(saved, errors)
        asked = Ask.NOTHING if self._failed else ray.get(self._box.take.remote())
        if asked is Ask.SAVE:
            self._save("asked", "by a signal to the driver")
        if asked is Ask.STOP:
            step = self._save("stopped", "by a signal to the driver")
            told = f"step {step} is saved; the same command goes on from here" if step else "nothing was written yet"
            raise RunError(f"{self._run.where('')}: stopped as asked; {told}")

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """End what will not get on; for what will, see who is left."""
        if self._verdict:
            self._note("failed", newest_step(self._run), self._verdict)
            raise RunError(self._verdict)
        recount(self._workers)

    def _note(self, kind: Kind, step: int, text: str) -> None:
        """Write an event, under the controller's name."""
        if self._events is None:
            self._events = EventLog(self._run, 0, "controller")
        self._events.add(kind, step, text, workers=len(self._workers))

    def _save(self, why: Kind, text: str) -> int:
        """Have rank 0 save and wait for it; workers that cannot any more are told of, and restarted all the same."""
        began = time.monotonic()
        try:
            step = ray.get(self._workers[0].execute_async(save_here, SAVE_PATIENCE_S), timeout=SAVE_PATIENCE_S + 10)
            text += f"; step {step} saved in {time.monotonic() - began:.1f} s" if step else "; nobody trained, nothing was saved"
        except (GetTimeoutError, RayError) as error:
            step, text = None, f"{text}; nothing was saved: {sentence([error])}"
        done: int = newest_step(self._run) if step is None else step
        self._note(why, done, text)
        return done
