"""A published dataset whose sources were rewritten at equal names and sizes: changed content is always told."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.cli import main
from tests.pipelines.corpora import blob, nifti_bytes, write_series

RECIPE = ("--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16")


def write_sources(folder: Path) -> None:
    """A NIfTI volume and its copy, one with a damaged header, a series, and a hidden file."""
    folder.mkdir(parents=True)
    (folder / "v.nii").write_bytes(nifti_bytes(blob((24, 24, 24), 1), (2.0, 2.0, 2.0)))
    shutil.copy(folder / "v.nii", folder / "w.nii")
    (folder / "broken.nii").write_bytes(b"\x5c\x01\0\0" + bytes(600))
    (folder / "._v.nii").write_bytes(b"litter")
    write_series(folder / "s", blob((12, 24, 24), 2), "1.2.3.4")


def rewrite(path: Path, *, change: bool) -> None:
    """The same file written anew a second later, with one byte of it changed or not."""
    data = bytearray(path.read_bytes())
    data[-101] ^= change
    path.write_bytes(data)
    later = os.stat(path).st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


def prepare_all(folder: Path, *more: str) -> list[str]:
    return ["prepare", str(folder / "raw"), *RECIPE, "--out", str(folder / "out"), *more]


@pytest.fixture
def store(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, whose keys are in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    return s3_bucket


def prepare_objects(store: Bucket, out: str) -> list[str]:
    return ["prepare", f"{store.url}/raw", *RECIPE, "--out", out, "--endpoint-url", str(store.options.endpoint_url), "--json"]


@pytest.mark.parametrize("name", ["v.nii", "w.nii", "s/07.dcm"])
@pytest.mark.parametrize("more", [(), ("--name-map", "names.csv"), ("--source-names", "hashed")])
def test_a_changed_byte_of_a_file_with_a_hashed_name_is_told(name, more, tmp_path, monkeypatch, capsys):
    """Of a sample's file, of a duplicate, and of one slice of a series."""
    monkeypatch.chdir(tmp_path)
    write_sources(tmp_path / "raw")
    assert main(prepare_all(tmp_path, *more)) == 3
    rewrite(tmp_path / "raw" / name, change=False)
    capsys.readouterr()
    assert main(prepare_all(tmp_path, *more)) == 3
    assert "not known" not in capsys.readouterr().out

    rewrite(tmp_path / "raw" / name, change=True)
    assert main(prepare_all(tmp_path, *more)) == 2
    assert f"such as {name}, changed after it was published; use another --out" in capsys.readouterr().err


def test_without_the_table_of_names_the_key_and_the_record_of_inputs_still_tell_files(tmp_path, capsys):
    write_sources(tmp_path / "raw")
    assert main(prepare_all(tmp_path)) == 3
    (table,) = (tmp_path / "raw").glob(".crossdim-names-*")
    table.unlink()
    rewrite(tmp_path / "raw" / "s" / "07.dcm", change=False)
    assert main(prepare_all(tmp_path)) == 3
    capsys.readouterr()
    for name in ("s/07.dcm", "v.nii"):
        rewrite(tmp_path / "raw" / name, change=True)
        assert main(prepare_all(tmp_path)) == 2
        assert re.search(r"such as (s/07\.dcm|[vw]\.nii), changed", capsys.readouterr().err)


def test_slices_beyond_a_gap_are_no_part_of_their_volume(tmp_path, capsys):
    """Rights that were changed, or a copy that keeps times, are a reason to read a file again, and no change."""
    write_series(tmp_path / "raw", blob((16, 24, 24), 2), "1.2.3.4")
    for number in (11, 12):
        (tmp_path / "raw" / f"{number:02}.dcm").unlink()
    assert main(prepare_all(tmp_path)) == 3
    for path in (tmp_path / "raw").glob("*.dcm"):
        path.chmod(0o640)
    capsys.readouterr()
    assert main(prepare_all(tmp_path)) == 3
    assert "beyond_gap" in capsys.readouterr().out


def test_a_refused_file_that_was_written_anew_is_told_with_what_to_do(tmp_path, capsys):
    """Its content was never read whole, so that it may have been repaired."""
    write_sources(tmp_path / "raw")
    assert main(prepare_all(tmp_path)) == 3
    rewrite(tmp_path / "raw" / "broken.nii", change=True)
    capsys.readouterr()
    assert main(prepare_all(tmp_path)) == 3
    assert "such as broken.nii, may have been written anew" in capsys.readouterr().out


def test_a_second_dataset_of_other_content_does_not_hide_that_the_first_one_is_out_of_date(tmp_path, capsys):
    """Both have one table of names, for names and sizes are the same."""
    write_sources(tmp_path / "raw")
    assert main(prepare_all(tmp_path)) == 3
    rewrite(tmp_path / "raw" / "v.nii", change=True)
    rewrite(tmp_path / "raw" / "w.nii", change=True)
    second = ["prepare", str(tmp_path / "raw"), *RECIPE, "--out", str(tmp_path / "second")]
    assert main(second) == 3
    assert main(second) == 3
    capsys.readouterr()
    assert main(prepare_all(tmp_path)) == 2
    assert re.search(r"such as [vw]\.nii, changed", capsys.readouterr().err)


def write_pictures(folder: Path) -> None:
    """Two volumes and a damaged one, none of which needs a hashed name."""
    folder.mkdir(parents=True)
    for number in (1, 2):
        (folder / f"{number}.nii").write_bytes(nifti_bytes(blob((24, 24, 24), number), (2.0, 2.0, 2.0)))
    (folder / "broken.nii").write_bytes(b"\x5c\x01\0\0" + bytes(600))


def copy_with_times(new: Path, old: Path) -> None:
    """As ``rsync -t`` and ``cp -p`` do: the modification time of the new file is years before."""
    shutil.copy(new, old)
    os.utime(old, ns=(10**18, 10**18))


def move_over(new: Path, old: Path) -> None:
    """A file of the same time takes the other's place."""
    times = os.stat(old)
    moved = old.with_name(".tmp")
    shutil.copy(new, moved)
    os.utime(moved, ns=(times.st_atime_ns, times.st_mtime_ns))
    moved.rename(old)


@pytest.mark.parametrize("names", ["relative", "hashed"])
@pytest.mark.parametrize("replace", [copy_with_times, move_over])
@pytest.mark.parametrize("content", ["other", "equal"])
def test_a_file_that_was_replaced_by_an_older_one_is_told(content, replace, names, tmp_path, capsys):
    write_pictures(tmp_path / "raw")
    line = prepare_all(tmp_path, "--source-names", names)
    assert main(line) == 3
    (tmp_path / "new.nii").write_bytes((tmp_path / "raw" / "1.nii").read_bytes())
    if content == "other":
        rewrite(tmp_path / "new.nii", change=True)
    replace(tmp_path / "new.nii", tmp_path / "raw" / "1.nii")
    capsys.readouterr()

    assert main(line) == (2 if content == "other" else 3)
    printed = capsys.readouterr()
    assert ("such as 1.nii, changed after it was published" in printed.err) == (content == "other")
    assert ("is already published" in printed.out) == (content == "equal")


def test_a_link_that_leads_to_another_file_is_told(tmp_path, capsys):
    """As dataset managers change it: the file that it leads to is older than the dataset."""
    write_pictures(tmp_path / "kept")
    write_pictures(tmp_path / "raw")
    (tmp_path / "raw" / "1.nii").unlink()
    (tmp_path / "raw" / "1.nii").symlink_to(tmp_path / "kept" / "1.nii")
    rewrite(tmp_path / "kept" / "2.nii", change=True)
    os.utime(tmp_path / "kept" / "2.nii", ns=(10**18, 10**18))
    assert main(prepare_all(tmp_path)) == 3
    (tmp_path / "raw" / "1.nii").unlink()
    (tmp_path / "raw" / "1.nii").symlink_to(tmp_path / "kept" / "2.nii")

    assert main(prepare_all(tmp_path)) == 2
    assert "such as 1.nii, changed after it was published" in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.parametrize("out", ["{}/out", "out"])
def test_a_changed_object_of_a_store_is_told_where_names_are_readable(out, store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = store.at("raw")
    write_pictures(tmp_path / "raw")
    for path in (tmp_path / "raw").iterdir():
        source.put(path.name, path.read_bytes())
    line = prepare_objects(store, out.format(store.url))
    assert main(line) == 3
    assert main(line) == 3
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["already_published"] is True
    rewrite(tmp_path / "raw" / "1.nii", change=True)
    source.put("1.nii", (tmp_path / "raw" / "1.nii").read_bytes())

    assert main(line) == 2
    assert "such as 1.nii, changed after it was published" in capsys.readouterr().err


@pytest.mark.integration
def test_a_changed_object_of_a_store_is_told_by_its_etag_after_publishing(store, tmp_path, capsys):
    source = store.at("raw")
    write_sources(tmp_path / "raw")
    for path in (tmp_path / "raw").rglob("*.*"):
        if path.is_file():
            source.put(str(path.relative_to(tmp_path / "raw")), path.read_bytes())
    line = prepare_objects(store, f"{store.url}/out")
    assert main(line) == 3
    assert main(line) == 3
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["already_published"] is True
    data = np.frombuffer(source.read("v.nii"), np.uint8).copy()
    data[-9] ^= 1
    source.put("v.nii", data.tobytes())

    assert main(line) == 2
    assert "such as v.nii, changed after it was published" in capsys.readouterr().err
