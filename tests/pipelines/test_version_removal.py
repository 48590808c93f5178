"""``crossdim gc``: what goes is what no kept version names and a preparation wrote; everything else stays, to the byte."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.manifest_file import list_versions, read_manifest
from crossdim.pipelines import version_removal
from crossdim.pipelines.jobs import prepare
from crossdim.storage_schema.errors import StorageError
from tests.pipelines.corpora import blob, nifti_bytes, write_images
from tests.pipelines.test_append import IMAGES, VOLUMES, line, objects_of, read_samples, write_picture


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """A dataset of images with three versions: one that adds, and one for which the first shard is not needed any more."""
    raw = tmp_path / "raw"
    write_images(raw)
    assert main(line(tmp_path, IMAGES)) == 3
    write_picture(raw / "well" / "a.png", 101)
    assert main(line(tmp_path, IMAGES, "--append")) == 3
    for name in ("p000", "p003", "p006", "p009"):
        (raw / "sick" / f"{name}.png").unlink()
    write_picture(raw / "sick" / "b.png", 102)
    write_picture(raw / "sick" / "c.png", 103)
    assert main(line(tmp_path, IMAGES, "--append")) == 3
    return tmp_path / "out"


def test_what_only_removed_versions_name_goes_and_nothing_else(versions, tmp_path, capsys):
    """Held against the manifests, and files of other names are left alone also where they lie among ours."""
    dataset = Bucket(str(versions))
    for path in ("mine.txt", "images/mine.tar", "catalog/mine.parquet", "superpatches/x.zarr/mine"):
        dataset.put(path, b"mine")
    before, newest = objects_of(versions), read_samples(dataset)
    kept = {entry.path for entry in read_manifest(dataset).objects}
    others = {entry.path for number in (1, 2) for entry in read_manifest(dataset, number).objects} - kept
    capsys.readouterr()
    assert main(["gc", str(versions), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert objects_of(versions) == before
    assert main(["gc", str(versions), "--yes"]) == 0

    after = objects_of(versions)
    gone = before.keys() - after.keys()
    assert {path: before[path] for path in after} == after
    assert {path for path in gone if not path.startswith(("inputs/", "manifests/"))} == others
    assert {path for path in gone if path.startswith("manifests/")} == {"manifests/v1.json", "manifests/v2.json"}
    assert (found["objects"], found["bytes"]) == (len(gone), sum(len(before[path]) for path in gone))
    assert (found["versions_removed"], found["versions_kept"], found["removed"]) == ([1, 2], [3], False)
    assert "versions 1, 2" in capsys.readouterr().out
    assert read_samples(dataset) == newest
    assert main(["verify", str(versions), "--local", "--json"]) == 0
    assert main(["verify", str(versions), "--version", "1", "--local"]) == 1
    assert not (versions / "catalog" / "v2").exists()
    assert main(["gc", str(versions), "--yes"]) == 0
    assert "holds nothing that version 3 does not use" in capsys.readouterr().out


def test_kept_versions_are_whole_and_the_next_one_has_the_next_number(versions, tmp_path, capsys):
    dataset = Bucket(str(versions))
    samples = {number: read_samples(dataset, number) for number in (2, 3)}
    assert main(["gc", str(versions), "--keep", "2", "--yes"]) == 0
    assert list_versions(dataset) == [2, 3]
    assert {number: read_samples(dataset, number) for number in (2, 3)} == samples
    assert main(["gc", str(versions), "--yes"]) == 0
    write_picture(tmp_path / "raw" / "well" / "d.png", 109)
    assert main(line(tmp_path, IMAGES, "--append")) == 3
    assert list_versions(dataset) == [3, 4]
    assert read_samples(dataset, 3) == samples[3]


def test_it_is_not_done_while_a_version_is_in_preparation(versions, tmp_path, monkeypatch, capsys):
    write_picture(tmp_path / "raw" / "well" / "d.png", 109)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "run_each", lambda documents, work, **_: [])
        assert main(line(tmp_path, IMAGES, "--append")) == 2
    before = objects_of(versions)
    capsys.readouterr()
    assert main(["gc", str(versions), "--yes"]) == 1

    assert "is in preparation" in capsys.readouterr().err
    assert objects_of(versions) == before


def fail(*_: object) -> None:
    raise StorageError("no answer")


def test_what_an_append_left_that_was_given_up_goes_too(tmp_path, monkeypatch, capsys):
    """Of a dataset with one version, whose objects stay as they are."""
    write_images(tmp_path / "raw")
    assert main(line(tmp_path, IMAGES)) == 3
    before = objects_of(tmp_path / "out")
    path = tmp_path / "raw" / "well" / "d.png"
    write_picture(path, 109)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "read_markers", fail)
        assert main(line(tmp_path, IMAGES, "--append")) == 2
    path.unlink()
    assert main(line(tmp_path, IMAGES)) == 3
    assert len(objects_of(tmp_path / "out")) > len(before)
    assert main(["gc", str(tmp_path / "out"), "--yes"]) == 0

    assert "object that no version names" in capsys.readouterr().out
    assert objects_of(tmp_path / "out") == before


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_it_asks_and_says_what_cannot_be_known(answer, code, versions, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    before = objects_of(versions)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["gc", str(versions)]) == code

    asked = capsys.readouterr().err
    assert "versions 1, 2" in asked
    assert "A run that began with one of these versions cannot be seen from here" in asked
    assert (objects_of(versions) == before) == bool(code)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["gc", str(versions)]) == (0 if code == 0 else 1)


def test_nothing_is_removed_through_a_link(versions, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (versions / "images" / "link").symlink_to(tmp_path / "elsewhere")
    before = objects_of(versions)
    assert main(["gc", str(versions), "--yes"]) == 1
    assert "nothing is removed through a link" in capsys.readouterr().err
    assert objects_of(versions) == before


def test_a_dataset_that_changes_between_the_question_and_the_answer_is_left_alone(versions, monkeypatch, capsys):
    check = version_removal.check_version_removal
    found = check(Bucket(str(versions)), 1)
    Bucket(str(versions)).put("images/xray-pseudo3d-tiny-v4-01234567-000000.tar", b"of a version in preparation")
    before = objects_of(versions)
    with pytest.raises(StorageError, match="nothing was removed"):
        version_removal.remove_versions(found, 1)
    assert objects_of(versions) == before


def test_versions_in_a_store_are_removed_alike(s3_bucket, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    store = ("--endpoint-url", str(s3_bucket.options.endpoint_url), "--region", "us-east-1", "--json")
    out = ("--out", f"{s3_bucket.url}/out")
    for number in range(5):
        s3_bucket.put(f"raw/v{number}.nii", nifti_bytes(blob((24, 24, 24), number), (2.0, 2.0, 2.0)))
    assert main(["prepare", f"{s3_bucket.url}/raw", *VOLUMES, *out, *store]) == 0
    for number in range(5):
        s3_bucket.delete(f"raw/v{number}.nii")
        s3_bucket.put(f"raw/w{number}.nii", nifti_bytes(blob((24, 24, 24), 10 + number), (2.0, 2.0, 2.0)))
    assert main(["prepare", f"{s3_bucket.url}/raw", *VOLUMES, *out, *store, "--append"]) == 0
    dataset = s3_bucket.at("out")
    newest = read_samples(dataset)
    capsys.readouterr()
    assert main(["gc", f"{s3_bucket.url}/out", "--yes", *store]) == 0

    assert json.loads(capsys.readouterr().out)["versions_removed"] == [1]
    assert read_samples(dataset) == newest
    left = {one.path for one in dataset.list_objects()}
    named = {entry.path for entry in read_manifest(dataset).objects}
    assert {path for path in left if path.startswith(("superpatches/", "catalog/"))} <= named
    assert main(["verify", f"{s3_bucket.url}/out", "--local", *store]) == 0
