"""Census: which machines Ray Train counts on when it decides how many workers there can be.

Ray keeps its picture of a cluster for 20 s, and counts machines in that are about to be taken away: workers that are started
for such a machine, or for one that is no more, are waited for until the start is given up. So the picture is renewed before
workers are restarted, and machines that are being drained are left out of it.

Of Ray's internals, of the version that pyproject.toml names, this uses the book keeper and the elastic policy.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Sequence
from typing import Any, cast

import ray
from ray._private.state import state as cluster_state
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.exceptions import ActorDiedError, RayError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy
from ray.train.v2._internal.execution.scaling_policy.scaling_policy import ScalingDecision

#: How long Ray may take to find out which machines are lost; its workers are often quicker.
COUNT_PATIENCE_S = 30.0
BOOKS_PATIENCE_S = 5.0


class Staying(ElasticScalingPolicy):
    """Ray's elastic policy, without machines that were told to go, unless workers train there: those do until the end."""

    _ours: frozenset[str] = frozenset()

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Nobody trains: no worker can be started on a machine that goes, and an answer of before the loss is worth nothing."""
        if self._ours:
            self._ours, self._latest_reserved_resources_query_time = frozenset(), -math.inf
        return super().make_decision_for_non_running_worker_group()

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> ScalingDecision:
        """The warden and Ray see to the workers on machines that go; a restart only for them would come too early."""
        self._ours = frozenset(worker.metadata.node_id for worker in worker_group_state.workers)
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)

    def _get_reserved_resources(self) -> dict[str, dict[str, float]] | None:
        reserved: dict[str, dict[str, float]] | None = super()._get_reserved_resources()
        if reserved is None:
            return None
        going = set(cluster_state.get_draining_nodes()) - self._ours
        return {node: resources for node, resources in reserved.items() if node not in going}


class Trainer(TorchTrainer):
    """Ray's trainer for PyTorch; elastic runs count only on machines that stay."""

    def _initialize_and_run_controller(self, **how: Any) -> Any:
        policy, above = how["scaling_policy"], cast(Any, super())  # annotations are those of Ray Train's first version
        if isinstance(policy, ElasticScalingPolicy):
            policy = Staying(scaling_config=policy.scaling_config)
        return above._initialize_and_run_controller(**how | {"scaling_policy": policy})

    def _register_sigint_handler(self, controller: Any) -> None:
        """Ray's handler ends the run without a checkpoint; ours are set already."""


def recount(workers: Sequence[Any]) -> None:
    """Have Ray Train's picture of the cluster renewed, once Ray itself knows which of the workers' machines are lost."""
    deadline = time.monotonic() + COUNT_PATIENCE_S
    for worker in workers:
        while not _is_known(worker) and time.monotonic() < deadline:
            time.sleep(0.1)
    with contextlib.suppress(RayError):  # it is renewed by itself, only later
        ray.get(_books().get_reserved_resources.remote("", recompute=True), timeout=BOOKS_PATIENCE_S)


def release(requester: str) -> None:
    """Give back what a run had reserved: of a driver that was killed Ray keeps it for 3 minutes, and starts nobody."""
    with contextlib.suppress(RayError):
        ray.get(_books().cancel_request.remote(requester), timeout=BOOKS_PATIENCE_S)


def _books() -> Any:
    """Who keeps Ray Train's picture of the cluster, and what is reserved in it: an actor for all runs there."""
    return get_or_create_autoscaling_coordinator()  # type: ignore[no-untyped-call]


def _is_known(worker: Any) -> bool:
    """Whether a worker answers, or Ray has found out that it is dead; between the two it only cannot be reached."""
    try:
        ray.get(worker.execute_async(os.getpid), timeout=1)
    except ActorDiedError:
        return True
    except RayError:
        return False
    return True
