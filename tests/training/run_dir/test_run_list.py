"""``crossdim runs``: every run below a folder in one table."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir import layout
from crossdim.training.run_dir.run_list import RunRow, list_runs
from tests.training.published import images, publish
from tests.training.run_dir.small_runs import write_run


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


@pytest.mark.integration
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
        assert f" {best:.3f} ± " in a.best_probe
        assert " on flat, untrained " in a.best_probe
        assert a.best_probe.endswith(next(one["verdict"] for one in evaluation["results"] if one["trained"] == best))
        assert b.best_probe is None
    (alone,) = list_runs(Bucket(str(folder / "runs/a")), now=0.0)
    assert (alone.run, alone.num_bytes) == ("", a.num_bytes)


def test_a_run_that_cannot_be_read_is_a_row_with_the_reason(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "metrics").mkdir(parents=True)
    (run / "metrics/00000000.jsonl").write_text("")
    (run / "config.json").write_text("{")
    (row,) = list_runs(Bucket(str(tmp_path)), now=0.0)
    assert isinstance(row, RunRow)
    assert (row.run, row.state) == ("run", "unreadable")
    assert "config.json" in row.problem


@pytest.mark.integration
def test_the_table_has_a_line_for_each_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(folder)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "run"
    assert [line.split()[:3] for line in lines] == [["runs/a", "done", "2/2"], ["runs/group/b", "done", "1/1"]]
    assert main(["runs", str(folder / "notes")]) == 0
    assert capsys.readouterr().out == f"{folder}/notes holds no run\n"


def _states(folder: Bucket) -> dict[str, str]:
    return {row.run: row.state for row in list_runs(folder, time.time())}


def test_what_is_a_run_is_decided_as_pretrain_decides_it(s3_bucket: Bucket, tmp_path: Path) -> None:
    """A run without workers yet, with Ray's files or without, is one; a configuration of another program is none."""
    for folder in (Bucket(str(tmp_path)), s3_bucket):
        write_run(folder.at("on-ray"))
        write_run(folder.at("begun"))
        folder.delete("begun/ray")
        write_run(folder.at("lost"), "start", "end")
        folder.delete("lost/config.json")
        folder.put("only-ray/ray/requester", b"train-1")
        changed = folder.read("begun/config.json").replace(b"10", b"11")
        folder.put("changed/config.json", changed)
        folder.put("hugging-face/config.json", b'{"model_type": "vit"}')
        folder.put("damaged/config.json", b"{")
        folder.put("on-ray/ray/notes/config.json", b"{}")
        states = {
            "begun": "waiting",
            "changed": "unreadable",
            "lost": "unreadable",
            "on-ray": "waiting",
            "only-ray": "unreadable",
        }
        assert _states(folder) == states
        row = next(row for row in list_runs(folder, 0.0) if row.run == "on-ray")
        assert row.num_bytes == sum(stored.size for stored in folder.list_objects("on-ray"))


def test_a_store_error_of_one_run_is_a_matter_of_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        write_run(Bucket(str(tmp_path / name)), "start", "end")
    for name in ("a/config.json", "c/checkpoints/latest"):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("where a file is expected")
    (tmp_path / "b/evaluation.json").write_text(json.dumps({"results": [{"trained": 10**400, "probe": "knn"}]}))
    found = {row.run: row for row in list_runs(Bucket(str(tmp_path)), time.time())}
    assert {name: row.state for name, row in found.items()} == {"a": "unreadable", "b": "done", "c": "done"}
    assert str(tmp_path / "a") in found["a"].problem
    assert "evaluation.json is not as crossdim evaluate writes it (OverflowError" in found["b"].problem


def test_an_evaluation_that_cannot_be_read_is_told_beside_the_run(ordinary_user: Path) -> None:
    run = write_run(Bucket(str(ordinary_user / "run")), "start", "end")
    run.put(layout.EVALUATION, b"{}")
    (ordinary_user / "run" / layout.EVALUATION).chmod(0)
    (row,) = list_runs(Bucket(str(ordinary_user)), time.time())
    assert row.state == "done"
    assert "evaluation.json: not allowed" in row.problem


def test_the_time_of_a_list_grows_with_the_number_of_files_and_no_more(tmp_path: Path) -> None:
    """Calls, which no busy machine changes: each path was once compared with every run."""

    def count_calls(num_runs: int) -> int:
        folder = tmp_path / str(num_runs)
        for number in range(num_runs):
            (folder / f"{number}/metrics").mkdir(parents=True)
            (folder / f"{number}/metrics/00000000.jsonl").touch()
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            list_runs(Bucket(str(folder)), 0.0)
        finally:
            sys.setprofile(None)
        return calls

    assert count_calls(200) < 2.5 * count_calls(100)
