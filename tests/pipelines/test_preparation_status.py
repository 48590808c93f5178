"""``crossdim status`` of a dataset: while it is prepared, after that was interrupted, and once it is published."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.pipelines import preparation_status
from crossdim.pipelines.jobs import prepare
from crossdim.pipelines.plan_record import PlanRecord, read_plan_record, write_plan_record
from crossdim.pipelines.preparation_status import SILENT_AFTER_S, read_preparation_status
from crossdim.pipelines.scratch import PLAN, WORK
from tests.pipelines.corpora import write_images

ROOT = Path(__file__).parents[2]
TASKS_DONE, NUM_FILES = 2, 10


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    """Prepares images, one of which cannot be read and is in the first task, in several tasks."""
    write_images(tmp_path / "raw", 6)
    first = min((tmp_path / "raw").rglob("*.png"))
    first.write_bytes(first.read_bytes()[:-60])
    (tmp_path / "raw/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    settings = ["--set", "shard.max_samples=1"]
    return ["prepare", str(tmp_path / "raw"), "--recipe", "xray-pseudo3d:tiny", *settings, "--json", "--local"]


@pytest.fixture
def begun(line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Interrupts preparations after some tasks; returns the number of all."""

    def begin(out: str, *options: str) -> int:
        numbers = []

        def run_some(documents: list[str], work: Any, **_: Any) -> Any:
            numbers.append(len(documents))
            return map(work, documents[:TASKS_DONE])

        with monkeypatch.context() as patch:
            patch.setattr(prepare, "run_each", run_some)
            assert main([*line, "--out", out, *options]) == 2
        capsys.readouterr()
        return numbers[0]

    return begin


def _asked(capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, dict[str, Any]]:
    code = main(["status", *line, "--json"])
    return code, json.loads(capsys.readouterr().out)


def _check_stages(out: str, store: list[str], begun: Any, line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", out, *store]) == 2
    assert "a preparation writes nothing before its sources are scanned" in capsys.readouterr().err
    tasks = begun(out, *store)
    code, found = _asked(capsys, out, *store)
    assert (code, found["state"], found["tasks_done"], found["tasks"], found["files"]) == (
        0,
        "preparing",
        TASKS_DONE,
        tasks,
        NUM_FILES,
    )
    assert found["quarantined"] == 2
    assert 0 <= found["silence_s"] < 60
    assert found["last_progress_s"] == pytest.approx(time.time(), abs=60)
    assert main([*line, "--out", out, *store]) == 3
    published = json.loads(capsys.readouterr().out)
    code, found = _asked(capsys, out, *store, "--watch")
    assert (code, found["state"], found["samples"], found["files"]) == (0, "published", published["samples"], NUM_FILES)
    assert (found["quarantined"], found["tasks"]) == (published["quarantined"], None)


def test_a_preparation_is_followed_from_its_first_task_to_its_publication(
    line: list[str], begun: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _check_stages(str(tmp_path / "out"), [], begun, line, capsys)


def test_a_preparation_in_a_store_is_followed_alike(
    line: list[str], begun: Any, s3_bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    options = s3_bucket.options
    store = ["--endpoint-url", str(options.endpoint_url), "--access-key", "k", "--secret-key", "s", "--region", "us-east-1"]
    _check_stages(f"{s3_bucket.url}/out", store, begun, line, capsys)


def test_it_is_told_in_sentences(begun: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    tasks = begun(out)
    assert main(["status", out]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"{out}: preparing, {TASKS_DONE} of {tasks} tasks done"
    assert second == f"  {NUM_FILES} files in the sources, 2 inputs quarantined so far"
    assert third.startswith("  last progress ")


def test_one_that_writes_nothing_for_long_is_silent(begun: Any, tmp_path: Path) -> None:
    begun(str(tmp_path / "out"))
    out = Bucket(str(tmp_path / "out"))
    last = max(stored.changed_at for stored in out.list_objects(WORK)) / 1e9
    assert read_preparation_status(out, last + SILENT_AFTER_S - 1).state == "preparing"
    found = read_preparation_status(out, last + SILENT_AFTER_S + 1)
    assert found.state == "silent"
    assert "run the same prepare command again; it resumes" in str(found)


def test_long_tasks_are_waited_for() -> None:
    """Ten times the usual time between two; the night between two starts is not usual."""
    markers = [
        preparation_status.StoredObject(path=f"{number}", size=1, changed_at=int(at * 1e9))
        for number, at in enumerate((100, 200, 300, 40_000, 40_100))
    ]
    assert preparation_status._find_limit(markers) == 1000
    assert preparation_status._find_limit(markers[:1]) == SILENT_AFTER_S


def test_what_takes_many_requests_is_not_counted(begun: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(str(tmp_path / "out"))
    monkeypatch.setattr(preparation_status, "MAX_MARKERS", TASKS_DONE - 1)
    found = read_preparation_status(Bucket(str(tmp_path / "out")), time.time())
    assert (found.tasks_done, found.quarantined) == (TASKS_DONE, None)


def test_without_its_record_the_number_of_tasks_is_not_known(begun: Any, tmp_path: Path) -> None:
    """Damaged, or of an earlier release; the preparation itself does not need it."""
    begun(str(tmp_path / "out"))
    out = Bucket(str(tmp_path / "out"))
    assert read_plan_record(out) is not None
    out.put(PLAN, out.read(PLAN)[1:])
    found = read_preparation_status(out, time.time())
    assert (found.tasks, found.tasks_done, found.files, found.quarantined) == (None, TASKS_DONE, None, None)
    assert f"preparing, {TASKS_DONE} tasks done" in str(found)


def test_a_record_alone_is_no_finished_task(line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other inputs may still start from the beginning."""
    out = Bucket(str(tmp_path / "out"))
    write_plan_record(out, PlanRecord(plan="0" * 64, tasks=3, files=9, refused=0, ignored=0))
    assert read_preparation_status(out, time.time()).tasks_done == 0
    assert main([*line, "--out", out.url]) == 3
    assert not (tmp_path / "out" / WORK).exists()


_WITHOUT = """
import sys
from crossdim.cli import main
code = main(["status", sys.argv[1]])
print(sorted({"ray", "torch", "pandas", "pydicom", "pyarrow", "numpy"} & set(sys.modules)))
sys.exit(code)
"""


def test_it_needs_neither_ray_nor_torch(begun: Any, tmp_path: Path) -> None:
    begun(str(tmp_path / "out"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", _WITHOUT, str(tmp_path / "out")]
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]")
