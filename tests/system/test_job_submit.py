"""The systemd units of deploy, read and run: jobs handed in through the dashboard, and a worker that was cut off."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.phantoms import write_phantoms
from foundation.bucket import Bucket
from storage_schema.manifest import parse_manifest
from tests.system.conftest import PATIENCE_S, REPOSITORY
from training.metrics import read_metrics

HEAD, WORKER = "crossdim-ray-head.service", "crossdim-ray.service"
#: Of the interpreter that runs the tests, which need not be on the PATH.
PROGRAMS = Path(sys.executable).parent
RAY = str(PROGRAMS / "ray")
#: What travels with a job: no tests, no benchmarks, nothing of the machine that hands it in.
HOUSES = ("storage_schema", "foundation", "pipelines", "training")


def running(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that starts the cluster."""
    return pytest.mark.ray(pytest.mark.system(pytest.mark.timeout(900)(test)))


def text(name: str) -> str:
    """A unit, with the programs of the tests in place of those that a machine of its user has."""
    return (REPOSITORY / "deploy" / name).read_text().replace("/home/lab/crossdim/bin", str(PROGRAMS))


def unit(name: str) -> dict[str, list[str]]:
    """The keys of a unit of systemd with all of their values, sections aside."""
    folded = text(name).replace("\\\n", " ")
    lines = [line.partition("=") for line in folded.splitlines() if re.match(r"\w+=", line)]
    return {key: [value for k, _, value in lines if k == key] for key, _, _ in lines}


def environment(name: str) -> dict[str, str]:
    """What a unit hands to Ray."""
    return dict(word.split("=", 1) for line in unit(name)["Environment"] for word in shlex.split(line))


class Supervised:
    """A cluster as the units make it: each `ray start` is run again when it ends, as systemd would.

    What is added to their lines lets head and worker share this machine with each other and with other clusters.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.dashboard, self.agent = _free_port(), _free_port(), _free_port()
        self.token = secrets.token_hex(32)
        file = folder / "token"
        file.write_text(self.token)
        self.secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, name: str, *more: str) -> None:
        """Keep a unit running until the cluster is closed."""
        (line,), (pause,) = unit(name)["ExecStart"], unit(name)["RestartSec"]
        loop = f'while :; do "$@"; echo "ended with status $?"; sleep {pause}; done'
        # Folders of their own, as on two machines: a node that unpacks a job's code throws away what is unpacked there already.
        place = ("--object-manager-port=0", "--object-store-memory=100000000", f"--temp-dir={self.folder}/{name[-12:-8]}")
        command = ["bash", "-c", loop, name, *shlex.split(line), *place, *more]
        settings = _clean() | environment(name) | self.secret
        with (self.folder / f"{name}.log").open("wb") as log:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            self.processes.append(subprocess.Popen(command, env=settings, start_new_session=True, **streams))

    def close(self) -> None:
        """End everything that was started here, and nothing else."""
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def ask(self, path: str) -> Any:
        """What the dashboard answers to who holds the token."""
        bearer = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.dashboard}{path}", headers=bearer)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def up(self) -> bool:
        """Whether the head takes jobs: its dashboard hands them to an agent."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.agent}/api/healthz", timeout=5):
            return bool(self.ask("/api/version"))
        return False

    def workers(self) -> set[str]:
        """The nodes that are alive and do work."""
        nodes = self.ask("/api/v0/nodes?limit=100")["data"]["result"]["result"]
        return {node["node_id"] for node in nodes if node["state"] == "ALIVE" and node["resources_total"].get("CPU")}

    def submit(
        self, working_dir: Path, *command: str, **variables: str
    ) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        """Hand a command in as a user does, and wait for its end; what the user saw, and what the cluster knows of the job."""
        where = ("--address", f"http://127.0.0.1:{self.dashboard}", "--working-dir", str(working_dir))
        line = [RAY, "job", "submit", *where, "--runtime-env-json", json.dumps({"env_vars": variables}), "--", *command]
        done = subprocess.run(line, env=_clean() | self.secret, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        found = re.search(r"raysubmit_\w+", done.stdout)
        assert found, done.stdout + done.stderr
        return done, self.ask(f"/api/jobs/{found[0]}")


def _clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_", "PYTHONPATH"))}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _awaited(condition: Callable[[], Any], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


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
        _awaited(running.up, lambda: running.log(HEAD))
        running.run(WORKER, f"--address=127.0.0.1:{running.port}", "--num-cpus=2", "--dashboard-agent-listen-port=0")
        _awaited(running.workers, lambda: running.log(WORKER))
        yield running


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory as one hands it in."""
    folder = tmp_path_factory.mktemp("sources")
    for house in HOUSES:
        shutil.copytree(REPOSITORY / house, folder / house, ignore=shutil.ignore_patterns("__pycache__"))
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

    line = (
        "pretrain",
        "--recipe",
        "cdssl-p3d:tiny",
        "--data",
        str(data),
        "--out",
        str(run),
        "--workers",
        "1",
        "--steps",
        "4",
    )
    _succeeded(*cluster.submit(sources, "python", "-m", "training", *line, OMP_NUM_THREADS="1"))
    found = read_metrics(Bucket(str(run)))
    assert [row["step"] for row in found] == [0, 1, 2, 3]
    assert all(math.isfinite(row["loss"]) for row in found)


@running
def test_a_job_that_fails_is_reported_as_failed(cluster: Supervised, sources: Path) -> None:
    """A script that hands work in goes on only after work that was done."""
    done, job = cluster.submit(sources, "bash", "-c", "python -m pipelines verify $DATA", DATA="absent")

    assert (done.returncode, job["status"]) == (1, "FAILED")
    assert re.search(
        r"/_ray_pkg_\w+/absent is no published dataset", done.stdout
    )  # a relative path is one of the job's own folder
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
        _awaited(lambda: not cluster.workers(), lambda: "the head still counts on a worker that is silent")
        assert time.monotonic() - silent < 26  # 20 to 22 s; with Ray's own settings 29 to 30, and 55 behind a dead cable
    finally:
        os.kill(int(raylet), signal.SIGCONT)

    _awaited(cluster.workers, lambda: cluster.log(WORKER))
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
