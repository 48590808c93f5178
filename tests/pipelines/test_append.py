"""Data added to a published dataset: what it then holds is what a preparation of all files from scratch gives."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crossdim.cli import main as crossdim
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.manifest_file import list_versions, read_manifest
from crossdim.pipelines import publish
from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs import prepare, task
from crossdim.pipelines.jobs.rows import decode_row
from crossdim.storage_schema.manifest import Manifest
from tests.pipelines.corpora import blob, nifti_bytes, picture, write_images, write_series

IMAGES = (
    *("--recipe", "xray-pseudo3d:tiny", "--set", "shard.max_samples=3", "--label", "folder"),
    *("--test-fraction", "0.3", "--split-by", "file"),
)
VOLUMES = ("--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16", "--test-fraction", "0.4", "--split-by", "file")


def line(folder: Path, recipe: Sequence[str], *more: str, out: str = "out") -> list[str]:
    return ["prepare", str(folder / "raw"), *recipe, "--out", str(folder / out), *more]


def rows_of(dataset: Bucket, manifest: Manifest, role: str = "catalog") -> list[dict[str, Any]]:
    parts = [pq.read_table(io.BytesIO(dataset.read(entry.path))) for entry in manifest.with_role(role)]
    rows: list[dict[str, Any]] = pa.concat_tables(parts).to_pylist()
    return rows


def read_samples(dataset: Bucket, version: int | None = None, *, without: Sequence[str] = ()) -> dict[str, tuple[object, ...]]:
    """Everything that a dataset says of each sample and its voxels, by key; not where the bytes lie."""
    places = ("object", "offset", "length", "position", *without)
    manifest, samples = read_manifest(dataset, version), {}
    for row in rows_of(dataset, manifest):
        data = dataset.read_range(row["object"], row["offset"], row["length"])
        told = {name: row[name] for name in row if name not in places}
        samples[row["key"]] = (json.dumps(told, sort_keys=True), decode_row(data, row).tobytes())
    assert len(samples) == manifest.num_samples
    return samples


def refusals(dataset: Bucket) -> list[tuple[str, str, int]]:
    return sorted((row["uri"], row["rule"], row["num_files"]) for row in rows_of(dataset, read_manifest(dataset), "quarantine"))


def assert_as_from_scratch(
    folder: Path, recipe: Sequence[str], out: str = "out", scratch: str = "scratch", without: Sequence[str] = ()
) -> None:
    """The dataset against one that is prepared anew: samples, refusals, counts of files; and every byte of it is verified."""
    assert main(line(folder, recipe, out=scratch)) in (0, 3)
    made, anew = Bucket(str(folder / out)), Bucket(str(folder / scratch))
    assert read_samples(made, without=without) == read_samples(anew, without=without)
    if not without:
        assert refusals(made) == refusals(anew)
    assert read_manifest(made).files == read_manifest(anew).files
    assert read_manifest(made).plan_digest == read_manifest(anew).plan_digest
    assert main(["verify", str(folder / out), "--local", "--json"]) == 0


def rewrite(path: Path) -> None:
    """Another content of the same size, written a second later."""
    data = bytearray(path.read_bytes())
    data[-101] ^= 1
    path.write_bytes(data)
    later = os.stat(path).st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


def write_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)


def change_images(raw: Path) -> None:
    """Four more, one of them a copy of a published one; one other picture under an old name, one gone, one mended."""
    for seed in (101, 102, 103):
        write_picture(raw / "sick" / f"a{seed}.png", seed)
    shutil.copy(raw / "well" / "p005.png", raw / "well" / "p998.png")
    write_picture(raw / "well" / "p002.png", 104)
    (raw / "well" / "p004.png").unlink()
    write_picture(raw / "well" / "cut.png", 105)


def objects_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_images_that_are_added_changed_and_gone_give_what_a_preparation_of_all_gives(tmp_path, capsys):
    write_images(tmp_path / "raw")
    assert main(line(tmp_path, IMAGES)) == 3
    before = objects_of(tmp_path / "out")
    change_images(tmp_path / "raw")
    capsys.readouterr()
    assert main(line(tmp_path, IMAGES, "--append")) == 3

    said = capsys.readouterr().out
    assert "version 2" in said
    assert "4 files added, 2 changed, 1 gone; 10 samples of version 1 taken over" in said
    assert_as_from_scratch(tmp_path, IMAGES)
    after = objects_of(tmp_path / "out")
    published = {entry.path for entry in read_manifest(Bucket(str(tmp_path / "out")), 1).objects}
    assert all(after[path] == before[path] for path in published)
    assert after["manifests/v1.json"] == before["manifest.json"]
    assert not any(path.startswith("_work") for path in after)


@pytest.mark.parametrize("names", ["hashed", "relative"])
def test_volumes_and_series_that_change_give_what_a_preparation_of_all_gives(names, tmp_path):
    """A bank keeps its shards and its document; what is added is a bank of its own, at positions behind those of the first."""
    raw, recipe = tmp_path / "raw", (*VOLUMES, "--source-names", names)
    for number in range(4):
        write_series(raw / f"s{number}", blob((12 + number, 24, 24), number), f"1.2.3.{number}")
    (raw / "v.nii").write_bytes(nifti_bytes(blob((24, 24, 24), 5), (2.0, 2.0, 2.0)))
    assert main(line(tmp_path, recipe)) == 0
    first = read_samples(Bucket(str(tmp_path / "out")))
    write_series(raw / "s4", blob((14, 24, 24), 9), "1.2.3.9")
    shutil.copytree(raw / "s0", raw / "copy")
    min((raw / "s1").iterdir()).unlink()
    rewrite(max((raw / "s2").iterdir()))
    shutil.copy(raw / "v.nii", raw / "w.nii")
    assert main(line(tmp_path, recipe, "--append")) in (0, 3)

    out = Bucket(str(tmp_path / "out"))
    banks = {entry.path.partition(".zarr/")[0] for entry in read_manifest(out).with_role("bank")}
    assert len(banks) == 2
    assert read_samples(out, 1) == first
    # By chance of the key, a hashed name of a copy sorts before that of the published file, which from scratch is then the copy.
    assert_as_from_scratch(tmp_path, recipe, without=("source_uri",) if names == "hashed" else ())


def test_nothing_that_is_as_it_was_is_decoded(tmp_path, monkeypatch):
    """Not even copies, which were refused because of their content."""
    write_images(tmp_path / "raw")
    (tmp_path / "raw" / "well" / "cut.png").unlink()
    assert main(line(tmp_path, IMAGES)) == 3
    write_picture(tmp_path / "raw" / "well" / "new.png", 100)
    decoded = []
    decode = task.decoder_process.decode
    monkeypatch.setattr(
        task.decoder_process, "decode", lambda name, raw, **more: decoded.append(raw.uri) or decode(name, raw, **more)
    )
    assert main(line(tmp_path, IMAGES, "--append")) == 3

    assert decoded == ["well/new.png"]


def test_content_changed_at_equal_size_is_the_only_difference(tmp_path, capsys):
    """The dataset and its successor then have one digest of the request, and one table of names."""
    raw = tmp_path / "raw"
    for number in range(4):
        write_series(raw / f"s{number}", blob((12, 24, 24), number), f"1.2.3.{number}")
    assert main(line(tmp_path, VOLUMES)) == 0
    rewrite(min((raw / "s1").iterdir()))
    assert main(line(tmp_path, VOLUMES)) == 2
    assert "or --append" in capsys.readouterr().err
    assert main(line(tmp_path, VOLUMES, "--append")) == 0
    assert "0 files added, 1 changed, 0 gone" in capsys.readouterr().out
    assert_as_from_scratch(tmp_path, VOLUMES)
    capsys.readouterr()
    assert main(line(tmp_path, VOLUMES, "--append")) == 0
    assert "version 2 is already published" in capsys.readouterr().out
    rewrite(max((raw / "s2").iterdir()))
    assert main(line(tmp_path, VOLUMES, "--append")) == 0
    assert list_versions(Bucket(str(tmp_path / "out"))) == [1, 2, 3]
    assert_as_from_scratch(tmp_path, VOLUMES, scratch="third")


def test_a_copy_becomes_the_sample_when_what_it_repeats_is_gone(tmp_path):
    write_images(tmp_path / "raw")
    assert main(line(tmp_path, IMAGES)) == 3
    (tmp_path / "raw" / "well" / "p001.png").unlink()
    assert main(line(tmp_path, IMAGES, "--append")) == 3

    assert_as_from_scratch(tmp_path, IMAGES)
    rows = rows_of(Bucket(str(tmp_path / "out")), read_manifest(Bucket(str(tmp_path / "out"))))
    assert "well/p999_again.png" in {row["source_uri"] for row in rows}


def test_a_published_sample_keeps_its_name_if_a_copy_comes_that_sorts_before_it(tmp_path):
    """From scratch the first of equal files in the order of names is kept: here the rule differs, and the sample does not."""
    write_images(tmp_path / "raw")
    assert main(line(tmp_path, IMAGES)) == 3
    shutil.copy(tmp_path / "raw" / "well" / "p001.png", tmp_path / "raw" / "well" / "a.png")
    assert main(line(tmp_path, IMAGES, "--append")) == 3

    out = Bucket(str(tmp_path / "out"))
    assert ("well/a.png", "duplicate", 1) in refusals(out)
    assert read_samples(out) == read_samples(out, 1)


def test_a_copy_under_another_label_refuses_the_published_sample_too(tmp_path):
    """As from scratch, where it is not known which label is right."""
    write_images(tmp_path / "raw")
    assert main(line(tmp_path, IMAGES)) == 3
    shutil.copy(tmp_path / "raw" / "well" / "p005.png", tmp_path / "raw" / "sick" / "p005.png")
    assert main(line(tmp_path, IMAGES, "--append")) == 3

    assert_as_from_scratch(tmp_path, IMAGES)
    assert {rule for _, rule, _ in refusals(Bucket(str(tmp_path / "out")))} == {"label_conflict", "duplicate", "truncated"}


def test_labels_and_patients_of_another_table_are_published_and_only_their_inputs_are_made_again(tmp_path, capsys):
    raw, table = tmp_path / "raw", tmp_path / "t.csv"
    for number in range(5):
        write_picture(raw / f"p{number}.png", number)
    recipe = ("--recipe", "xray-pseudo3d:tiny", "--labels", str(table), "--label-column", "kind", "--patient-column", "who")
    table.write_text("path,kind,who\n" + "".join(f"p{n}.png,a,w{n % 3}\n" for n in range(4)))
    assert main(line(tmp_path, recipe)) == 0
    table.write_text("path,kind,who\n" + "".join(f"p{n}.png,{'ab'[n == 2]},w{n % 3}\n" for n in range(5)))
    assert main(line(tmp_path, recipe)) == 2
    capsys.readouterr()
    assert main(line(tmp_path, recipe, "--append")) == 0

    assert "0 files added, 0 changed, 0 gone; 3 samples of version 1 taken over" in capsys.readouterr().out
    assert_as_from_scratch(tmp_path, recipe)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--test-fraction", "0.4"), "--test-fraction: 0.3 there, 0.4 here"),
        (("--set", "fit.max_side=64"), "--set fit.max_side: 192 there, 64 here"),
        (("--modality", "XR"), "--modality: none there, XR here"),
    ],
)
def test_other_settings_are_refused_with_both_values_also_if_files_differ(more, message, tmp_path, capsys):
    write_images(tmp_path / "raw")
    assert main(line(tmp_path, IMAGES)) == 3
    before = objects_of(tmp_path / "out")
    change_images(tmp_path / "raw")
    capsys.readouterr()
    assert main(line(tmp_path, IMAGES, *more, "--append")) == 2

    assert message in capsys.readouterr().err
    assert objects_of(tmp_path / "out") == before


def test_a_folder_where_nothing_is_published_is_prepared_as_without_append(tmp_path):
    write_images(tmp_path / "raw")
    assert main(line(tmp_path, IMAGES, out="one")) == 3
    assert main(line(tmp_path, IMAGES, "--append", out="two")) == 3
    one, two = (objects_of(tmp_path / name) for name in ("one", "two"))
    others = {"provenance.json", "card.md", "dataset.html"}

    assert {path: one[path] for path in one.keys() - others} == {path: two[path] for path in two.keys() - others}


def test_a_dataset_in_a_store_is_added_to_alike(s3_bucket, monkeypatch, capsys):
    """Sources and dataset are objects, whose times are whole seconds of one store."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    store = ("--endpoint-url", str(s3_bucket.options.endpoint_url), "--region", "us-east-1", "--json")

    def prepare_objects(out: str, *more: str) -> int:
        return main(["prepare", f"{s3_bucket.url}/raw", *VOLUMES, "--out", f"{s3_bucket.url}/{out}", *store, *more])

    for number in range(4):
        s3_bucket.put(f"raw/v{number}.nii", nifti_bytes(blob((24, 24, 24), number), (2.0, 2.0, 2.0)))
    assert prepare_objects("out") == 0
    first = read_samples(s3_bucket.at("out"))
    time.sleep(1.1)
    s3_bucket.put("raw/v1.nii", nifti_bytes(blob((24, 24, 24), 11), (2.0, 2.0, 2.0)))
    s3_bucket.put("raw/v9.nii", nifti_bytes(blob((24, 24, 24), 19), (2.0, 2.0, 2.0)))
    s3_bucket.delete("raw/v2.nii")
    assert prepare_objects("out") == 2
    assert "1 file added, 1 changed, 1 gone (added: v9.nii; changed: v1.nii; gone: v2.nii)" in capsys.readouterr().err
    assert prepare_objects("out", "--append") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["version"], answer["changes"]) == (2, "1 file added, 1 changed, 1 gone")
    assert prepare_objects("scratch") == 0

    assert read_samples(s3_bucket.at("out")) == read_samples(s3_bucket.at("scratch"))
    assert read_samples(s3_bucket.at("out"), 1) == first
    assert main(["verify", f"{s3_bucket.url}/out", "--local", *store]) == 0
    assert main(["verify", f"{s3_bucket.url}/out", "--version", "1", "--local", *store]) == 0


def test_of_two_that_add_at_one_time_one_is_published_and_the_other_is_told(tmp_path, monkeypatch, capsys):
    """The one that is told goes on from the version of the other when it is repeated."""
    raw = tmp_path / "raw"
    write_images(raw)
    assert main(line(tmp_path, IMAGES)) == 3
    write_picture(raw / "sick" / "a.png", 101)
    whole = publish.publish_next_version

    def come_second(*arguments: Any) -> None:
        with monkeypatch.context() as other:
            other.setattr(publish, "publish_next_version", whole)
            shutil.copytree(raw, tmp_path / "other" / "raw")
            write_picture(tmp_path / "other" / "raw" / "well" / "b.png", 102)
            (tmp_path / "other" / "out").symlink_to(tmp_path / "out")
            (tmp_path / "out" / "_work").rename(tmp_path / "kept")  # the other one runs on a machine of its own
            assert main(line(tmp_path / "other", IMAGES, "--append")) == 3
            (tmp_path / "kept").rename(tmp_path / "out" / "_work")
        whole(*arguments)

    monkeypatch.setattr(publish, "publish_next_version", come_second)
    capsys.readouterr()
    assert main(line(tmp_path, IMAGES, "--append")) == 2
    assert "another process has published version 2" in capsys.readouterr().err
    monkeypatch.undo()
    assert {"sick/a.png", "well/b.png"} <= sources_of(tmp_path / "out")
    assert main(["verify", str(tmp_path / "out"), "--local", "--json"]) == 0
    assert main(line(tmp_path, IMAGES, "--append")) == 3
    assert list_versions(Bucket(str(tmp_path / "out"))) == [1, 2, 3]
    assert "well/b.png" not in sources_of(tmp_path / "out")


def sources_of(folder: Path) -> set[str]:
    dataset = Bucket(str(folder))
    return {row["source_uri"] for row in rows_of(dataset, read_manifest(dataset))}


def test_status_and_show_name_the_version_and_what_is_being_added(tmp_path, monkeypatch, capsys):
    write_images(tmp_path / "raw")
    assert main(line(tmp_path, IMAGES)) == 3
    change_images(tmp_path / "raw")
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "run_each", lambda documents, work, **_: map(work, documents[:1]))
        assert main(line(tmp_path, IMAGES, "--append")) == 2
    capsys.readouterr()
    out = str(tmp_path / "out")
    assert crossdim(["status", out]) == 2
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: version 2 failed, 1 of 2 tasks done: ")
    assert said.endswith("  version 1 is published, 12 samples\n")
    assert main(line(tmp_path, IMAGES, "--append")) == 3
    capsys.readouterr()
    assert crossdim(["status", out]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: version 2 published, 15 samples\n")
    assert crossdim(["show", out]) == 0
    assert capsys.readouterr().out.startswith(f"{out}, version 2: xray-pseudo3d-tiny, ")
    assert crossdim(["show", out, "--version", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_samples"] == 12
    assert crossdim(["show", out, "--version", "7"]) == 1
    assert "has no version 7; there is version 1, 2" in capsys.readouterr().err


def test_inputs_that_change_after_an_append_was_begun_are_told_with_what_to_delete(tmp_path, monkeypatch, capsys):
    """Never the dataset, which holds a version that is published."""
    write_images(tmp_path / "raw")
    assert main(line(tmp_path, IMAGES)) == 3
    change_images(tmp_path / "raw")
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "run_each", lambda documents, work, **_: map(work, documents[:1]))
        assert main(line(tmp_path, IMAGES, "--append")) == 2
    write_picture(tmp_path / "raw" / "well" / "later.png", 120)
    capsys.readouterr()
    assert main(line(tmp_path, IMAGES, "--append")) == 2
    assert f"or delete {tmp_path / 'out' / '_work'} to begin anew" in capsys.readouterr().err

    shutil.rmtree(tmp_path / "out" / "_work")
    assert main(line(tmp_path, IMAGES, "--append")) == 3
    assert_as_from_scratch(tmp_path, IMAGES)


class KilledError(BaseException):
    """Ends a preparation as a signal would."""


def expected_after(folder: Path) -> dict[str, tuple[object, ...]]:
    """The samples of a preparation from scratch, made once."""
    scratch = folder / "scratch"
    if not scratch.exists():
        shutil.copytree(folder / "raw", folder / "again" / "raw")
        assert main(line(folder / "again", IMAGES)) == 3
        shutil.move(folder / "again" / "out", scratch)
    return read_samples(Bucket(str(scratch)))


def change_images_less(raw: Path) -> None:
    """Enough for two tasks."""
    for seed in range(101, 105):
        write_picture(raw / "sick" / f"a{seed}.png", seed)
    (raw / "well" / "p004.png").unlink()


@pytest.mark.parametrize("step", range(1, 14))
def test_an_append_that_is_killed_at_any_write_leaves_a_whole_version_and_goes_on(step, tmp_path, monkeypatch):
    """Before the write, as by a power cut; what readers find in between is version 1 or version 2, and nothing else."""
    write_images(tmp_path / "raw", 6)
    assert main(line(tmp_path, IMAGES)) == 3
    out = Bucket(str(tmp_path / "out"))
    first = read_samples(out)
    change_images_less(tmp_path / "raw")
    writes = 0
    with monkeypatch.context() as patch:
        for name in ("put", "create"):
            whole = getattr(Bucket, name)

            def write(bucket: Bucket, path: str, *args: Any, whole: Any = whole, **more: Any) -> Any:
                nonlocal writes
                writes += bucket.url == out.url
                if writes == step:
                    raise KilledError
                return whole(bucket, path, *args, **more)

            patch.setattr(Bucket, name, write)
        with contextlib.suppress(KilledError):
            main(line(tmp_path, IMAGES, "--append"))
    assert writes >= step
    assert read_samples(out) in (first, expected_after(tmp_path))
    assert main(line(tmp_path, IMAGES, "--append")) == 3
    assert read_samples(out) == expected_after(tmp_path)
    assert read_samples(out, 1) == first
    assert list_versions(out) == [1, 2]
