"""The systemd units of deploy, read and run: jobs handed in through the dashboard, and a worker that was cut off."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.manifest import parse_manifest
from crossdim.training.run_dir.metrics import read_metrics
from demo.phantoms import write_phantoms
from tests.programs import PROGRAMS, RAY
from tests.system.conftest import REPOSITORY
from tests.system.units import HEAD, WORKER, Supervised, awaited, environment, text, unit

#: What travels with a job: no tests, no benchmarks, nothing of the machine that hands it in.
PACKAGES = ("crossdim", "storage_schema", "foundation", "pipelines", "training")


def running(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that starts the cluster."""
    return pytest.mark.ray(pytest.mark.system(pytest.mark.timeout(900)(test)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Supervised]:
    """A head without CPUs and a worker with two."""
    # A short path, because Ray puts sockets into it.
    with (
        tempfile.TemporaryDirectory(prefix="cd-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        contextlib.closing(Supervised(Path(folder))) as running,
    ):
        ports = (f"--dashboard-port={running.dashboard}", f"--dashboard-agent-listen-port={running.agent}")
        running.run(HEAD, f"--port={running.port}", *ports)
        awaited(running.up, lambda: running.log(HEAD))
        running.run(WORKER, f"--address=127.0.0.1:{running.port}", "--num-cpus=2", "--dashboard-agent-listen-port=0")
        awaited(running.workers, lambda: running.log(WORKER))
        yield running


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory as one hands it in."""
    folder = tmp_path_factory.mktemp("sources")
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, folder / package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@running
def test_a_dataset_and_a_run_are_made_by_jobs(cluster: Supervised, sources: Path, tmp_path: Path) -> None:
    """The verbs find cluster and token by themselves, their code is what was handed in, and their work is done elsewhere."""
    write_phantoms(tmp_path, seed=1, images_per_label=4, volumes_per_label=0)
    data, run = tmp_path / "flat", tmp_path / "run"
    line = ("prepare", str(tmp_path / "xray"), "--recipe", "xray-pseudo3d:tiny", "--out", str(data), "--label", "folder")
    prepared = cluster.submit(sources, "python", "-m", "pipelines", *line, OMP_NUM_THREADS="1")
    _succeeded(*prepared)
    manifest = parse_manifest((data / "manifest.json").read_bytes(), "flat")
    assert (manifest.num_samples, manifest.num_quarantined) == (12, 0)

    where = ("--data", str(data), "--out", str(run))
    line = ("pretrain", "--recipe", "cdssl-p3d:tiny", *where, "--workers", "1", "--steps", "4")
    _succeeded(*cluster.submit(sources, "python", "-m", "training", *line, OMP_NUM_THREADS="1"))
    found = read_metrics(Bucket(str(run)))
    assert [row["step"] for row in found] == [0, 1, 2, 3]
    assert all(math.isfinite(row["loss"]) for row in found)


#: What a job prints of the code that its driver and a worker import.
WHERE = """
import crossdim, ray
ray.init(logging_level="ERROR")
@ray.remote
def code():
    import crossdim.pipelines.jobs.prepare as prepare
    return crossdim.__version__, prepare.__file__
import crossdim.training.cli as cli
print("driver", crossdim.__version__, cli.__file__)
print("worker", *ray.get(code.remote()))
"""


@running
def test_code_that_is_handed_in_wins_over_what_is_installed(cluster: Supervised, sources: Path, tmp_path: Path) -> None:
    """In the driver and in its workers; the environment of the cluster has a crossdim of its own."""
    changed = tmp_path / "changed"
    shutil.copytree(sources, changed, symlinks=True)
    init = changed / "crossdim/__init__.py"
    init.write_text(re.sub(r"^__version__ = .*$", '__version__ = "0+changed"', init.read_text(), flags=re.MULTILINE))
    (changed / "where.py").write_text(WHERE)
    done, job = cluster.submit(changed, "python", "where.py", OMP_NUM_THREADS="1")

    _succeeded(done, job)
    found = re.findall(r"^(driver|worker) 0\+changed \S*/_ray_pkg_\w+/crossdim/", done.stdout, re.MULTILINE)
    assert found == ["driver", "worker"], done.stdout


@running
def test_a_job_that_fails_is_reported_as_failed(cluster: Supervised, sources: Path) -> None:
    """A script that hands work in goes on only after work that was done."""
    done, job = cluster.submit(sources, "bash", "-c", "python -m pipelines verify $DATA", DATA="absent")

    assert (done.returncode, job["status"]) == (1, "FAILED")
    # A relative path is one of the job's own folder.
    assert re.search(r"/_ray_pkg_\w+/absent is not a published dataset", done.stdout)
    assert "exit code 2" in job["message"]
    assert job["job_id"] is None  # that is the number of a driver that has joined, and this verb needs no cluster


def _succeeded(done: subprocess.CompletedProcess[str], job: dict[str, Any]) -> None:
    assert (done.returncode, job["status"]) == (0, "SUCCEEDED"), done.stdout + done.stderr
    assert job["job_id"], "the driver did not join the cluster that ran the job"


@running
def test_a_worker_that_was_cut_off_comes_back(cluster: Supervised) -> None:
    """It falls silent, the head gives it up, it is heard again: its raylet ends, and another one joins in its place."""
    (lost,) = cluster.workers()
    (raylet,) = subprocess.run(
        ["pgrep", "-f", "--", f"--node_id={lost}"], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(raylet), signal.SIGSTOP)
    try:
        silent = time.monotonic()
        awaited(lambda: not cluster.workers(), lambda: "the head still counts on a worker that is silent")
        assert time.monotonic() - silent < 26  # 20 to 22 s; with Ray's own settings 29 to 30, and 55 behind a dead cable
    finally:
        os.kill(int(raylet), signal.SIGCONT)

    awaited(cluster.workers, lambda: cluster.log(WORKER))
    assert lost not in cluster.workers()
    assert "ended with status" in cluster.log(WORKER)


@pytest.mark.parametrize("name", [HEAD, WORKER])
def test_a_unit_starts_ray_again_for_ever_with_a_token_from_a_file(name: str) -> None:
    """A raylet that was cut off ends with status 0; and what stands in a unit is read by every user of the machine."""
    keys, settings, (program, verb, *options) = unit(name), environment(name), shlex.split(*unit(name)["ExecStart"])

    assert (program, verb, "--block" in options) == (RAY, "start", True)  # otherwise systemd sees Ray end as soon as it runs
    assert (keys["Restart"], keys["StartLimitIntervalSec"]) == (["always"], ["0"])
    assert int(*keys["RestartSec"]) > 0
    assert (keys["User"], keys["LimitNOFILE"], keys["OOMPolicy"]) == (["lab"], ["65536"], ["continue"])
    assert keys["WantedBy"] == ["multi-user.target"]
    assert settings["RAY_AUTH_MODE"] == "token"
    assert [settings["RAY_AUTH_TOKEN_PATH"]] == keys["AssertPathExists"]
    assert "RAY_AUTH_TOKEN" not in settings
    assert settings["PATH"].startswith(f"{PROGRAMS}:")


def test_workers_join_where_the_head_listens() -> None:
    """At the address that the other files for machines of one's own use for an example."""
    (head,), (worker,) = unit(HEAD)["ExecStart"], unit(WORKER)["ExecStart"]
    address = yaml.safe_load((REPOSITORY / "deploy/local.yaml").read_text())["provider"]["head_ip"]

    assert f" --address={address}:{re.findall('--port=([0-9]+)', head)[0]} " in worker
    assert "--num-cpus=0 --num-gpus=0" in head
    assert "--dashboard-host=127.0.0.1" in head


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
@pytest.mark.parametrize("name", [HEAD, WORKER])
def test_systemd_accepts_the_unit(name: str, tmp_path: Path) -> None:
    """And names a key that is misspelt. It wants the program to be there, so that of the tests stands in."""
    for file, content in ((name, text(name)), (f"broken-{name}", text(name).replace("RestartSec=", "RestartSecs="))):
        (tmp_path / file).write_text(content)
        line = ["systemd-analyze", "verify", tmp_path / file]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

        assert (done.returncode, done.stderr) == (0, "") if file == name else "RestartSecs" in done.stderr
