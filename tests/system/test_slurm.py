"""deploy/slurm.sh in the hands of bash and shellcheck, and between stand-ins of Slurm's and Ray's programs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import PROGRAMS

pytestmark = pytest.mark.integration


SLURM = Path(__file__).parents[2] / "deploy/slurm.sh"


def test_the_slurm_script_is_one_that_shellcheck_and_bash_accept(tmp_path):
    """And a broken copy is one that they do not."""
    broken = tmp_path / "broken.sh"
    broken.write_text(SLURM.read_text().replace('"$@"', "$@"))

    assert subprocess.run(["bash", "-n", SLURM], timeout=10, check=False).returncode == 0
    assert subprocess.run([PROGRAMS / "shellcheck", SLURM], timeout=30, check=False).returncode == 0
    assert subprocess.run([PROGRAMS / "shellcheck", broken], stdout=subprocess.DEVNULL, timeout=30, check=False).returncode == 1


#: Each writes down how it was called. `ray start` runs until it is told to stop, and writes that down too; the driver waits
#: until Ray has started in every step, as a fixed number of workers would.
STUBS = {
    "scontrol": '[[ $* == "show hostnames gpu[1-3]" ]] && printf "%s\\n" $MACHINES',
    "hostname": 'echo "10.0.0.7 192.168.1.7 "',
    "srun": 'echo "srun $*" >> "$CALLS"; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "ray": """
case $1 in
    start)
        [[ -z ${NO_HEAD:-} ]] || exit 1
        trap 'echo "ray stopped" >> "$CALLS"; exit 0' TERM
        echo "token ${#RAY_AUTH_TOKEN} $RAY_AUTH_MODE" >> "$CALLS"
        [[ $* != *--head* ]] || { env | grep ^RAY_health > "$CALLS.health"; touch "$CALLS.up"; }
        while :; do sleep 0.05; done ;;
    health-check) [[ -e $CALLS.up ]] ;;
    *) echo "unexpected: ray $*" >> "$CALLS" ;;
esac""",
    "driver": """
trap 'echo "driver stopped" >> "$CALLS"; exit 0' TERM
until (($(grep -c ^token "$CALLS") == STEPS)); do sleep 0.05; done
echo "driver $RAY_ADDRESS $*" >> "$CALLS"
[[ $1 != wait ]] || while :; do sleep 0.05; done
exit "$1" """,
}


class Allocation:
    """A Slurm job as the script sees it, on machines that are made of paper."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        self.jobs: list[subprocess.Popen[str]] = []
        for name, text in STUBS.items():
            stub = folder / name
            stub.write_text(f"#!{shutil.which('bash')}\n{text}\n")
            stub.chmod(0o755)

    def start(self, *command: str, machines: str = "gpu1 gpu2 gpu3", **more: str) -> subprocess.Popen[str]:
        job = {"SLURM_JOB_ID": "4207", "SLURM_JOB_NODELIST": "gpu[1-3]", "MACHINES": machines, "CALLS": str(self.calls)}
        paths = {"PATH": f"{self.folder}:{PROGRAMS}:{os.environ['PATH']}", "STEPS": str(min(2, len(machines.split())))}
        environment = os.environ | job | paths | more
        job = subprocess.Popen(
            ["bash", SLURM, *command], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.jobs.append(job)
        return job

    def close(self) -> None:
        """End what a script that does not clean up has left behind."""
        for job in self.jobs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            job.stderr.close()
            job.wait()

    def lines(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def wait_for(self, line: str) -> None:
        end = time.monotonic() + 30
        while not any(found.startswith(line) for found in self.lines()):
            assert time.monotonic() < end, self.lines()
            time.sleep(0.02)


@pytest.fixture
def allocation(tmp_path) -> Iterator[Allocation]:
    with contextlib.closing(Allocation(tmp_path)) as machines:
        yield machines


@pytest.mark.parametrize("status", [0, 3])
def test_a_slurm_job_is_one_head_the_other_machines_and_the_command(allocation, status):
    """Head first, by an address that the others can reach; the rest in one step; the exit status is the command's own."""
    job = allocation.start("driver", str(status), "two words")
    job.communicate(timeout=30)
    lines = allocation.lines()
    head, others = (line for line in lines if line.startswith("srun"))

    assert job.returncode == status
    assert "--nodes=1 --ntasks=1 " in head
    assert "--nodelist=gpu1 ray start --head --node-ip-address=10.0.0.7 --port=7607 " in head
    assert "--nodes=2 --ntasks=2 " in others
    assert "--exclude=gpu1 " in others
    assert " ray start --address=10.0.0.7:7607 " in others
    assert lines.count("token 64 token") == 2
    assert f"driver 10.0.0.7:7607 {status} two words" in lines
    assert lines.count("ray stopped") == 2
    assert not any(line.startswith("unexpected") for line in lines)
    assert "RAY_health_check_timeout_ms=5000" in allocation.calls.with_suffix(".health").read_text().splitlines()


def test_a_slurm_job_of_one_machine_starts_no_others(allocation):
    """A step of no machines is refused by srun."""
    job = allocation.start("driver", "0", machines="gpu1")
    job.communicate(timeout=30)

    assert job.returncode == 0
    assert sum(line.startswith("srun") for line in allocation.lines()) == 1


def test_a_slurm_job_that_is_told_to_stop_ends_the_command_and_then_its_ray(allocation):
    """The command first, so that it can still speak to the cluster; nothing of it stays behind on a shared machine."""
    job = allocation.start("driver", "wait")
    allocation.wait_for("driver 10.0.0.7:7607 wait")
    job.send_signal(signal.SIGTERM)
    _, said = job.communicate(timeout=30)

    assert job.returncode == 128 + signal.SIGTERM
    assert "the same line goes on" in said
    assert allocation.lines()[-3:] == ["driver stopped", "ray stopped", "ray stopped"]


def test_a_slurm_job_whose_head_does_not_start_says_so(allocation):
    """Rather than wait for its time limit."""
    job = allocation.start("driver", "0", NO_HEAD="1")
    _, said = job.communicate(timeout=30)

    assert job.returncode == 2
    assert "Ray did not start on gpu1" in said
    assert not any(line.startswith("driver") for line in allocation.lines())


def test_a_slurm_job_without_a_command_says_how_it_is_used(allocation):
    """Before anything is started."""
    job = allocation.start()
    _, said = job.communicate(timeout=30)

    assert job.returncode == 1
    assert said.startswith("usage: sbatch")
    assert allocation.lines() == []
