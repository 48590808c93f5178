"""The loader: the same batches for any world, any number of threads, and from any position."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import DocumentError, StorageError
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.data.collate import Batch
from crossdim.training.data.dataset import open_dataset, read_sample
from crossdim.training.data.loader import Loading, step_batches
from crossdim.training.data.order import DatasetOrder, Order
from crossdim.training.data.range_reader import FsspecRangeReader, LocalRangeReader, RangeReader, open_range_reader
from crossdim.training.methods.cdssl_p3d import CdsslP3D
from crossdim.training.recipes.cdssl_p3d import tiny


def _steps(image_data: Bucket, volume_data: Bucket, first: int, stop: int, **changes: int) -> list[list[Batch]]:
    datasets = [open_dataset(image_data), open_dataset(volume_data)]
    order = Order(5, tuple(DatasetOrder(num_samples=len(c)) for c in datasets))
    loading = dataclasses.replace(Loading(order=order, global_batch=8, rank=0, world=1), **changes)
    method = tiny().method
    assert isinstance(method, CdsslP3D)
    geometry = datasets[0].pseudo3d
    return list(step_batches(loading, datasets, lambda sample, rng: method.draw(sample, geometry, rng), first, stop))


def _equal(a: Batch, b: Batch) -> bool:
    return a.keys == b.keys and all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


def test_batches_hold_one_presentation_each_and_their_global_size(image_data: Bucket, volume_data: Bucket) -> None:
    [step] = _steps(image_data, volume_data, 0, 8)
    assert [(b.stream, b.global_size, len(b.keys)) for b in step] == [
        (Presentation.PSEUDO3D, 4, 4),
        (Presentation.SUPERPATCH, 4, 4),
    ]


@pytest.mark.integration
def test_threads_and_restarts_change_no_bit(image_data: Bucket, volume_data: Bucket) -> None:
    """Chance belongs to positions, so a step resumed in another process with other threads is the same step."""
    whole = _steps(image_data, volume_data, 0, 40)
    resumed = _steps(image_data, volume_data, 24, 40, threads=1, ahead=1)
    assert all(_equal(a, b) for x, y in zip(whole[3:], resumed, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.integration
def test_a_sample_met_again_in_the_next_pass_is_seen_otherwise(image_data: Bucket, volume_data: Bucket) -> None:
    """Chance belongs to the position and not to the sample: frozen views would be a smaller dataset."""
    seen: dict[str, torch.Tensor] = {}
    again = 0
    for step in _steps(image_data, volume_data, 0, 80):
        for batch in step:
            for key, view in zip(batch.keys, batch.tensors["view1"], strict=True):
                again += key in seen
                assert key not in seen or not torch.equal(seen[key], view)
                seen[key] = view
    assert again > 0


def test_datasets_of_one_presentation_share_a_batch(image_data: Bucket) -> None:
    """Two collections of radiographs are one stream; its size is that of both."""
    [step] = _steps(image_data, image_data, 0, 8)
    assert [(b.stream, b.global_size, len(b.keys)) for b in step] == [(Presentation.PSEUDO3D, 8, 8)]


@pytest.mark.integration
def test_ranks_together_hold_what_one_holds(image_data: Bucket, volume_data: Bucket) -> None:
    alone = _steps(image_data, volume_data, 0, 16)
    ranks = [_steps(image_data, volume_data, 0, 16, rank=rank, world=3) for rank in range(3)]
    for number, step in enumerate(alone):
        for stream, batch in enumerate(step):
            parts = [rank[number][stream] for rank in ranks]
            assert tuple(key for part in parts for key in part.keys) == batch.keys
            assert all(torch.equal(torch.cat([p.tensors[n] for p in parts]), t) for n, t in batch.tensors.items())


def _plain(sample: Sample, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": np.full((2, 3), sample.array.mean(), np.float32)}


@given(
    world=st.integers(1, 5),
    global_batch=st.integers(1, 12),
    weights=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
    first=st.integers(0, 200),
    joint=st.booleans(),
)
@pytest.mark.integration
def test_any_ranks_hold_a_step_once_and_those_without_a_sample_borrow_one(
    image_data: Bucket, volume_data: Bucket, world: int, global_batch: int, weights: tuple[int, int, int], first: int, joint: bool
) -> None:
    """All ranks have the same streams, so they meet in every collective, and agree how few samples the poorest has."""
    datasets = [open_dataset(bucket) for bucket in (image_data, volume_data, image_data)]
    order = Order(3, tuple(DatasetOrder(num_samples=len(c), weight=w) for c, w in zip(datasets, weights, strict=True)))
    loading = Loading(order=order, global_batch=global_batch, rank=0, world=1, joint=joint)
    [whole], *ranks = (
        list(step_batches(dataclasses.replace(loading, rank=rank, world=of), datasets, _plain, first, first + global_batch))
        for rank, of in [(0, 1), *((rank, world) for rank in range(world))]
    )
    assert sum(len(batch.keys) for batch in whole) == global_batch
    for number, batch in enumerate(whole):
        parts = [rank[0][number] for rank in ranks]
        own = [part for part in parts if part.keys]
        assert sorted(key for part in parts for key in part.keys) == sorted(batch.keys)
        assert {(part.stream, tuple(part.counts.items())) for part in parts} == {(batch.stream, tuple(batch.counts.items()))}
        assert {part.least for part in parts} == {min(len(part.keys) for part in parts)}
        assert all(len(part.tensors["x"]) == max(1, len(part.keys)) for part in parts)
        values = torch.cat([part.tensors["x"] for part in own])
        assert torch.equal(values.sort(dim=0).values, batch.tensors["x"].sort(dim=0).values)
        borrowed = torch.cat([part.tensors["x"] for part in parts if not part.keys] or [values[:0]])
        assert set(borrowed.flatten().tolist()) <= set(batch.tensors["x"].flatten().tolist())
    assert all(len(rank[0]) == len(whole) for rank in ranks)


def test_a_sample_reads_back_as_it_was_published(image_data: Bucket, volume_data: Bucket) -> None:
    from tests.training.published import images, superpatches

    for bucket, published in ((image_data, images(30)), (volume_data, superpatches(20))):
        dataset, reader = open_dataset(bucket), open_range_reader(bucket)
        for index, sample in enumerate(published):
            found = read_sample(dataset, index, reader)
            assert np.array_equal(found.array, sample.array)
            assert (found.key, found.scaling, found.label) == (sample.key, sample.scaling, sample.label)


@pytest.mark.parametrize("kind", ["image_data", "volume_data"])
def test_a_flipped_byte_is_a_sentence_and_never_a_sample(kind: str, request: pytest.FixtureRequest, tmp_path: object) -> None:
    """Store clients return damaged ranges without a word; only our checksum can tell."""
    import shutil

    source: Bucket = request.getfixturevalue(kind)
    damaged = Bucket(f"{tmp_path}/damaged")
    shutil.copytree(source.root, damaged.root)
    dataset = open_dataset(damaged)
    path = str(dataset.column("object")[0])
    data = bytearray(damaged.read(path))
    data[int(dataset.column("offset")[0]) + 200] ^= 1  # type: ignore[call-overload]
    damaged.put(path, bytes(data))
    with pytest.raises(StorageError, match="crc32c"):
        read_sample(dataset, 0, open_range_reader(damaged))


class _Flipping:
    """A client whose first answers have one bit flipped, as a bad cable or cache would; then it answers rightly."""

    def __init__(self, reader: RangeReader, times: int) -> None:
        self._reader, self._left, self.requests = reader, times, 0

    def get(self, path: str, offset: int, length: int) -> bytes:
        data = self._reader.get(path, offset, length)
        self.requests += 1
        if self._left:
            self._left -= 1
            return data[:-30] + bytes([data[-30] ^ 4]) + data[-29:]
        return data


@pytest.mark.parametrize("client", [LocalRangeReader, FsspecRangeReader])
@pytest.mark.parametrize("kind", ["image_data", "volume_data"])
def test_a_range_that_came_wrong_once_is_read_again_and_told(
    client: type[LocalRangeReader | FsspecRangeReader], kind: str, request: pytest.FixtureRequest
) -> None:
    """Not hidden: who reads is told. Not for ever: the second wrong answer is an error."""
    bucket: Bucket = request.getfixturevalue(kind)
    dataset, messages = open_dataset(bucket), list[str]()
    right = read_sample(dataset, 3, client(bucket), messages.append).array
    assert messages == []
    once = _Flipping(client(bucket), 1)
    assert np.array_equal(read_sample(dataset, 3, once, messages.append).array, right)
    assert once.requests == 2
    assert len(messages) == 1
    assert dataset.row(3)["key"] in messages[0]
    assert "read once more" in messages[0]
    twice = _Flipping(client(bucket), 2)
    with pytest.raises(StorageError, match=r"read twice, crc32c is [0-9a-f]{8} and [0-9a-f]{8}, published"):
        read_sample(dataset, 3, twice, messages.append)
    assert (twice.requests, len(messages)) == (2, 1)


def test_a_catalog_that_changed_by_a_bit_is_not_opened(image_data: Bucket, tmp_path: object) -> None:
    import shutil

    damaged = Bucket(f"{tmp_path}/damaged")
    shutil.copytree(image_data.root, damaged.root)
    path = "catalog/part-00000.parquet"
    data = bytearray(damaged.read(path))
    data[len(data) // 2] ^= 1
    damaged.put(path, bytes(data))
    with pytest.raises(StorageError, match=r"catalog/part-00000.parquet: its sha256 is"):
        open_dataset(damaged)


@pytest.mark.parametrize("geometry", [{"window": "4"}, {"window": 4.5}, {"window": True}, {"stride": [4]}, {"layout": 1}])
def test_a_geometry_of_another_type_is_refused_when_the_dataset_is_opened(geometry: dict[str, object], tmp_path: object) -> None:
    from tests.training.published import images, publish

    bucket = Bucket(f"{tmp_path}/xr")
    publish(bucket, images(3), "xr", {"pseudo3d": {"window": 4, "stride": 4} | geometry})
    with pytest.raises(DocumentError, match=r"preprocessing\.pseudo3d"):
        open_dataset(bucket)


def test_a_sample_in_the_place_of_another_is_noticed(volume_data: Bucket) -> None:
    """Whole and sound bytes of the wrong superpatch: a range that was mixed up on the way, or a stale catalog."""
    dataset = open_dataset(volume_data)
    table = dataset.table
    for name in ("offset", "length"):
        column = table[name].to_pylist()
        swapped = pa.array([column[1], column[0], *column[2:]], table.schema.field(name).type)
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), swapped)
    mixed = dataclasses.replace(dataset, table=table)
    with pytest.raises(StorageError, match="crc32c"):
        read_sample(mixed, 0, open_range_reader(volume_data))


@pytest.mark.integration
def test_many_threads_may_read_many_files_through_few_descriptors(tmp_path: object) -> None:
    """A descriptor pushed out of the cache must stay open while another thread reads through it."""
    from concurrent.futures import ThreadPoolExecutor

    from crossdim.training.data import range_reader as module

    bucket = Bucket(str(tmp_path))
    for number in range(40):
        bucket.put(f"{number}.bin", bytes([number]) * 4096)
    before, module.OPEN_FILES = module.OPEN_FILES, 2
    try:
        reader = open_range_reader(bucket)
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda n: reader.get(f"{n % 40}.bin", 100, 8), range(4000)))
    finally:
        module.OPEN_FILES = before
    assert found == [bytes([n % 40]) * 8 for n in range(4000)]


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path: object) -> None:
    with pytest.raises(StorageError, match=r"not a published dataset: no manifest\.json"):
        open_dataset(Bucket(str(tmp_path)))
