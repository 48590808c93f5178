"""Ctrl-C, SIGTERM and the loss of Ray in real verbs: one line, the right exit code, nothing left running, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.processes import find_started_with, kill
from crossdim.training.run_dir.checkpoint_listing import newest_step
from crossdim.training.run_dir.metrics import read_metrics
from tests.system.conftest import REPOSITORY, crossdim
from tests.training.published import images, publish

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are counted through Linux's /proc"),
]

MARK = "CROSSDIM_TEST_MARK"
PATIENCE_S = 120.0
#: Until a stop has ended a verb on a busy machine of two cores; and until processes that were orphaned are gone.
STOPPED_S, GONE_S = 40.0, 10.0
GOES_ON = "interrupted; the same command goes on from here"
NOTHING = "interrupted; nothing was written yet"
ROWS = r"prepare: [1-9]\d*/"
STEPS = r"pretrain: [1-9]\d*/"


class Verb:
    """A verb in a process group of its own, whose processes can be found again, and what it prints."""

    def __init__(self, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "crossdim", *arguments],
            cwd=REPOSITORY,
            env=kept | {MARK: self.mark},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self.printed = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while data := os.read(self.process.stdout.fileno(), 65536):
            self.printed += data

    def until(self, pattern: str) -> None:
        """Wait for what is printed."""
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern.encode(), bytes(self.printed)):
            assert self.process.poll() is None, self.printed.decode()
            assert time.monotonic() < deadline, self.printed.decode()
            time.sleep(0.02)

    def until_loaded(self, library: str) -> None:
        """Wait for a library whose import shows that the verb has begun: until then Ctrl-C ends the process without a word."""
        deadline = time.monotonic() + PATIENCE_S
        while library not in Path(f"/proc/{self.process.pid}/maps").read_text():
            assert self.process.poll() is None, self.printed.decode()
            assert time.monotonic() < deadline, self.printed.decode()
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """To the whole group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def lose(self, name: str) -> None:
        """Signal 9 for the process of Ray with this name."""
        (pid,) = [
            pid
            for pid in find_started_with(MARK, self.mark)
            if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(f"/{name}".encode())
        ]
        kill([pid])

    def end(self) -> tuple[int, list[str]]:
        """Exit code and the lines that are no progress; nothing that the verb started is left."""
        code = self.process.wait(STOPPED_S)
        deadline = time.monotonic() + GONE_S
        while left := find_started_with(MARK, self.mark):
            assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_text() for pid in left]
            time.sleep(0.2)
        self._reader.join(5)
        lines = [line.strip() for line in re.split(r"[\r\n]", self.printed.decode())]
        return code, [line for line in lines if line and not re.match(r"(scan|prepare|verify|pretrain|INFO .*):? ", line)]


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Verb]:
    verb = Verb(*arguments)
    try:
        yield verb
    finally:
        kill(find_started_with(MARK, verb.mark))
        verb.process.wait()
        assert verb.process.stdout is not None
        verb.process.stdout.close()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that take a while to prepare."""
    folder, rng = tmp_path_factory.mktemp("raw"), np.random.default_rng(0)
    for number in range(1500):
        Image.fromarray(rng.integers(0, 256, (256, 256), dtype=np.uint8)).save(folder / f"{number:04d}.png")
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    publish(Bucket(str(tmp_path / "data")), images(30), "flat")
    return tmp_path / "data"


def preparing(raw: Path, out: Path, engine: str = "--no-local") -> list[str]:
    return ["prepare", str(raw), "--recipe", "xray-pseudo3d:tiny", "--out", str(out), engine]


def pretraining(dataset: Path, run: Path, workers: int, steps: int) -> list[str]:
    of_run = ["--recipe", "cdssl-p3d:tiny", "--data", str(dataset), "--out", str(run), "--steps", str(steps)]
    return ["pretrain", *of_run, "--workers", str(workers), "--checkpoint-every", "100000"]


@pytest.mark.parametrize("phase", ["", "scan: ", ROWS])
@pytest.mark.parametrize("engine", ["--local", pytest.param("--no-local", marks=pytest.mark.ray)])
def test_ctrl_c_ends_a_preparation_with_one_line(engine: str, phase: str, raw: Path, tmp_path: Path) -> None:
    """While modules are imported or Ray starts, among headers, among rows."""
    with running(*preparing(raw, tmp_path / "out", engine)) as verb:
        if phase:
            verb.until(phase)
        else:
            verb.until_loaded("libarrow")
        verb.signal(signal.SIGINT)
        code, lines = verb.end()
    assert (code, lines) == (130, [GOES_ON if phase == ROWS else NOTHING])


@pytest.mark.ray
def test_sigterm_ends_a_preparation_with_one_line(raw: Path, tmp_path: Path) -> None:
    """Also where it is sent to Ray's own processes at the same time, as service managers do."""
    with running(*preparing(raw, tmp_path / "out")) as verb:
        verb.until(ROWS)
        verb.signal(signal.SIGTERM)
        assert verb.end() == (2, ["error: stopped by SIGTERM; the same command goes on from here"])


@pytest.mark.ray
def test_the_second_ctrl_c_ends_a_preparation_at_once(raw: Path, tmp_path: Path) -> None:
    """Sent while Ray starts, which is not left half done for the first."""
    with running(*preparing(raw, tmp_path / "out")) as verb:
        deadline = time.monotonic() + PATIENCE_S
        while not any(b"gcs_server" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in find_started_with(MARK, verb.mark)):
            assert time.monotonic() < deadline
        verb.signal(signal.SIGINT)
        time.sleep(2)  # a busy machine may hear signals late, and take two that it hears together for one
        verb.signal(signal.SIGINT)
        began = time.monotonic()
        assert verb.process.wait(STOPPED_S) == 130
        assert time.monotonic() - began < 5
        assert verb.end() == (130, [NOTHING])


@pytest.mark.ray
@pytest.mark.parametrize(
    ("name", "message"),
    [("raylet", r"the raylet of this machine \(cluster [\d.:]+\)"), ("gcs_server", "the head of the cluster")],
)
def test_a_preparation_that_loses_ray_ends_with_a_sentence(name: str, message: str, raw: Path, tmp_path: Path) -> None:
    """Ray itself ends the process with the exit code of wrong use, for the head after a minute."""
    with running(*preparing(raw, tmp_path / "out")) as verb:
        verb.until(ROWS)
        verb.lose(name)
        code, lines = verb.end()
    assert code == 2
    assert re.fullmatch(
        rf"error: Ray was lost: {message} at [\d.:]+ has not answered for \d+\.\d s; .*goes on from here", lines[-1]
    )
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.ray)])
def test_ctrl_c_saves_a_run_and_the_same_line_goes_on(workers: int, dataset: Path, tmp_path: Path) -> None:
    """No checkpoint is due: the one that is there was asked for. The steps before it are not done again."""
    run = tmp_path / "run"
    with running(*pretraining(dataset, run, workers, 25)) as verb:
        verb.until(STEPS)
        verb.signal(signal.SIGINT)
        code, lines = verb.end()
    step = newest_step(Bucket(str(run)))
    assert 0 < step < 25
    assert code == 130
    (line,) = lines
    assert line.startswith(f"interrupted; {run}: stopped as asked")
    assert f"step {step} is saved" in line
    crossdim(*pretraining(dataset, run, 0, 25))
    assert [line["step"] for line in read_metrics(Bucket(str(run)))] == list(range(25))


def _read_command(pid: int) -> bytes:
    """The command line of a process; empty if it has ended since it was found."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.mark.ray
def test_ctrl_c_before_a_run_has_workers_ends_it_at_once(dataset: Path, tmp_path: Path) -> None:
    """There is nothing to save, and nobody to ask: with more workers than the machine can hold it would wait for ever."""
    with running(*pretraining(dataset, tmp_path / "run", 1, 100_000), "--ray-address", "") as verb:
        deadline = time.monotonic() + PATIENCE_S
        while not any(b"TrainController" in _read_command(pid) for pid in find_started_with(MARK, verb.mark)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        verb.signal(signal.SIGINT)
        code, lines = verb.end()
    assert code == 130
    assert len(lines) == 1


@pytest.mark.ray
def test_a_run_that_loses_its_raylet_ends_with_a_sentence(dataset: Path, tmp_path: Path) -> None:
    with running(*pretraining(dataset, tmp_path / "run", 1, 100_000)) as verb:
        verb.until(STEPS)
        verb.lose("raylet")
        code, lines = verb.end()
    assert code == 2
    assert lines[-1].startswith("error: ")
    assert not any("Traceback" in line for line in lines)


#: A cluster of somebody else's on this machine, without a GPU.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 2**20})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.mark.ray
def test_a_cluster_without_gpus_is_told_at_once(dataset: Path, tmp_path: Path) -> None:
    """Ray Train would wait for them without a word, for as long as the cluster lives."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"RAY_AUTH_MODE": "disabled"}
    line, pipe = [sys.executable, "-c", CLUSTER], subprocess.PIPE
    with subprocess.Popen(line, env=kept, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as cluster:
        assert cluster.stdout is not None
        assert cluster.stdin is not None
        address = cluster.stdout.readline().strip()
        with running(
            *pretraining(dataset, tmp_path / "run", 1, 100), "--workers", "2:4", "--gpu", "--ray-address", address
        ) as verb:
            code, lines = verb.end()
        cluster.stdin.close()
        cluster.wait(60)
    assert code == 1
    assert lines[-1].startswith(f"error: the Ray cluster at {address} has 0 GPUs; --gpu needs 2 to 4 workers with 1 GPU each")
