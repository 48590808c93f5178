"""Shards: what some ranks write, others read bit for bit, and nothing is believed without its hash."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError
from crossdim.training.run_dir.layout import SHARD_INDEX
from crossdim.training.run_dir.sharded import index, read, snapshot, write, writer
from crossdim.training.run_dir.sharded.index import DTYPES
from tests.ranks import run_on_ranks

WORLD = 3
#: First axes that do not divide by 3 ranks; that leave one with nothing; other axes, none, and no numbers at all.
SHAPES: dict[str, tuple[tuple[int, ...], Placement | None]] = {
    "five": ((5, 3), Shard(0)),
    "two": ((2, 4), Shard(0)),
    "one": ((1,), Shard(0)),
    "columns": ((3, 5), Shard(1)),
    "empty": ((0, 3), Shard(0)),
    "everywhere": ((4, 2), Replicate()),
    "plain": ((2, 3), None),
    "number": ((), None),
}


def _numbers(name: str) -> Tensor:
    """The whole tensor of a name."""
    shape, _ = SHAPES[name]
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(name))).to(torch.bfloat16 if name == "plain" else None)


def _tensors(make: Callable[[Tensor], Tensor] = lambda whole: whole) -> dict[str, Tensor]:
    """All of them, sharded over the ranks there are, if there are any."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),)) if dist.is_initialized() else None
    found = {}
    for name, (_, placement) in SHAPES.items():
        whole = make(_numbers(name))
        found[name] = distribute_tensor(whole, mesh, [placement]) if mesh and placement else whole
    return found


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _bits(tensor: Tensor) -> bytes:
    return cast(bytes, tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _assert_filled(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        assert _bits(_whole(tensor)) == _bits(_numbers(name)), name


class _Work(Protocol):
    def __call__(self, run: Bucket) -> None: ...


def _process(rank: int, world: int, url: str, work: _Work) -> None:
    work(Bucket(url))


def _on_ranks(world: int, run: Bucket, work: _Work) -> None:
    run_on_ranks(world, _process, run.url, work)


def _everybodys(value: object) -> list[object]:
    values: list[object] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@pytest.fixture
def run(tmp_path: Path) -> Bucket:
    return Bucket(f"{tmp_path}/run")


def _recorded(run: Bucket) -> dict[str, str]:
    return cast(dict[str, str], json.loads(run.read("hashes.json")))


def _writing(run: Bucket) -> None:
    """All write; one has what cannot be written; one finds a damaged object that it alone reads."""
    copies = snapshot(_tensors())
    hashes = write(run, "s", copies, None)
    assert _everybodys(hashes) == [hashes] * WORLD
    assert hashes == {
        stored.path: hashlib.sha256(run.at("s").read(stored.path)).hexdigest() for stored in run.at("s").list_objects()
    }
    if dist.get_rank() == 0:
        run.put("hashes.json", json.dumps(hashes).encode())
    refused = torch.zeros(2, dtype=torch.complex64 if dist.get_rank() == 1 else torch.float32)
    with pytest.raises(StorageError, match=r"odd is a tensor of torch\.complex64; store only"):
        write(run, "refused", {"odd": refused}, None)
    _a_rank_finds_damage(run, hashes)


def _a_rank_finds_damage(run: Bucket, hashes: dict[str, str]) -> None:
    name = "s/shard-00001-00000.bin"
    data = run.read(name)
    dist.barrier()
    if dist.get_rank() == 0:
        run.put(name, bytes([data[0] ^ 1]) + data[1:])
    dist.barrier()
    with pytest.raises(StorageError, match=r"shard-00001-00000\.bin: its bytes do not have the recorded sha256"):
        read(run, "s", hashes, {"columns": _tensors(torch.zeros_like)["columns"]}, None)
    if dist.get_rank() == 0:
        run.put(name, data)


def _reading(run: Bucket) -> None:
    tensors = _tensors(torch.zeros_like)
    read(run, "s", _recorded(run), tensors, dist.new_group(backend="gloo"))
    _assert_filled(tensors)


@pytest.mark.integration
def test_what_three_ranks_write_two_and_one_read(run: Bucket) -> None:
    """Axes that do not divide, empty parts, several axes; what all hold is stored once."""
    _on_ranks(WORLD, run, _writing)
    alone = _tensors(torch.zeros_like)
    read(run, "s", _recorded(run), alone, None)
    _assert_filled(alone)
    _on_ranks(2, run, _reading)
    chunks = [(*chunk, name) for name, entry in json.loads(run.read(f"s/{SHARD_INDEX}")).items() for chunk in entry["chunks"]]
    stored = sum(torch.Size(sizes).numel() for _, sizes, _, _, _ in chunks)
    assert stored == sum(_numbers(name).numel() for name in SHAPES)
    assert {name: obj[:5] for _, _, obj, _, name in chunks if name in ("everywhere", "plain", "number", "five")} == {
        "everywhere": "whole",
        "plain": "whole",
        "number": "whole",
        "five": "shard",
    }


def _drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Any bits that a type can have, NaNs too, transposed."""
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8).bool().transpose(0, -1)
    count = torch.Size(shape).numel() * dtype.itemsize
    bits = torch.randint(0, 256, (count,), generator=generator, dtype=torch.uint8)
    return bits.view(dtype).reshape(shape).transpose(0, -1) if shape else bits.view(dtype).reshape(())


@given(
    drawn=st.lists(
        st.tuples(st.lists(st.integers(0, 4), max_size=4).map(tuple), st.sampled_from(sorted(DTYPES)), st.integers(0, 99)),
        max_size=6,
    ),
    object_bytes=st.sampled_from([1, 100, 1000, writer.OBJECT_BYTES]),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_tensors_come_back_bit_for_bit(drawn: list[tuple[tuple[int, ...], str, int]], object_bytes: int) -> None:
    """Of any type, shape and layout, in few objects or many; the same tensors are the same bytes."""
    tensors = {str(n): _drawn(shape or (1,) * (seed % 2), DTYPES[kind], seed) for n, (shape, kind, seed) in enumerate(drawn)}
    with tempfile.TemporaryDirectory() as folder, patch.object(writer, "OBJECT_BYTES", object_bytes):
        hashes = write(Bucket(folder), "one", tensors, None)
        assert write(Bucket(folder), "two", tensors, None) == hashes
        document = json.loads(Bucket(folder).read(f"one/{SHARD_INDEX}"))
        assert all(at % writer.ALIGNMENT == 0 for entry in document.values() for _, _, _, at in entry["chunks"])
        found = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        read(Bucket(folder), "one", hashes, found, None)
    assert {name: _bits(tensor) for name, tensor in found.items()} == {name: _bits(tensor) for name, tensor in tensors.items()}


def test_objects_stay_small(run: Bucket) -> None:
    """Host memory for one object is what writing takes, so no object holds more than one tensor above the limit."""
    tensors = {str(n): torch.full((10,), float(n)) for n in range(7)}
    with patch.object(writer, "OBJECT_BYTES", 100):
        hashes = write(run, "s", tensors, None)
    assert sorted(hashes) == [SHARD_INDEX, *(f"whole-00000-{n:05d}.bin" for n in range(4))]


@pytest.fixture
def hashes(run: Bucket) -> dict[str, str]:
    """Of two small objects: a in the first, b in the second."""
    with patch.object(writer, "OBJECT_BYTES", 1):
        return write(run, "s", {"a": torch.arange(4.0), "b": torch.ones(2, 3)}, None)


def _empty_tensors() -> dict[str, Tensor]:
    return {"a": torch.zeros(4), "b": torch.zeros(2, 3)}


SECOND = "whole-00000-00001.bin"
OTHER_BYTES = "its bytes do not have the recorded sha256"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        *((name, "flipped", OTHER_BYTES) for name in (SHARD_INDEX, SECOND)),
        *((name, "gone", "is missing; the checkpoint is not whole") for name in (SHARD_INDEX, SECOND)),
        *((name, "unrecorded", "has no recorded sha256") for name in (SHARD_INDEX, SECOND)),
        *((SHARD_INDEX, damage, OTHER_BYTES) for damage in ("cut", "longer")),
        (SECOND, "cut", "has 4 bytes and not the 24 that were written"),
        (SECOND, "longer", "has 25 bytes and not the 24 that were written"),
    ],
)
def test_a_damaged_object_is_named(run: Bucket, hashes: dict[str, str], name: str, damage: str, message: str) -> None:
    data = run.read(f"s/{name}")
    if damage == "gone":
        run.delete(f"s/{name}")
    elif damage == "unrecorded":
        del hashes[name]
    else:
        changed = {"flipped": bytes([data[0] ^ 1]) + data[1:], "cut": data[:4], "longer": data + b"0"}
        run.put(f"s/{name}", changed[damage])
    tensors = _empty_tensors()
    with pytest.raises(StorageError, match=f"{name}: {message}"):
        read(run, "s", hashes, tensors, None)
    assert not tensors["b"].any()


def _with_index(run: Bucket, hashes: dict[str, str], data: bytes) -> dict[str, str]:
    """An index that somebody else wrote, with its hash."""
    run.put(f"s/{SHARD_INDEX}", data)
    return hashes | {SHARD_INDEX: hashlib.sha256(data).hexdigest()}


class _Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return os.mkdir, (self._folder,)


def test_code_in_place_of_the_index_is_not_run(run: Bucket, hashes: dict[str, str], tmp_path: Path) -> None:
    """DCP's own reader unpickles its metadata: this one must not, whatever the bytes are."""
    ran, buffer = tmp_path / "ran", io.BytesIO()
    torch.save({"a": _Code(ran)}, buffer)
    for data in (pickle.dumps(_Code(ran)), buffer.getvalue()):
        with pytest.raises(StorageError, match=f"{SHARD_INDEX}: is no index of shards"):
            read(run, "s", _with_index(run, hashes, data), _empty_tensors(), None)
    assert not ran.exists()
    pickle.loads(pickle.dumps(_Code(ran)))
    assert ran.exists()  # it would have been seen


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "object"}, "is no index of shards"),
        ({"shape": [-4]}, "is no index of shards"),
        ({"shape": [4.0]}, "is no index of shards"),
        ({"shape": [3]}, "is no index of shards"),
        ({"chunks": [[[0], [2**62], "whole-00000-00000.bin", 0]]}, "is no index of shards"),
        ({"chunks": [[[0], [4], "whole-00000-00000.bin", -8]]}, "is no index of shards"),
        ({"chunks": [[[0], [2], "whole-00000-00000.bin", 0], [[0], [4], "whole-00000-00000.bin", 0]]}, "is no index of shards"),
        ({"chunks": [[[0], [4], "whole-00000-00000.bin", 2**60]]}, r"has 16 bytes and not the \d{19}"),
        ({"chunks": [[[0], [4], "../elsewhere", 0]]}, "elsewhere: is missing"),
        ({"chunks": [[[0], [3], "whole-00000-00000.bin", 0]]}, "3 of the 4 numbers of a are stored"),
        ({"shape": [5]}, "a is torch.float32 of .5., expected torch.float32 of .4."),
        ({"dtype": "int32"}, "a is torch.int32 of .4., expected torch.float32"),
    ],
)
def test_an_index_that_no_writer_wrote_is_refused(
    run: Bucket, hashes: dict[str, str], change: dict[str, Any], message: str
) -> None:
    """Before anything is allocated for it, and before a number is used."""
    document = json.loads(run.read(f"s/{SHARD_INDEX}"))
    document["a"] |= change
    tensors = {"a": torch.zeros(4)}
    with pytest.raises(StorageError, match=message):
        read(run, "s", _with_index(run, hashes, json.dumps(document).encode()), tensors, None)
    assert not tensors["a"].any()


def test_an_index_above_all_bounds_is_not_read(run: Bucket, hashes: dict[str, str]) -> None:
    with (
        patch("crossdim.training.run_dir.sharded.reader.MAX_INDEX_BYTES", 20),
        pytest.raises(StorageError, match="an index has at most 20"),
    ):
        read(run, "s", hashes, _empty_tensors(), None)
    assert index.MAX_INDEX_BYTES > 10**9


def test_some_of_the_tensors_can_be_read_and_others_not(run: Bucket, hashes: dict[str, str]) -> None:
    part = {"b": torch.zeros(2, 3)}
    read(run, "s", hashes, part, None)
    assert torch.equal(part["b"], torch.ones(2, 3))
    with pytest.raises(StorageError, match="holds no tensor c"):
        read(run, "s", hashes, {"c": torch.zeros(1)}, None)


def test_what_is_no_tensor_is_refused(run: Bucket) -> None:
    """Anything else would have to be pickled."""
    with pytest.raises(StorageError, match="lr is no tensor; store only tensors of bool"):
        write(run, "s", cast(dict[str, Tensor], {"w": torch.ones(1), "lr": 0.1}), None)
    with contextlib.suppress(StorageError):
        assert run.list_objects() == []


def test_a_snapshot_is_apart_from_what_it_was_taken_of() -> None:
    tensors = {"w": torch.arange(3.0, requires_grad=True), "n": torch.tensor(2)}
    first = snapshot(tensors)
    with torch.no_grad():
        tensors["w"].zero_()
    assert first["w"].tolist() == [0.0, 1.0, 2.0]
    assert not first["w"].requires_grad
    second = snapshot(tensors, first)
    assert second["w"] is first["w"]
    assert second["w"].tolist() == [0.0, 0.0, 0.0]
    assert snapshot({"w": torch.ones(4)}, second)["w"].tolist() == [1.0] * 4
