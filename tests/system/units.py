"""Units: the systemd units of deploy as text and keys, and a cluster that they make on this machine, without systemd."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.programs import PROGRAMS, RAY
from tests.system.conftest import PATIENCE_S, REPOSITORY

HEAD, WORKER = "crossdim-ray-head.service", "crossdim-ray.service"


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
        self.port, self.dashboard, self.agent = free_port(), free_port(), free_port()
        self.token = secrets.token_hex(32)
        file = folder / "token"
        file.write_text(self.token)
        self.secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, name: str, *more: str, **variables: str) -> None:
        """Keep a unit running until the cluster is closed."""
        (line,), (pause,) = unit(name)["ExecStart"], unit(name)["RestartSec"]
        loop = f'while :; do "$@"; echo "ended with status $?"; sleep {pause}; done'
        # Folders of their own, as on two machines: a node that unpacks a job's code throws away what is unpacked there already.
        place = ("--object-manager-port=0", "--object-store-memory=100000000", f"--temp-dir={self.folder}/{name[-12:-8]}")
        command = ["bash", "-c", loop, name, *shlex.split(line), *place, *more]
        settings = _clean() | environment(name) | self.secret | variables
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


def awaited(condition: Callable[[], Any], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)
