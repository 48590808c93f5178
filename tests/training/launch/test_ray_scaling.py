"""The scaling policy: which machines are counted on, with a coordinator that answers as told.

With real machines that go: ``tests/system/test_chaos.py -k with_notice`` and ``tests/system/test_hosts.py``, by hand.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import create_scaling_policy
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy

from crossdim.training.launch.ray_scaling import DrainAwareScalingPolicy, cluster_state

ANSWER = {"a": {"CPU": 1.0}, "b": {"CPU": 1.0}, "c": {"CPU": 1.0}}


class Coordinator:
    """What Ray's coordinator answers, and how often it was asked; its policy's own memory of a second stays in place."""

    def __init__(self, policy: Any, monkeypatch: pytest.MonkeyPatch, going: dict[str, int]) -> None:
        self.requests, self.answer = 0, dict(ANSWER)
        remote = SimpleNamespace(remote=self._reserved)
        monkeypatch.setattr(
            type(policy), "_autoscaling_coordinator", SimpleNamespace(get_reserved_resources=remote), raising=False
        )
        monkeypatch.setattr("ray.train.v2._internal.execution.scaling_policy.elastic.ray.get", lambda found, timeout: found)
        monkeypatch.setattr(type(policy), "_maybe_send_resource_request", lambda self: None)
        monkeypatch.setattr(cluster_state, "get_draining_nodes", lambda: going)

    def _reserved(self, requester: str) -> dict[str, dict[str, float]]:
        self.requests += 1
        return dict(self.answer)


def _policy() -> DrainAwareScalingPolicy:
    return DrainAwareScalingPolicy(scaling_config=ScalingConfig(num_workers=(1, 4), elastic_resize_monitor_interval_s=0))


def _on(*nodes: str) -> Any:
    workers = [SimpleNamespace(metadata=SimpleNamespace(node_id=node)) for node in nodes]
    return SimpleNamespace(workers=workers, start_time=0.0, num_workers=len(workers))


def test_nobody_is_started_on_a_machine_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own policy does, and waits for it: the day this fails for Ray's, ours can go."""
    policy, theirs = _policy(), create_scaling_policy(_policy().scaling_config)
    assert isinstance(theirs, ElasticScalingPolicy)
    for each, expected in ((policy, 2), (theirs, 3)):
        Coordinator(each, monkeypatch, going={"b": 0})
        assert each.make_decision_for_non_running_worker_group().num_workers == expected


def test_workers_stay_on_their_machine_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resize only because of the notice would come early, and a machine that goes is no reason to grow either."""
    policy = _policy()
    Coordinator(policy, monkeypatch, going={"b": 0, "c": 0})
    decision: Any = policy.make_decision_for_running_worker_group(_on("a", "b"), None)
    assert not hasattr(decision, "num_workers")
    assert policy.make_decision_for_non_running_worker_group().num_workers == 1


def test_an_answer_of_before_a_loss_is_not_used_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = _policy()
    coordinator = Coordinator(policy, monkeypatch, going={})
    policy.make_decision_for_running_worker_group(_on("a", "b", "c"), None)
    del coordinator.answer["c"]
    assert policy.make_decision_for_non_running_worker_group().num_workers == 2
    assert coordinator.requests == 2
    policy.make_decision_for_non_running_worker_group()
    assert coordinator.requests == 2  # while it waits for machines, Ray's second holds
