"""Chaos on real Ray clusters: nodes, workers, heads and drivers are killed; the run goes on and the experiment stays the same.

Figures are on the screen: ``pytest --log-cli-level=INFO tests/system/test_chaos.py -k NAME``; the slow ones by hand.
"""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from benchmarks.losses import Loss, cost, summary
from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir.events import list_events
from crossdim.training.run_dir.layout import CONFIG
from crossdim.training.run_dir.metrics import read_metrics
from tests.system.conftest import crossdim
from tests.system.nodes import (
    MARKS,
    PATIENCE_S,
    TOLERANCE,
    Fixed,
    Nodes,
    awaited,
    cluster,
    failed,
    line,
    noted,
    saved_step,
    started,
    stopped,
    workers_train,
)

pytestmark = [*MARKS, pytest.mark.timeout(1800)]
_LOG = logging.getLogger(__name__)
SEED = 7
#: What may be lost of training, with checkpoints every 5 s: those, the copy that was being written, and a busy machine.
MOST_REDONE_S = 10.0
#: From the end of a node to the next step, on a machine that does nothing else.
MOST_SECONDS = 30.0
#: Within that a driver without a head says so.
MOST_SILENCE_S = 90.0
#: So long Ray keeps what a driver that was killed had reserved.
RESERVED_S = 180.0
#: Seconds from the notice to the end of a node: a cloud's are 30 to 120.
NOTICE_S = 30
#: Of a worker, in the run whose goodput is measured.
LOSSES = 5


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    with cluster(monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Fixed:
    return Fixed(tmp_path_factory.mktemp("fixed"))


@pytest.fixture
def run(tmp_path: Path) -> Bucket:
    return Bucket(str(tmp_path / "run"))


def elastic(nodes: Nodes, workers: str) -> tuple[str, ...]:
    return ("--workers", workers, "--ray-address", nodes.address, "--resize-every", "3", "--checkpoint-every", "5s")


def same_experiment(fixed: Fixed, run: Bucket) -> None:
    difference = fixed.difference(run)
    _LOG.info("largest difference of losses: %.2e", difference)
    assert difference < TOLERANCE


def node_lost(nodes: Nodes, run: Bucket, process: Popen[str], began: dict[str, Any], chance: random.Random) -> Loss:
    """Kill a node at some moment after a checkpoint; what that cost until the others train."""
    saved_step(run, process, began["number"])
    time.sleep(chance.uniform(0, 5))  # a moment as good as any other
    at = nodes.kill(chance.randrange(len(nodes)))
    resumed = workers_train(run, process, len(nodes), after=began["number"])
    return cost(run, at, resumed)


@pytest.mark.parametrize(("losses", "most_s"), [(1, PATIENCE_S), pytest.param(5, MOST_SECONDS, marks=pytest.mark.slow)])
def test_nodes_are_killed_and_replaced(losses: int, most_s: float, nodes: Nodes, fixed: Fixed, run: Bucket) -> None:
    chance, costs = random.Random(SEED), []
    nodes.add(2)
    with started(*line(fixed.data, run, *elastic(nodes, "1:2"))) as process:
        began = workers_train(run, process, 2, after=0)
        for _ in range(losses):
            costs.append(node_lost(nodes, run, process, began, chance))
            _LOG.info("%s", costs[-1])
            alone = workers_train(run, process, 1, after=began["number"])
            nodes.add()
            began = workers_train(run, process, 2, after=alone["number"])
        stopped(process)
    _LOG.info("%s", summary(costs))
    same_experiment(fixed, run)
    assert max(loss.redone_s for loss in costs) <= MOST_REDONE_S
    assert max(loss.seconds for loss in costs) <= most_s


@pytest.mark.slow
@pytest.mark.parametrize("lose", [Nodes.kill_head, Nodes.silence_head])
def test_a_run_whose_head_is_lost_ends_in_a_sentence_and_goes_on_at_a_new_head(
    lose: Callable[[Nodes], float], fixed: Fixed, run: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(monkeypatch) as nodes:
        nodes.add(2)
        command = line(fixed.data, run, *elastic(nodes, "1:2"))
        with started(*command) as process:
            began = workers_train(run, process, 2, after=0)
            saved = saved_step(run, process, began["number"])
            at = lose(nodes)
            sentence = failed(process)
        seconds = time.time() - at
        _LOG.info("the head was lost: the driver ended %.1f s later: %s", seconds, sentence)
    with cluster(monkeypatch, int(nodes.address.rsplit(":", 1)[1])) as anew:
        anew.add(2)
        with started(*command) as process:
            assert workers_train(run, process, 2, after=began["number"])["step"] >= saved
            stopped(process)
    same_experiment(fixed, run)
    assert nodes.address in sentence
    assert seconds <= MOST_SILENCE_S


def test_a_run_whose_driver_is_killed_goes_on_with_the_same_line(nodes: Nodes, fixed: Fixed, run: Bucket) -> None:
    nodes.add(2)
    command = line(fixed.data, run, *elastic(nodes, "1:2"))
    with started(*command) as process:
        began = workers_train(run, process, 2, after=0)
        saved = saved_step(run, process, began["number"])
        at = time.time()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    newest = list_events(run)[-1].number
    with started(*command) as process:
        resumed = workers_train(run, process, None, after=newest)
        stopped(process)
    _LOG.info("the driver was killed: %.1f s later the same line went on at step %d", resumed["time_s"] - at, resumed["step"])
    same_experiment(fixed, run)
    assert resumed["step"] >= saved
    assert resumed["time_s"] - at < RESERVED_S


@pytest.mark.slow
def test_a_worker_is_killed_and_its_node_is_used_again(nodes: Nodes, fixed: Fixed, run: Bucket) -> None:
    nodes.add(2)
    with started(*line(fixed.data, run, *elastic(nodes, "1:2"))) as process:
        began = workers_train(run, process, 2, after=0)
        saved_step(run, process, began["number"])
        at = nodes.kill_worker(0)
        loss = cost(run, at, workers_train(run, process, 2, after=began["number"]))
        stopped(process)
    _LOG.info("a worker was killed: %s", loss)
    same_experiment(fixed, run)
    assert loss.redone_s <= MOST_REDONE_S


@pytest.mark.slow
def test_a_node_that_is_taken_away_with_notice_costs_a_few_steps(nodes: Nodes, fixed: Fixed, run: Bucket) -> None:
    """Checkpoints are far apart: what is saved is saved because of the notice."""
    nodes.add(2)
    with started(*line(fixed.data, run, *elastic(nodes, "1:2"), "--checkpoint-every", "1000s")) as process:
        began = workers_train(run, process, 2, after=0)
        gone_at = nodes.drain(1, NOTICE_S)
        first = awaited(run, process, lambda: noted(run, "preempted", began["number"]))
        last = awaited(run, process, lambda: noted(run, "preempted", first["number"]))
        awaited(run, process, lambda: time.time() >= gone_at)
        at = nodes.kill(1)
        resumed = workers_train(run, process, 1, after=began["number"])
        stopped(process)
    in_vain = at - next(record["time_s"] for record in read_metrics(run) if record["step"] == resumed["step"] - 1)
    _LOG.info("drained: %s; %s; resumed %.1f s after it was gone, %.1f s in vain", first, last, resumed["time_s"] - at, in_vain)
    same_experiment(fixed, run)
    assert first["step"] > began["step"]
    assert resumed["step"] == last["step"]
    assert in_vain <= MOST_REDONE_S
    assert resumed["time_s"] - at <= MOST_SECONDS  # Ray itself would first wait for workers on the node that goes


def test_signals_to_the_driver_save_and_stop_and_the_same_line_finishes(nodes: Nodes, fixed: Fixed, run: Bucket) -> None:
    nodes.add(2)
    command = line(fixed.data, run, *elastic(nodes, "2"), "--checkpoint-every", "1000s", "--steps", "400")
    with started(*command) as process:
        began = workers_train(run, process, 2, after=0)
        process.send_signal(signal.SIGUSR1)
        asked = awaited(run, process, lambda: noted(run, "asked", began["number"]))
        sentence = stopped(process)
    end = noted(run, "stopped", asked["number"])
    assert end is not None
    assert 0 < asked["step"] <= end["step"]
    assert f"step {end['step']} is saved; the same command goes on from here" in sentence
    assert f"trained from step {end['step']} to 400" in crossdim(*command)
    assert [record["step"] for record in read_metrics(run)] == list(range(400))


def test_a_step_that_fails_whenever_it_is_tried_ends_the_run_after_three_starts(fixed: Fixed, run: Bucket) -> None:
    hopeless = ("--set", 'optimizer={"kind": "sgd", "lr": 1e30}')
    with started(*line(fixed.data, run, "--workers", "1", *hopeless)) as process:
        sentence = failed(process)
    assert re.search(
        r"3 starts in a row from step 0 failed .*1\. .*not finite.* 2\. .*not finite.* 3\. .*not finite", sentence
    ), sentence
    assert [event.kind for event in list_events(run)].count("start") == 3


def test_a_worker_that_refuses_ends_the_run_at_once(fixed: Fixed, run: Bucket) -> None:
    """The run's configuration is gone, so the driver sees no difference; the checkpoint is of another run."""
    few = ("--steps", "3", "--workers")
    crossdim(*line(fixed.data, run, *few, "0"))
    run.delete(CONFIG)
    known = len(list_events(run))
    with started(*line(fixed.data, run, *few, "1", "--set", "seed=1", "--steps", "4")) as process:
        sentence = failed(process)
    assert "the checkpoint of step 3 is of another run: seed was" in sentence
    assert [event.kind for event in list_events(run)[known:]] == ["lost", "failed"]


@pytest.mark.slow
def test_goodput_of_a_run_that_loses_a_worker_a_minute(nodes: Nodes, fixed: Fixed, run: Bucket) -> None:
    """One loss in 30 minutes and a checkpoint every 30 s, 30 times as fast: a loss a minute of training, a checkpoint a second.

    A loss at any moment between two checkpoints costs half their distance: 15 s of 1,800, or 0.5 s of 60, that is 0.8 %, and
    what is being written when it comes. Restarts are what they are here: not 30 times as fast, so goodput in time is lower than
    it would be.
    """
    chance, losses = random.Random(SEED), []
    nodes.add(2)
    with started(*line(fixed.data, run, *elastic(nodes, "2"), "--checkpoint-every", "1s")) as process:
        began = workers_train(run, process, 2, after=0)
        first = began["time_s"]
        for _ in range(LOSSES):
            until = began["time_s"] + chance.uniform(0.5, 1.5) * 60
            awaited(run, process, lambda until=until: time.time() >= until)
            at = nodes.kill_worker(chance.randrange(2))
            began = workers_train(run, process, 2, after=began["number"])
            losses.append(cost(run, at, began))
            _LOG.info("%s", losses[-1])
        awaited(run, process, lambda: time.time() >= began["time_s"] + 60)
        stopped(process)
    lines = read_metrics(run)
    step_s = statistics.median(record["step_s"] for record in lines)
    in_vain = sum(loss.redone_s for loss in losses) / step_s
    steps, seconds = (
        len(lines) / (len(lines) + in_vain),
        sum(record["step_s"] for record in lines) / (lines[-1]["time_s"] - first),
    )
    _LOG.info("%s", summary(losses))
    _LOG.info(
        "goodput: %.1f%% of %.0f steps made were of use; %.1f%% of the time", 100 * steps, len(lines) + in_vain, 100 * seconds
    )
    assert steps >= 0.95
