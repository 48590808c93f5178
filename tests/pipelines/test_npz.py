"""MedMNIST's .npz files: every image is an input, with the label and part that the file states; NumPy is the reference."""

from __future__ import annotations

import io
import struct
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.cli import main
from crossdim.pipelines.readers.npy_header import MAGIC
from crossdim.pipelines.sources.listing import list_sources
from crossdim.pipelines.sources.npz import open_npz
from crossdim.pipelines.sources.npz_paths import parse_path
from crossdim.pipelines.sources.reading import read_head, read_whole
from crossdim.storage_schema.errors import SampleError

MEDMNIST = Path(__file__).parents[3] / "shared" / "data" / "medmnist"
PUBLISHED = {
    "pneumoniamnist.npz": {"train": 4708, "val": 524, "test": 624},
    "adrenalmnist3d_64.npz": {"train": 1188, "val": 98, "test": 298},
}
COUNTS = {"train": 7, "val": 2, "test": 3}


def arrays(shape: tuple[int, ...] = (28, 28), seed: int = 0) -> dict[str, np.ndarray]:
    """As MedMNIST writes them: images and labels (N, 1) of three parts."""
    rng = np.random.default_rng(seed)
    found = {}
    for part, count in COUNTS.items():
        found[f"{part}_images"] = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
        found[f"{part}_labels"] = rng.integers(0, 3, (count, 1)).astype(np.uint8)
    return found


def saved(compressed: bool = True, **changed: np.ndarray) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **(arrays() | changed))
    return stream.getvalue()


def prepare(source: Path, out: Path, recipe: str = "xray-pseudo3d:tiny", *options: str) -> list[dict[str, object]]:
    line = ["prepare", str(source), "--recipe", recipe, "--out", str(out), "--no-previews", *options]
    assert main(line) in (0, 3)  # 3: something was refused or is not read
    return pq.read_table(out / "catalog").to_pylist()


def every_image(data: bytes) -> dict[tuple[str, int], np.ndarray]:
    opened = open_npz(data)
    return {
        (part, index): np.load(io.BytesIO(opened.read_image(part, index)), allow_pickle=False)
        for part, index, _, _ in opened.iterate_images()
    }


def refusal(data: bytes) -> str:
    with pytest.raises(SampleError) as caught:
        every_image(data)
    return caught.value.rule


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3), (8, 9, 10)])
def test_images_and_labels_are_those_that_numpy_reads(shape, compressed):
    expected = arrays(shape)
    data = saved(compressed, **expected)
    opened = open_npz(data)
    listed = list(opened.iterate_images())
    assert Counter(part for part, *_ in listed) == COUNTS
    for part, index, size, label in reversed(listed):  # backwards too
        image = opened.read_image(part, index)
        assert len(image) == size
        np.testing.assert_array_equal(np.load(io.BytesIO(image), allow_pickle=False), expected[f"{part}_images"][index])
        assert label == str(expected[f"{part}_labels"][index, 0])


def test_every_image_becomes_a_sample_with_its_label_and_part(tmp_path, capsys):
    (tmp_path / "a.npz").write_bytes(saved())
    rows = prepare(tmp_path / "a.npz", tmp_path / "out")
    told = capsys.readouterr().out
    assert "files: 12 = 12 used" in told
    assert "official parts of 12 images are kept (test 3, train 7, val 2)" in told
    assert "split: train 9 samples, test 3 samples" in told
    for row in rows:
        image = parse_path(str(row["source_uri"]))
        assert image is not None
        assert row["label"] == str(arrays()[f"{image.part}_labels"][image.index, 0])
        assert row["split"] == ("test" if image.part == "test" else "train")
        assert (row["note"] == "official part val") is (image.part == "val")


def test_a_share_that_is_asked_for_does_not_move_what_the_file_states(tmp_path):
    (tmp_path / "a.npz").write_bytes(saved())
    rows = prepare(tmp_path, tmp_path.parent / "drawn", "xray-pseudo3d:tiny", "--test-fraction", "0.5")
    assert Counter(row["split"] for row in rows) == {"train": 9, "test": 3}


def test_volumes_are_prepared_by_recipes_of_volumes(tmp_path):
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 40)] * 3, indexing="ij"))
    balls = {
        f"{part}_images": np.stack([np.where((grid**2).sum(0) < 0.5, 200 + index, 10 + place) for index in range(count)]).astype(
            np.uint8
        )
        for place, (part, count) in enumerate(COUNTS.items())
    }
    (tmp_path / "a.npz").write_bytes(saved(**balls))
    rows = prepare(tmp_path / "a.npz", tmp_path / "out", "mixed-superpatches:tiny")
    assert len({row["source_uri"] for row in rows}) == 12
    assert Counter(row["split"] for row in rows) == {"train": 9, "test": 3}


def test_keys_and_shards_do_not_depend_on_how_the_archive_was_written(tmp_path):
    made = []
    for name, compressed in (("one", True), ("two", False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.npz").write_bytes(saved(compressed))
        prepare(tmp_path / name / "a.npz", tmp_path / name / "out", "xray-pseudo3d:tiny", "--name", "d")
        shards = sorted((tmp_path / name / "out").rglob("*.tar"))
        made.append([shard.read_bytes() for shard in shards])
    assert made[0] == made[1]
    assert made[0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_of_medmnist_are_the_published_ones(name):
    if not (MEDMNIST / name).exists():
        pytest.skip("the files of MedMNIST are not there (../shared/data/medmnist)")
    (source,), files = list_sources([Bucket(str(MEDMNIST / name))])
    images = [parse_path(file.path) for file in files]
    assert Counter(image.part for image in images if image) == PUBLISHED[name]
    reference = np.load(MEDMNIST / name, allow_pickle=False)
    for file, image in list(zip(files, images, strict=True))[::97]:
        data = read_whole(source, file.path, file.size, version=file.version)
        assert data.startswith(read_head(source, file.path, 100))
        np.testing.assert_array_equal(np.load(io.BytesIO(data)), reference[f"{image.part}_images"][image.index])
        assert file.label == str(reference[f"{image.part}_labels"][image.index, 0])


def forged(member: str, text: str, claimed: int) -> bytes:
    """An archive whose member states a header, and whose directory claims a size that its bytes do not have."""
    stream = io.BytesIO()
    content = MAGIC + b"\1\0" + struct.pack("<H", len(text)) + text.encode()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        archive.filelist[0].file_size = claimed or len(content)
    return stream.getvalue()


HUGE = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 100, 100, 100), }"


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (forged("train_images.npy", HUGE, 0), "archive"),
        (forged("train_images.npy", HUGE, 10**12 + 10 + len(HUGE)), "archive"),
        (forged("train_images.npy", "{'descr': '|O', 'fortran_order': False, 'shape': (2, 2, 2), }", 0), "datatype"),
        (saved(train_images=np.zeros((1 << 20, 1, 1), np.uint8), train_labels=np.zeros((1 << 20, 1), np.uint8)), "too_large"),
        (saved(train_images=np.asfortranarray(arrays()["train_images"])), "archive_layout"),
        (saved(train_images=np.zeros((7, 28), np.uint8)), "archive_layout"),
        (saved(val_labels=np.zeros((3, 1), np.uint8)), "archive_layout"),
        (saved(val_labels=np.zeros((2, 1), np.float32)), "archive_layout"),
        (saved()[:-40], "archive"),
        (saved(masks=np.zeros(3)), "archive_layout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_allocated(data, rule):
    assert refusal(data) == rule


def test_a_refused_file_is_one_input_and_another_layout_is_ignored(tmp_path, capsys):
    (tmp_path / "good.npz").write_bytes(saved())
    (tmp_path / "cut.npz").write_bytes(saved()[:-40])
    np.savez(tmp_path / "other.npz", weights=np.zeros(9))
    prepare(tmp_path, tmp_path.parent / "mixed")
    told = capsys.readouterr().out
    assert "files: 14 = 12 used, 1 quarantined, 1 ignored" in told
    assert "archive 1" in told
    assert "NumPy archive" in told


def test_no_image_of_a_damaged_member_is_given_not_even_those_before_the_damage():
    large = arrays((200, 200))  # more than is read for the header
    whole = saved(compressed=False, **large)
    place = whole.index(large["train_images"][-1].tobytes())
    changed = open_npz(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(SampleError) as caught:
        changed.read_image("train", 0)
    assert caught.value.rule == "archive"
    assert changed.read_image("val", 0) == open_npz(whole).read_image("val", 0)


@given(data=st.data())
def test_damage_is_refused_or_changes_nothing(data):
    whole = saved()
    changed = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3)):
        changed[place] ^= data.draw(st.integers(1, 255))
    try:
        found = every_image(bytes(changed))
    except SampleError:
        return
    expected = arrays()
    assert Counter(part for part, _ in found) == COUNTS
    for (part, index), image in found.items():
        np.testing.assert_array_equal(image, expected[f"{part}_images"][index])


def test_a_file_that_is_written_anew_gives_no_image_of_another_content(tmp_path):
    (tmp_path / "a.npz").write_bytes(saved())
    (source,), files = list_sources([Bucket(str(tmp_path))])
    read_whole(source, files[0].path, files[0].size, version=files[0].version)
    (tmp_path / "a.npz").write_bytes(saved(**arrays(seed=1)))
    with pytest.raises(SampleError) as caught:
        read_whole(source, files[0].path, files[0].size, version=files[0].version)
    assert caught.value.rule == "changed"
