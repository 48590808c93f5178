"""Which machines Ray Train counts on when it decides how many workers there can be.

Ray keeps its view of a cluster for 20 s, and counts machines that are about to be taken away: workers that are started on such
a machine, or on one that is gone, are waited for until the start is given up. So the view is updated before workers are
restarted, and machines that are being drained are left out of it.

Of Ray's internals, of the version that pyproject.toml names, this uses the autoscaling coordinator, the elastic policy and the
arguments of the controller.
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
from ray.train.v2._internal.execution.failure_handling import FailurePolicy
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy
from ray.train.v2._internal.execution.scaling_policy.scaling_policy import ScalingDecision

#: How long Ray may take to find out which machines are lost; its workers often notice sooner.
LOSS_TIMEOUT_S = 30.0
COORDINATOR_TIMEOUT_S = 5.0


class DrainAwareScalingPolicy(ElasticScalingPolicy):
    """Ray's elastic policy without machines that are being drained, unless workers train there: those do until the end."""

    _own_nodes: frozenset[str] = frozenset()

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Decide without workers: none can start on a machine that goes, and a view from before the loss is out of date."""
        if self._own_nodes:
            self._own_nodes, self._latest_reserved_resources_query_time = frozenset(), -math.inf
        return super().make_decision_for_non_running_worker_group()

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> ScalingDecision:
        """Decide with workers: those on machines that go are saved and restarted by Ray when they go, and not earlier.

        Args:
            worker_group_state: Ray's, with the node of each worker.
            worker_group_status: Ray's, of the last poll.

        Returns:
            Ray's decision: to keep the workers, or to restart another number of them.
        """
        self._own_nodes = frozenset(worker.metadata.node_id for worker in worker_group_state.workers)
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)

    def _get_reserved_resources(self) -> dict[str, dict[str, float]] | None:
        reserved: dict[str, dict[str, float]] | None = super()._get_reserved_resources()
        if reserved is None:
            return None
        draining = set(cluster_state.get_draining_nodes()) - self._own_nodes
        return {node: resources for node, resources in reserved.items() if node not in draining}


class RunTrainer(TorchTrainer):
    """Ray's trainer for PyTorch with our policies.

    Args:
        *args: as of ``TorchTrainer``.
        failure_policy: decides whether workers are started again.
        **kwargs: as of ``TorchTrainer``.
    """

    def __init__(self, *args: Any, failure_policy: FailurePolicy, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._failure_policy = failure_policy

    def _initialize_and_run_controller(self, **how: Any) -> Any:
        policy, parent = how["scaling_policy"], cast(Any, super())  # annotations are those of Ray Train's first version
        if isinstance(policy, ElasticScalingPolicy):
            policy = DrainAwareScalingPolicy(scaling_config=policy.scaling_config)
        return parent._initialize_and_run_controller(**how | {"scaling_policy": policy, "failure_policy": self._failure_policy})

    def _register_sigint_handler(self, controller: Any) -> None:
        """Install none: Ray's handler ends the run without a checkpoint, and ours are installed already."""


def update_cluster_view(workers: Sequence[Any]) -> None:
    """Have Ray Train's view of the cluster updated, once Ray knows which of the workers' machines are lost."""
    deadline = time.monotonic() + LOSS_TIMEOUT_S
    for worker in workers:
        while not _is_known(worker) and time.monotonic() < deadline:
            time.sleep(0.1)
    with contextlib.suppress(RayError):  # it is updated by itself, only later
        ray.get(_coordinator().get_reserved_resources.remote("", recompute=True), timeout=COORDINATOR_TIMEOUT_S)


def release_reservation(requester: str) -> None:
    """Release what a run had reserved: of a driver that was killed Ray keeps it for 3 minutes, and starts no workers."""
    with contextlib.suppress(RayError):
        ray.get(_coordinator().cancel_request.remote(requester), timeout=COORDINATOR_TIMEOUT_S)


def _coordinator() -> Any:
    """The actor that keeps Ray Train's view of the cluster and what is reserved in it, for all runs there."""
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
