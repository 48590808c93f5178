"""A run on hosts that fail: one is cut off, one is powered off, the store's cable is thin.

The slow ones by hand, with their times on the screen, in ten minutes on two cores with nothing else to do:
``pytest tests/system/test_hosts.py -o faulthandler_timeout=900 --log-cli-level=INFO``. The seconds that they allow are those
of such a machine: most of a restart is processes that import torch.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import CrossdimError
from crossdim.training.data.dataset import open_dataset
from crossdim.training.run_dir.checkpoint_listing import newest_step
from crossdim.training.run_dir.events import list_events
from crossdim.training.run_dir.metrics import read_metrics, read_recent
from crossdim.training.run_dir.records import read_records
from crossdim.training.run_dir.status import read_status
from tests.system.conftest import crossdim
from tests.system.hosts import DESK, Hosts, address, name, obstacle
from tests.system.lab import DOOMED, STEADY, STORE, Lab, awaited, laboratory
from tests.training.published import publish, superpatches

OBSTACLE = obstacle()
pytestmark = [pytest.mark.system, pytest.mark.timeout(900), pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))]
_LOG = logging.getLogger(__name__)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with laboratory(tmp_path) as found:
        yield found


def _answers(host: int) -> bool:
    """Whether anything comes back from a host: a refusal is an answer."""
    try:
        socket.create_connection((address(host), 9), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except TimeoutError:
        return False
    raise AssertionError("nobody listens at port 9")


def test_a_host_is_cut_off_healed_and_powered_off_and_leaves_nothing_behind() -> None:
    with Hosts(2) as hosts:
        assert hosts.run(0, ["hostname"]).stdout == "host0\n"
        assert hosts.run(0, ["bash", "-c", "echo $$ $PPID"]).stdout.split()[1] == "0"  # our processes are not to be seen there
        assert _answers(0)
        hosts.cut(0)
        assert not _answers(0)
        assert _answers(1)
        hosts.heal(0)
        assert _answers(0)
        sleeper = hosts.start(1, ["sleep", "600"], Path(os.devnull))
        hosts.kill(1)
        assert sleeper.wait(10) != 0
        assert not _answers(1)
        scratch = hosts.run(0, ["printenv", "TMPDIR"]).stdout.strip()
    assert not Path(scratch).exists()
    # The kernel has been seen to show a device for a moment after its deletion was answered.
    awaited(lambda: not Path("/sys/class/net", DESK).exists() or None, "our end of the cable is gone", 10)


def test_a_cable_can_be_thin(tmp_path: Path) -> None:
    """5 MB at 40 Mbit/s take a second, apart from a burst of 256 kB; without the limit a tenth of that is plenty."""
    (tmp_path / "bulk").write_bytes(bytes(5_000_000))
    with Hosts(1) as hosts:
        serve = [sys.executable, "-u", "-m", "http.server", "8000", "--bind", address(0), "--directory", str(tmp_path)]
        hosts.start(0, serve, tmp_path / "log")
        awaited(lambda: "Serving" in (tmp_path / "log").read_text() or None, "the server is up", 30)
        seconds = []
        for mbit in (None, 40):
            if mbit:
                hosts.limit(0, mbit)
            began = time.monotonic()
            with urllib.request.urlopen(f"http://{address(0)}:8000/bulk", timeout=30) as answer:
                assert len(answer.read()) == 5_000_000
            seconds.append(time.monotonic() - began)
    assert seconds[0] < 0.5
    assert 0.9 < seconds[1] < 3


def test_what_fails_among_hosts_leaves_none_behind_and_two_sets_are_refused() -> None:
    started = []

    def fail() -> None:
        with Hosts(1) as hosts:
            started.append(hosts.start(0, ["sleep", "600"], Path(os.devnull)))
            Hosts(1).__enter__()

    with pytest.raises(RuntimeError, match="File exists"):
        fail()
    assert started[0].poll()
    with Hosts(1) as hosts:
        assert hosts.run(0, ["true"]).returncode == 0


@dataclass(frozen=True, kw_only=True)
class Restart:
    """How a run got going again: seconds since what happened to it, and the steps at which it was before and goes on."""

    detected_s: float
    started_s: float
    stepped_s: float
    before: int
    resumed: int

    def tell(self, what: str) -> None:
        times = f"seen by Ray {self.detected_s:.1f}, workers start step {self.resumed} {self.started_s:.1f}"
        _LOG.info("%s at step %d; seconds until: %s, that step is done %.1f", what, self.before, times, self.stepped_s)


def _at(run: Bucket, workers: int, step: int) -> bool:
    """Whether so many workers have trained beyond a step."""
    try:
        now = read_status(run, time.time())
    except CrossdimError:  # there is no run yet
        return False
    return now.workers == workers and now.step > step


def _resumed(run: Bucket, workers: int, since: float) -> dict[str, Any] | None:
    notes = (next(iter(read_records(run, event.path)), None) for event in list_events(run) if event.kind == "resume")
    return next((n for n in notes if n and n["workers"] == workers and n["time_s"] > since), None)


def _restarted(lab: Lab, host: int, alive: bool, workers: int, since: float, before: int) -> Restart:
    """Follow a run from a change of hosts to the first step that is in storage after it."""
    run = lab.bucket("run")
    detected = awaited(lambda: lab.changed(host, alive, since), f"Ray sees that alive is {alive} of {name(host)}")
    note = awaited(lambda: _resumed(run, workers, since), f"{workers} workers go on")
    steps = awaited(lambda: [m for m in read_recent(run, 10**6) if m["time_s"] > note["time_s"]], "a step is in storage")
    return Restart(
        detected_s=detected - since,
        started_s=note["time_s"] - since,
        stepped_s=steps[0]["time_s"] - since,
        before=before,
        resumed=note["step"],
    )


def _two_at_work(lab: Lab, steps: int) -> subprocess.Popen[bytes]:
    """A driver whose two workers have trained for a while, and saved; steps of 0.2 s."""
    publish(lab.bucket("solid"), superpatches(40, side=32), "solid")
    for host in (STEADY, DOOMED):
        lab.join(host)
    driver = lab.drive(_elastic(lab, steps))
    awaited(lambda: _at(lab.bucket("run"), 2, 20), "two workers train")
    awaited(lambda: newest_step(lab.bucket("run")), "a checkpoint is safe")
    return driver


def _elastic(lab: Lab, steps: int) -> list[str]:
    return lab.line("run", "1:2", steps, "--set", "global_batch=32", "--checkpoint-every", "5s", "--resize-every", "5")


def _equals_one_process(lab: Lab, steps: int) -> None:
    """Every step is there once, and trained on the samples that an undisturbed run in one process trains on."""
    crossdim(*lab.line("whole", "0", steps, "--set", "global_batch=32"))
    run, whole = read_metrics(lab.bucket("run")), read_metrics(lab.bucket("whole"))
    assert [m["step"] for m in run] == list(range(steps))
    assert [m["samples"] for m in run] == [m["samples"] for m in whole]
    assert read_status(lab.bucket("run"), time.time()).state == "done"


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_goes_on_without_a_host_that_fell_silent_and_with_it_when_it_is_back(lab: Lab) -> None:
    """Neither end of a cut cable is told: Ray must notice, the workers start again, and the unit brings the host back."""
    driver = _two_at_work(lab, steps=400)
    before, cut = read_status(lab.bucket("run"), time.time()).step, time.time()
    lab.hosts.cut(DOOMED)
    alone = _restarted(lab, DOOMED, False, 1, cut, before)
    alone.tell("cut off")
    before, healed = read_status(lab.bucket("run"), time.time()).step, time.time()
    lab.hosts.heal(DOOMED)
    together = _restarted(lab, DOOMED, True, 2, healed, before)
    together.tell("healed")
    lab.finish(driver)
    _equals_one_process(lab, 400)
    assert alone.stepped_s <= 45


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_goes_on_without_a_host_that_lost_its_power(lab: Lab) -> None:
    """No process on it says goodbye, and it does not come back."""
    driver = _two_at_work(lab, steps=200)
    before, killed = read_status(lab.bucket("run"), time.time()).step, time.time()
    lab.hosts.kill(DOOMED)
    alone = _restarted(lab, DOOMED, False, 1, killed, before)
    alone.tell("powered off")
    lab.finish(driver)
    _equals_one_process(lab, 200)
    assert alone.stepped_s <= 30


@pytest.mark.ray
@pytest.mark.slow
def test_a_thin_cable_to_the_store_shows_as_waiting_for_data(lab: Lab) -> None:
    """200 Mbit/s, 25 MB/s, for steps that want more: the run says that it waits, and how much."""
    publish(lab.bucket("solid"), superpatches(8, side=96), "solid")
    lab.join(STEADY)
    driver = lab.drive(lab.line("run", "1", 200, "--checkpoint-every", "200"))
    run = lab.bucket("run")
    awaited(lambda: _at(run, 1, 100), "the worker trains")
    lab.hosts.limit(STORE, 200)
    thin = len(read_recent(run, 10**6)) + 20  # by then what was fetched ahead is used up, and what was not yet noted is done
    lab.finish(driver)
    lines = read_metrics(run)
    bytes_a_step = 8 * statistics.mean(open_dataset(lab.bucket("solid")).table["length"].to_pylist())
    wide, narrow = (_flow(part, bytes_a_step) for part in (lines[20:100], lines[thin:]))
    wait_share = json.loads(crossdim("status", run.url, "--json", *lab.arguments))["wait_share"]
    _LOG.info("%.2f MB a step; MB/s and share of waiting: wide %.1f, %.0f%%", bytes_a_step / 1e6, wide[0] / 1e6, 100 * wide[1])
    _LOG.info("at 200 Mbit/s: %.1f, %.0f%%; crossdim status says %.0f%%", narrow[0] / 1e6, 100 * narrow[1], 100 * wait_share)
    assert 0.6 * 25e6 < narrow[0] < 25e6 * 1.05
    assert narrow[1] > max(0.5, 1.5 * wide[1])
    assert wait_share == pytest.approx(narrow[1], abs=0.1)


def _flow(lines: list[dict[str, Any]], bytes_a_step: float) -> tuple[float, float]:
    """Bytes a second and the share of waiting of steps in a row."""
    spent = sum(line["step_s"] for line in lines)
    return len(lines) * bytes_a_step / spent, sum(line["wait_s"] for line in lines) / spent
