"""Raw files to an evaluated encoder with real parts, with a run that is killed and resumed on the way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import webdataset
import zarr

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.digest import digest
from crossdim.storage_schema.manifest import parse_manifest
from crossdim.training.data.dataset import open_dataset, read_sample
from crossdim.training.data.range_reader import open_range_reader
from crossdim.training.run_dir.checkpoint_listing import complete_names
from crossdim.training.run_dir.metrics import read_metrics
from demo.phantoms import write_phantoms
from tests.system.conftest import DATA, Store, crossdim, kill_at, start
from tests.training.published import images, publish, superpatches

pytestmark = [
    pytest.mark.system,
    pytest.mark.ray,
    pytest.mark.timeout(1500),  # it takes three minutes on two quiet cores
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # webdataset leaves its file to the collector
]

PREPARED = (0, 3)  # done, or done with quarantined samples


def _prepare(store: Store, images: list[str], volumes: list[str], engine: str) -> list[str]:
    """Both datasets, prepared and verified on Ray or in the process of the command; their URLs."""
    urls = []
    store.bucket("keys").put("salt", b"a key that is not left in shared data")
    for name, sources, recipe in (("flat", images, "xray-pseudo3d:tiny"), ("solid", volumes, "mixed-superpatches:tiny")):
        url = f"{store.root}/{name}"
        key = ("--salt-file", f"{store.root}/keys/salt")
        line = ("prepare", *sources, "--recipe", recipe, "--out", url, "--label", "folder", *key, "--json", engine)
        crossdim(*line, *store.arguments, expect=PREPARED)
        assert json.loads(crossdim("verify", url, "--json", engine, *store.arguments))["problems"] == []
        urls.append(url)
    return urls


def _walk(store: Store, urls: list[str], steps: int, cut: int) -> None:
    """Train in one piece without Ray, and on Ray cut off with signal 9; both must be the same run. Then evaluate."""

    def line(run: str) -> tuple[str, ...]:
        sizes = ("--steps", str(steps), "--checkpoint-every", "5")
        return (
            "pretrain",
            "--recipe",
            "cdssl-p3d:tiny",
            "--data",
            *urls,
            "--out",
            f"{store.root}/{run}",
            *sizes,
            *store.arguments,
        )

    crossdim(*line("whole"), "--workers", "0")
    whole, cut_off = store.bucket("whole"), store.bucket("cut")
    kill_at(start(*line("cut")), cut_off, cut)
    assert 0 < len(read_metrics(cut_off)) < steps
    assert complete_names(cut_off)
    crossdim(*line("cut"))
    expected, found = read_metrics(whole), read_metrics(cut_off)
    assert [r["step"] for r in found] == list(range(steps))
    assert [r["samples"] for r in found] == [r["samples"] for r in expected]
    assert [r["loss"] for r in found] == pytest.approx([r["loss"] for r in expected], abs=1e-5)
    assert all(set(r["counts"].values()) == {6} for r in found)

    out = crossdim("evaluate", f"{store.root}/cut", "--data", *urls, "--baselines", "2", *store.arguments)
    assert re.search(
        r"\(pseudo3d\), linear, \d+ samples of [\w ]*\d+ inputs of unknown patients: \d\.\d+ ± \d\.\d+, untrained", out
    )
    assert re.search(r"\(superpatch\), knn, \d+ samples of [\w ]*patients: ", out)
    page = cut_off.read("report.html").decode()
    assert "pseudo-3D slices" in page
    assert "restored" in page


def _opens_elsewhere(store: Store, urls: list[str], folder: Path) -> None:
    """Shards read by the webdataset library and the bank opened by zarr hold, bit for bit, what our reader gives."""
    for url in urls:
        bucket = Bucket(url, store.options)
        for stored in bucket.list_objects():
            Bucket(str(folder)).put(stored.path, bucket.read(stored.path))
        dataset, reader = open_dataset(bucket, split=None), open_range_reader(bucket)
        theirs: dict[str, np.ndarray] = {}
        for shard in dataset.manifest.with_role("shard"):
            records = webdataset.WebDataset(str(folder / shard.path), shardshuffle=False, empty_check=False).decode()
            theirs |= {record["__key__"]: record["npy"] for record in records}
        for row in dataset.table.select(["key", "object", "position"]).to_pylist():
            if row["position"] is not None:
                bank = zarr.open_array(str(folder / row["object"].split("/c/")[0]), mode="r")
                theirs[row["key"]] = bank[row["position"]][None]
        assert len(theirs) == len(dataset)
        for index in range(len(dataset)):
            sample = read_sample(dataset, index, reader)
            assert sample.array.dtype == theirs[sample.key].dtype
            assert np.array_equal(sample.array, theirs[sample.key])


def _copied(folder: Path, bucket: Bucket) -> None:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            bucket.put(str(file.relative_to(folder)), file.read_bytes())


def test_phantoms_walk_the_corridor_through_an_s3_server(s3: Store, tmp_path: Path) -> None:
    """Every byte goes through the S3 protocol; endpoint and credentials are given as arguments alone."""
    write_phantoms(tmp_path, seed=1, images_per_label=8, volumes_per_label=4)
    _copied(tmp_path, s3.bucket("raw"))
    urls = _prepare(s3, [f"{s3.root}/raw/xray"], [f"{s3.root}/raw/ct"], "--no-local")
    again = ("prepare", f"{s3.root}/raw/xray", "--recipe", "xray-pseudo3d:tiny", "--out", urls[0], "--label", "folder")
    assert "already published" in crossdim(*again, *s3.arguments)
    _opens_elsewhere(s3, urls, tmp_path / "elsewhere")
    _walk(s3, urls, steps=12, cut=7)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the folder of real images is not here: {DATA}")
def test_real_images_walk_the_corridor(local: Store, tmp_path: Path) -> None:
    """CT, MR and DICOM series, radiographs and blood smears: 24 steps, killed at about half of them."""
    urls = _prepare(local, [f"{DATA}/xray2d", f"{DATA}/micro2d"], [f"{DATA}/ct", f"{DATA}/mr", f"{DATA}/dicom_series"], "--local")
    flat = parse_manifest(local.bucket("flat").read("manifest.json"), "flat")
    solid = parse_manifest(local.bucket("solid").read("manifest.json"), "solid")
    assert flat.num_samples == 176  # 76 radiographs and 100 blood smears, none refused
    assert solid.num_samples > 100
    assert flat.preprocessing_digest == digest(flat.preprocessing)
    _opens_elsewhere(local, urls, tmp_path / "elsewhere")
    _walk(local, urls, steps=24, cut=12)


def test_two_workers_train_on_the_samples_of_one(local: Store) -> None:
    """Ray Train with two gloo workers: the step's samples, its counts and its schedule are those of one process."""
    publish(local.bucket("flat"), images(24), "flat")
    publish(local.bucket("solid"), superpatches(12), "solid")
    for run, workers in (("one", "0"), ("two", "2"), ("elastic", "1:2")):
        line = ("pretrain", "--recipe", "cdssl-p3d:tiny", "--data", f"{local.root}/flat", f"{local.root}/solid")
        where = ("--out", f"{local.root}/{run}", "--workers", workers)
        crossdim(*line, *where, "--steps", "4", "--checkpoint-every", "2")
    one, two = read_metrics(local.bucket("one")), read_metrics(local.bucket("two"))
    for name in ("samples", "counts", "lr"):
        assert [r[name] for r in two] == [r[name] for r in one]
    assert [r["samples"] for r in read_metrics(local.bucket("elastic"))] == [r["samples"] for r in one]
    # Batch norm sees half of the batch on each of two workers: alike, not equal.
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], abs=0.2)


def test_a_worker_that_fails_on_ray_is_one_sentence(local: Store) -> None:
    """A damaged object found by a worker in another process comes back as the sentence that names it."""
    bucket = local.bucket("flat")
    shard = publish(bucket, images(24), "flat").with_role("shard")[0].path
    data = bytearray(bucket.read(shard))
    for place in range(3000, len(data), 2000):
        data[place] ^= 1
    bucket.put(shard, bytes(data))
    line = ("pretrain", "--recipe", "cdssl-p3d:tiny", "--data", bucket.url, "--out", f"{local.root}/run", "--steps", "3")
    process = start(*line)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert re.search(r"error: .*/images/.*\.tar bytes \d+\+\d+ \(sample [0-9a-f]{32}\): read twice, crc32c is", err), err[-3000:]
    assert "Traceback" not in err
