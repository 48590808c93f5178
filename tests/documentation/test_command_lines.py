"""Command lines of README, pages and package READMEs, typed page by page, with an S3 server and nodes of Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from demo.phantoms import write_phantoms
from tests.documentation.blocks import PAGES, ROOT, find_config_file
from tests.documentation.command_lines import find_command_lines, is_typed
from tests.documentation.recordings import DASHBOARD, HOME, STORE, Recording, hold_against_what_is_kept, run_line, terminal
from tests.programs import PROGRAMS
from tests.system.conftest import Store, s3
from tests.system.test_job_submit import PACKAGES
from tests.system.units import HEAD, WORKER, Supervised, awaited

__all__ = ["s3"]  # a fixture

_XRAY = "crossdim prepare raw/xray --recipe xray-pseudo3d:tiny --label folder --out data/xr"
_CT = "crossdim prepare raw/ct --recipe mixed-superpatches:tiny --label folder --modality CT --out data/ct"
_S3_XRAY = "crossdim prepare s3://lab/xray --recipe xray-pseudo3d:tiny --label folder --out s3://lab/xr"
_S3_CT = "crossdim prepare s3://lab/ct --recipe mixed-superpatches:tiny --label folder --modality CT --out s3://lab/ct-1mm"


def _pretrain(name: str, recipe: str = "maesil:tiny") -> str:
    return f"crossdim pretrain --recipe {recipe} --data s3://lab/ct-1mm --out s3://lab/runs/{name} --workers 0"


_RUN_OF_BOTH = _pretrain("a", "cdssl-p3d:tiny").replace("ct-1mm", "ct-1mm s3://lab/xr")

#: Texts whose lines are typed, and what has to be there before.
TYPED: dict[str, tuple[str, ...]] = {
    "README.md": (),
    "deploy/README.md": (_S3_CT,),
    "docs/pages/guides/adding-parts.md": ("cp -r raw/xray raw/flat", _XRAY),
    "docs/pages/guides/configuration.md": (_XRAY, _CT),
    "docs/pages/guides/dataset-format.md": (_CT,),
    "docs/pages/guides/evaluating.md": (
        _XRAY,
        _CT,
        "ln -s data/xr xr; for name in ct ct64 phantoms; do ln -s data/ct $name; done",
        _S3_XRAY,
        _S3_CT,
        _RUN_OF_BOTH,
    ),
    "docs/pages/guides/preparing.md": (),
    "docs/pages/guides/pretraining.md": (_S3_XRAY, _S3_CT),
    "docs/pages/guides/storage.md": (_S3_CT,),
    "docs/pages/methods/cdssl-p3d.md": (_XRAY, _CT),
    "docs/pages/methods/cross-d.md": (_XRAY, _CT),
    "docs/pages/methods/maesil.md": (_CT,),
    "training/README.md": (
        _XRAY,
        _CT,
        "ln -s data/xr xr; ln -s data/ct ct",
        _S3_XRAY,
        _S3_CT,
    ),
}
#: What a line needs just before it.
BEFORE = {
    "crossdim runs rm s3://lab/runs/a s3://lab/runs/b": _pretrain("b"),
    "crossdim runs rm s3://lab/runs/old": _pretrain("old"),
}
#: What two cores without a GPU cannot do in minutes: the same line at the size for them.
SMALLER = (
    (r"--recipe ct-superpatches\b", "--recipe mixed-superpatches:tiny"),
    (r"--recipe (xray-pseudo3d|cdssl-p3d|maesil)(?=\s|$)", r"--recipe \1:tiny"),
    (r"--recipe maesil:small", "--recipe maesil:tiny"),
    (r"--workers (\d):16( --gpu)?", "--workers 2"),
    (r"--steps \d+", ""),
    (r"--seeds 3", "--seeds 2"),
    (r"^(.*\b(?:pretrain|study) (?!.*--print-config).*)$", r"\1 --steps 6"),
)
PATIENCE_S = 600
pytestmark = [pytest.mark.system, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(3000)]


class World:
    """A home with files, a bucket with the same files, and the shell's environment; lines are typed in ``work``."""

    def __init__(self, home: Path, store: Store) -> None:
        self.url = str(store.options.endpoint_url)
        self.home, self.work = home, home / "work"
        self.work.mkdir()
        for package in PACKAGES:
            shutil.copytree(ROOT / package, self.work / package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        write_phantoms(self.work / "raw", seed=0, images_per_label=6, volumes_per_label=4)
        self.client = boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
        )
        for kind in ("xray", "ct"):
            shutil.copytree(self.work / "raw" / kind, home / kind)
            self._label(home / kind)
        (home / "lab.ini").write_text("[default]\naws_access_key_id = k\naws_secret_access_key = s\n")
        (self.work / "run.yaml").write_text(find_config_file())
        self.keys = {
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
        }
        outside = ":".join(str(ROOT / "tests" / package / "outside") for package in ("pipelines", "training"))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
        paths = {"PATH": f"{PROGRAMS}:{kept['PATH']}", "PYTHONPATH": f"{ROOT}:{outside}", "HOME": str(home)}
        self.environment = kept | paths | self.keys | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}

    def fill_bucket(self) -> None:
        """Only the raw files: what another page published and trained is gone."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket="lab"):
            for found in page.get("Contents", []):
                self.client.delete_object(Bucket="lab", Key=found["Key"])
        for kind in ("xray", "ct"):
            for path in (self.home / kind).rglob("*.*"):
                self.client.put_object(Bucket="lab", Key=str(path.relative_to(self.home)), Body=path.read_bytes())

    @staticmethod
    def _label(folder: Path) -> None:
        files = sorted(path.relative_to(folder) for path in folder.rglob("*.*"))
        rows = [f"{path},{path.parts[0]},p{number}" for number, path in enumerate(files)]
        (folder / "labels.csv").write_text("\n".join(["path,finding,patient", *rows]) + "\n")

    def make_smaller(self, line: str) -> str:
        """A line at the size for two cores, with the server of the test."""
        for old, new in SMALLER:
            line = re.sub(old, new, line)
        return line.replace(STORE, self.url).rstrip()

    def type(self, line: str) -> str:
        """Run a line as bash does, at the size for two cores; a wrong exit code or a traceback fails the test."""
        line = self.make_smaller(line)
        if " runs rm " in line:
            line += " --yes"  # the question is asked in a terminal, as in the journey
        serves = line.endswith("--serve")
        began = time.monotonic()
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}" if serves else line],
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said = self._open(process) if serves else process.communicate(timeout=PATIENCE_S)[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        logging.getLogger(__name__).info("%6.1f s  %s", time.monotonic() - began, line)
        assert process.returncode == 0, f"{line} ended with {process.returncode}\n{said[-5000:]}"
        assert "Traceback" not in said, said[-5000:]
        return said

    def _open(self, process: subprocess.Popen[str]) -> str:
        """Open the page that is served, then Ctrl-C."""
        said = ""
        assert process.stdout
        for text in process.stdout:
            said += text
            if found := re.search(r"http://127\.0\.0\.1:\d+/\S*", text):
                with urllib.request.urlopen(found[0].rstrip(".,;"), timeout=60) as page:
                    assert b"<html" in page.read()
                break
        process.send_signal(signal.SIGINT)
        return said + process.communicate(timeout=60)[0]


@pytest.fixture
def world(s3: Store, tmp_path: Path) -> World:
    found = World(tmp_path, s3)
    found.fill_bucket()
    return found


@contextlib.contextmanager
def cluster(variables: dict[str, str]) -> Iterator[Supervised]:
    """Two nodes of Ray: a head without CPUs and a worker with two, which may open the bucket, as machines with a role."""
    with (
        tempfile.TemporaryDirectory(prefix="cd-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        contextlib.closing(Supervised(Path(folder))) as running,
    ):
        ports = (f"--dashboard-port={running.dashboard}", f"--dashboard-agent-listen-port={running.agent}")
        running.run(HEAD, f"--port={running.port}", *ports, **variables)
        awaited(running.up, lambda: running.log(HEAD))
        running.run(WORKER, f"--address=127.0.0.1:{running.port}", "--num-cpus=2", "--dashboard-agent-listen-port=0", **variables)
        awaited(running.workers, lambda: running.log(WORKER))
        yield running


def type_page(world: World, name: str) -> None:
    """Type what a page needs, then its lines in order; lines that name a cluster find one."""
    lines = [line for line in find_command_lines((ROOT / name).read_text()) if is_typed(line)]
    needs_cluster = any("ray job" in line or "--ray-address" in line for line in lines)
    with cluster(world.keys | {"OMP_NUM_THREADS": "1"}) if needs_cluster else contextlib.nullcontext() as running:
        own = dict(world.environment)
        for line in [*TYPED[name], *lines]:
            for beginning, first in BEFORE.items():
                if line.startswith(beginning):
                    world.type(first)
            world.environment = dict(own)
            if running and ("ray job" in line or "--ray-address" in line):
                jobs, head = f"http://127.0.0.1:{running.dashboard}", f"127.0.0.1:{running.port}"
                address = {"RAY_API_SERVER_ADDRESS": jobs} if "ray job" in line else {"RAY_ADDRESS": head}
                world.environment |= running.secret | address
            world.type(line)
            world.environment = own


@pytest.mark.skipif(not shutil.which("tmux"), reason="journeys are typed into tmux: apt-get install tmux")
def test_the_journey_of_a_cluster(world: World) -> None:
    """Its lines in order, typed into a terminal: jobs on two nodes, and what is read and removed from another machine."""
    page, texts = (PAGES / "journeys/cluster.md").read_text(), {str(world.work): HOME, str(world.home): HOME, world.url: STORE}
    with cluster(world.keys | {"OMP_NUM_THREADS": "1"}) as running:
        head, jobs = f"127.0.0.1:{running.port}", f"http://127.0.0.1:{running.dashboard}"
        settings = world.environment | running.secret | {"RAY_API_SERVER_ADDRESS": jobs}
        assert set(re.findall(r"(RAY_\w+)=", page)) == {*running.secret, "RAY_API_SERVER_ADDRESS"}, "the page exports others"
        with terminal(world.work, settings) as screen:
            shown = []
            for line in filter(is_typed, find_command_lines(page)):
                if line in BEFORE:
                    world.type(BEFORE[line])
                shown.append(run_line(screen, world.make_smaller(line).replace("--ray-address auto", f"--ray-address {head}")))
            recording = Recording(shown=shown, events=screen.events()).replace(texts | {head: "10.0.0.5:6379", jobs: DASHBOARD})
    assert [(one.command, one.code, one.text) for one in shown if one.code] == []
    hold_against_what_is_kept("cluster", recording)


@pytest.mark.parametrize("name", TYPED)
def test_every_line_of_a_text_runs(name: str, world: World) -> None:
    type_page(world, name)
