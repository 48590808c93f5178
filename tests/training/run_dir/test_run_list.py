"""``crossdim runs``: every run below a folder in one table, and the removal of one."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir.run_list import RunRow, list_runs
from tests.training.published import images, publish

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, one of them evaluated, in folders of different depth; and files that are no run's."""
    root = tmp_path_factory.mktemp("lab")
    publish(Bucket(str(root / "data")), images(24), "flat")
    (root / "notes").mkdir()
    (root / "notes/config.json").write_text("{}")
    (root / "notes/other.txt").write_text("not of a run")
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", str(root / "data"), "--set", "global_batch=8", "--workers", "0"]
    for run, steps in (("runs/a", "2"), ("runs/group/b", "1")):
        assert main([*line, "--out", str(root / run), "--steps", steps, "--json"]) == 0
    assert main(["evaluate", str(root / "runs/a"), "--data", str(root / "data"), "--baselines", "1", "--json"]) == 0
    return root


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_every_run_below_a_folder_is_listed_once(folder: Path, s3_bucket: Bucket) -> None:
    """From files and from a store; what is called as a run's file is not taken for one."""
    evaluation = json.loads((folder / "runs/a/evaluation.json").read_text())
    best = max(result["trained"] for result in evaluation["results"])
    for path in folder.rglob("*"):
        if path.is_file():
            s3_bucket.put(str(path.relative_to(folder)), path.read_bytes())
    for bucket in (Bucket(str(folder)), s3_bucket):
        a, b = list_runs(bucket, now=0.0)
        assert (a.run, a.state, a.step, a.steps, a.num_bytes) == ("runs/a", "done", 2, 2, _size(folder / "runs/a"))
        assert (b.run, b.state, b.step, b.steps, b.num_bytes) == ("runs/group/b", "done", 1, 1, _size(folder / "runs/group/b"))
        assert a.best_probe is not None
        assert f" {best:.3f} on flat, untrained " in a.best_probe
        assert b.best_probe is None
    (alone,) = list_runs(Bucket(str(folder / "runs/a")), now=0.0)
    assert (alone.run, alone.num_bytes) == ("", a.num_bytes)


def test_a_run_that_cannot_be_read_is_a_row_with_the_reason(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "metrics").mkdir(parents=True)
    (run / "metrics/00000000.jsonl").write_text("")
    (run / "config.json").write_text("{")
    (row,) = list_runs(Bucket(str(tmp_path)), now=0.0)
    assert isinstance(row, RunRow)
    assert (row.run, row.state) == ("run", "unreadable")
    assert "config.json" in row.problem


def test_the_table_has_a_line_for_each_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(folder)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "run"
    assert [line.split()[:3] for line in lines] == [["runs/a", "done", "2/2"], ["runs/group/b", "done", "1/1"]]
    assert main(["runs", str(folder / "notes")]) == 0
    assert capsys.readouterr().out == f"{folder}/notes holds no run\n"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Answers questions on standard input, as a person at a terminal."""

    def say(text: str) -> None:
        terminal = io.StringIO(f"{text}\n")
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", terminal)

    return say


def test_a_run_is_removed_after_a_question(
    folder: Path, s3_bucket: Bucket, answer: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing beside it is touched, nor what has a name that begins alike."""
    for path in (folder / "runs/group/b").rglob("*"):
        if path.is_file():
            for name in ("b", "b2"):
                s3_bucket.put(f"{name}/{path.relative_to(folder / 'runs/group/b')}", path.read_bytes())
    options = s3_bucket.options
    line = ["--endpoint-url", str(options.endpoint_url), "--access-key", "k", "--secret-key", "s", "--region", "us-east-1"]
    answer("n")
    assert main(["runs", "rm", f"{s3_bucket.url}/b", *line]) == 1
    message = capsys.readouterr().err
    assert "step 1 of 1" in message
    assert message.endswith("error: nothing was removed\n")
    assert {row.run for row in list_runs(s3_bucket, now=0.0)} == {"b", "b2"}
    answer("y")
    assert main(["runs", "rm", f"{s3_bucket.url}/b", *line]) == 0
    assert {stored.path.partition("/")[0] for stored in s3_bucket.list_objects()} == {"b2"}


def test_what_is_not_only_a_run_is_not_removed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", str(folder / "data"), "--set", "global_batch=8", "--workers", "0"]
    run = tmp_path / "run"
    assert main([*line, "--out", str(run), "--steps", "1", "--json"]) == 0
    (run / "thesis.txt").write_text("of a person")
    assert main(["runs", "rm", str(run)]) == 1
    assert "holds other files too, such as thesis.txt" in capsys.readouterr().err
    (run / "thesis.txt").unlink()
    assert main(["runs", "rm", str(folder / "notes"), "--yes"]) == 2
    assert main(["runs", "rm", str(run)]) == 1
    assert "nobody can answer here; give --yes" in capsys.readouterr().err
    assert main(["runs", "rm", str(run), "--yes"]) == 0
    assert not run.exists()
