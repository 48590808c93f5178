"""The removal of a run takes what the run has written and was shown, and nothing else, whatever else lies there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from crossdim.foundation.bucket import TEMPORARY_PREFIX, Bucket
from crossdim.storage_schema.errors import RunError, StorageError, UsageError
from crossdim.training.run_dir import layout
from crossdim.training.run_dir.removal import check_removal, remove_run
from tests.training.run_dir.small_runs import STEPS, paths_of, write_run


@pytest.fixture
def run(tmp_path: Path) -> Bucket:
    return write_run(Bucket(str(tmp_path / "run")), "start", "end")


def _remove(run: Bucket, *, force: bool = False) -> bool:
    return remove_run(check_removal(run, time.time(), force=force), time.time(), force=force)


def test_a_run_is_removed_with_what_systems_and_killed_processes_left_in_it(run: Bucket, tmp_path: Path) -> None:
    for path in (".DS_Store", "checkpoints/.DS_Store", "metrics/.nfs00000000", f"events/{TEMPORARY_PREFIX}0123"):
        (tmp_path / "run" / path).write_bytes(b"x")
    (tmp_path / "run/checkpoints/step-00000004").mkdir()
    (tmp_path / "run2").mkdir()
    assert str(check_removal(run, time.time(), force=False)) == f"{run.url}: done, step 2 of {STEPS}, 13 objects, 0.0 MB"
    assert _remove(run)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "run2"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (".git/HEAD", "another file that runs do not write, such as .git/HEAD"),
        (".env", "such as .env"),
        (".checkpoints/.DS_Store", "such as .checkpoints/.DS_Store"),
        ("ray/.validate_storage_marker.bak", "such as ray/.validate_storage_marker.bak"),
        ("ray/notes/thesis.txt", "such as ray/notes/thesis.txt"),
        ("checkpoints/thesis.txt", "such as checkpoints/thesis.txt"),
        ("checkpoints/step-00000002/parts/notes.bin", "such as checkpoints/step-00000002/parts/notes.bin"),
        ("metrics/plot.png", "such as metrics/plot.png"),
        ("tensorboard/notes.txt", "such as tensorboard/notes.txt"),
        ("events/notes.txt", "such as events/notes.txt"),
        ("ray/second/config.json", "holds another run in ray/second/"),
        ("ray/deep/data/manifest.json", "holds a dataset in ray/deep/data/"),
        ("manifest.json", "holds a dataset too (manifest.json)"),
    ],
)
def test_a_folder_with_files_that_runs_do_not_write_is_left_as_it_is(path: str, said: str, run: Bucket) -> None:
    run.put(path, b"of a person")
    before = paths_of(run)
    with pytest.raises(UsageError) as refused:
        check_removal(run, time.time(), force=True)
    assert said in str(refused.value)
    assert paths_of(run) == before


def test_what_cannot_be_read_is_named(run: Bucket, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run/metrics/00000009.jsonl")
    with pytest.raises(UsageError, match=r"metrics/00000009\.jsonl is neither a file nor a folder"):
        check_removal(run, time.time(), force=False)


@pytest.mark.parametrize("place", ["checkpoints", "metrics/00000009.jsonl", "report.html"])
def test_a_run_with_a_link_in_it_is_left_as_it_is(place: str, run: Bucket, tmp_path: Path) -> None:
    link, target = tmp_path / "run" / place, tmp_path / "elsewhere"
    link.rename(target) if link.exists() else target.write_text("of a person")
    link.symlink_to(target)
    with pytest.raises(UsageError, match=f"{link} is a symbolic link to {target}; nothing is removed through a link"):
        check_removal(run, time.time(), force=True)
    assert target.exists()


def test_a_run_behind_a_link_is_named_by_its_real_path(run: Bucket, tmp_path: Path) -> None:
    """The folder itself must be named; for a folder above it the question shows both paths."""
    (tmp_path / "linked").symlink_to(tmp_path / "run")
    with pytest.raises(UsageError, match=f"linked is a symbolic link to {run.url}; .* name {run.url} instead"):
        check_removal(Bucket(str(tmp_path / "linked")), time.time(), force=True)
    (tmp_path / "above").symlink_to(tmp_path)
    found = check_removal(Bucket(f"{tmp_path}/above/run"), time.time(), force=False)
    assert f"{tmp_path}/above/run (links lead to {run.url}): done" in str(found)
    assert "links" not in str(check_removal(run, time.time(), force=False))


@pytest.mark.parametrize(
    ("kinds", "age_s", "forced", "said"),
    [
        (("start",), 0.0, False, "is running; stop it first"),
        (("start", "lost"), 0.0, False, "is restarting; stop it first"),
        (("start",), 1e6, True, "is silent: .* pass --force"),
        ((), 0.0, True, "is waiting: .* pass --force"),
    ],
)
def test_a_run_that_may_be_at_work_is_removed_only_by_force(
    kinds: tuple[Any, ...], age_s: float, forced: bool, said: str, tmp_path: Path
) -> None:
    run = write_run(Bucket(str(tmp_path / "run")), *kinds, age_s=age_s)
    with pytest.raises(UsageError, match=said):
        check_removal(run, time.time(), force=False)
    if forced:
        assert _remove(run, force=True)
    else:
        with pytest.raises(UsageError, match=said):
            check_removal(run, time.time(), force=True)


def test_a_run_that_went_on_after_it_was_checked_is_left_as_it_is(run: Bucket) -> None:
    """Its state and everything in it are read again."""
    found = check_removal(run, time.time(), force=False)
    run.put(layout.metrics_path(2), b"{}")
    before = paths_of(run)
    with pytest.raises(RunError, match="has changed since it was checked"):
        remove_run(found, time.time(), force=False)
    write_run(run, "resume")
    with pytest.raises(UsageError, match="is running; stop it first"):
        remove_run(found, time.time(), force=False)
    assert set(before) <= set(paths_of(run))


def test_what_is_written_while_it_is_removed_stays(run: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only names that were checked go, and only folders without anything in them."""
    found, delete = check_removal(run, time.time(), force=False), Bucket.delete_exactly

    def delete_and_write(self: Bucket, paths: Any) -> None:
        delete(self, paths)
        (tmp_path / "run/checkpoints/thesis.txt").write_text("of a person")

    monkeypatch.setattr(Bucket, "delete_exactly", delete_and_write)
    assert not remove_run(found, time.time(), force=False)
    assert paths_of(run) == ["checkpoints/thesis.txt"]


def test_what_is_left_after_a_failure_is_still_a_run(run: Bucket, monkeypatch: pytest.MonkeyPatch, ordinary_user: Path) -> None:
    mine = write_run(Bucket(str(ordinary_user / "run")), "start", "end")
    (ordinary_user / "run/checkpoints/step-00000002").chmod(0o500)
    with pytest.raises(StorageError, match="not allowed"):
        _remove(mine)
    assert {layout.CONFIG, f"{layout.CHECKPOINTS}/step-00000002/state.pt"} <= set(paths_of(mine))
    (ordinary_user / "run/checkpoints/step-00000002").chmod(0o700)
    assert _remove(mine)


def test_keys_of_a_store_go_one_by_one_and_its_neighbours_stay(s3_bucket: Bucket, s3_client: Any) -> None:
    """Also what lies below a key of the run, as below a folder; and the markers of empty folders go."""
    name = s3_bucket.url.removeprefix("s3://")
    run = write_run(s3_bucket.at("a"), "start", "end")
    write_run(s3_bucket.at("a2"), "start", "end")
    for key in ("a/", "a/checkpoints/", "a2/"):
        s3_client.put_object(Bucket=name, Key=key, Body=b"")
    found = check_removal(run, time.time(), force=False)
    s3_bucket.put("a/encoder.pt/late", b"of a person")
    with pytest.raises(UsageError, match=r"such as encoder\.pt/late"):
        remove_run(found, time.time(), force=False)
    s3_bucket.delete("a/encoder.pt/late")
    assert remove_run(found, time.time(), force=False)
    keys = {one["Key"] for one in s3_client.list_objects_v2(Bucket=name)["Contents"]}
    assert {key.partition("/")[0] for key in keys} == {"a2"}
    assert "a2/" in keys
    run.put("encoder.pt/late", b"of a person")
    run.put("encoder.pt", b"1")
    run.delete_exactly(["encoder.pt"])
    run.delete_empty_folders()
    assert paths_of(run) == ["encoder.pt/late"]


def test_other_stores_remove_by_name_too() -> None:
    root = Bucket("memory://removal")
    run = write_run(root.at("a"), "start", "end")
    write_run(root.at("a2"), "start", "end")
    assert _remove(run)
    assert {path.partition("/")[0] for path in paths_of(root)} == {"a2"}
    root.filesystem.store.clear()
