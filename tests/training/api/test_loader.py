"""Batches of published datasets: order, resumption, ranks, sizes, and the protocols of PyTorch and Lightning."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import crossdim
from crossdim import Dataset
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import GeometryError, RunError, UsageError
from crossdim.training.data.order import DatasetOrder, Order, rng_at
from tests.training.published import as_image, images, publish

CROP = (16, 8, 8)


@pytest.fixture(scope="module")
def xr(image_data: Bucket) -> Dataset:
    return crossdim.open(image_data.url)


@pytest.fixture(scope="module")
def ct(volume_data: Bucket) -> Dataset:
    return crossdim.open(volume_data.url)


def keys(batches) -> list[list[str]]:
    return [batch["key"] for batch in batches]


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) if isinstance(one[name], torch.Tensor) else one[name] == other[name] for name in one
    )


def test_a_pass_is_each_sample_once_in_the_order_of_pretraining(xr: Dataset) -> None:
    loader = xr.loader(8, seed=3)
    order = Order(3, (DatasetOrder(num_samples=30),))
    names = xr.table["key"].to_pylist()
    for epoch in range(3):
        batches = list(loader)
        _, expected = order.locate(np.arange(30 * epoch, 30 * epoch + 30))
        assert [key for batch in batches for key in batch["key"]] == [names[i] for i in expected]
        assert [len(batch["key"]) for batch in batches] == [8, 8, 8, 6]
        assert len(batches) == len(loader)
        assert loader.position == 30 * (epoch + 1)


def test_a_batch_is_tensors_in_unit_range(xr: Dataset) -> None:
    (batch,) = xr.loader(30, shuffle=False)
    assert (batch["image"].dtype, batch["label"].dtype) == (torch.float32, torch.int64)
    assert batch["key"] == xr.table["key"].to_pylist()
    assert batch["label"].tolist() == [int(label) for label in xr.table["label"].to_pylist()]
    assert batch["size"].tolist() == xr.shapes[:, 1:].tolist()
    assert batch["pseudo3d"] == [xr.pseudo3d] * 30
    assert batch["image"].shape[2:] == tuple(xr.shapes[:, 1:].max(axis=0))
    for image, size, sample in zip(batch["image"], batch["size"].tolist(), xr, strict=True):
        inside = tuple(slice(side) for side in size)
        assert np.array_equal(image[(slice(None), *inside)], sample.unit())
        image[(slice(None), *inside)] = 0
        assert not image.any()


def test_without_shuffling_every_pass_is_the_catalog(xr: Dataset) -> None:
    loader = xr.loader(7, shuffle=False, crop=CROP)
    first, second = list(loader), list(loader)
    assert [key for batch in first for key in batch["key"]] == xr.table["key"].to_pylist()
    assert all(map(equal, first, second))
    assert np.array_equal(first[0]["image"][0], xr[0].unit()[:, :, *middle(xr[0].array.shape[2:])])


def middle(sides: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice((side - 8) // 2, (side - 8) // 2 + 8) for side in sides)


def test_crops_come_from_the_generator_of_the_position(ct: Dataset) -> None:
    loader = ct.loader(5, crop=(20, 30, 40), seed=9)
    by_key = {sample.key: sample for sample in ct}
    pairs = [pair for batch in loader for pair in zip(batch["key"], batch["image"], strict=True)]
    for position, (key, image) in enumerate(pairs):
        rng = rng_at(9, position)
        z, y, x = (int(rng.integers(0, 64 - side + 1)) for side in (20, 30, 40))
        assert np.array_equal(image, by_key[key].unit()[:, z : z + 20, y : y + 30, x : x + 40])


def test_a_crop_is_filled_up_where_an_image_is_smaller(xr: Dataset) -> None:
    (batch,) = xr.loader(30, crop=(16, 24, 40))
    assert batch["image"].shape == (30, 1, 16, 24, 40)
    sizes = dict(zip(xr.table["key"].to_pylist(), xr.shapes[:, 1:].tolist(), strict=True))
    for key, size, image in zip(batch["key"], batch["size"].tolist(), batch["image"], strict=True):
        assert size == [min(a, b) for a, b in zip(sizes[key], (16, 24, 40), strict=True)]
        assert not image[:, :, size[1] :].any()
        assert not image[..., size[2] :].any()


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("crop", [None, CROP])
def test_ranks_together_have_the_batches_of_one(xr: Dataset, world: int, crop: tuple[int, ...] | None) -> None:
    """Put one behind the other, rank after rank: the same samples, sizes and crops."""
    whole = list(xr.loader(9, crop=crop))
    parts = zip(*(xr.loader(9, crop=crop, rank=rank, world=world, threads=rank + 1) for rank in range(world)), strict=True)
    for expected, shares in zip(whole, parts, strict=True):
        assert max(map(len, keys(shares))) - min(map(len, keys(shares))) <= 1
        joined = {
            name: torch.cat([share[name] for share in shares])
            if isinstance(value, torch.Tensor)
            else list(itertools.chain(*(share[name] for share in shares)))
            for name, value in expected.items()
        }
        assert equal(joined, expected)


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_loader_goes_on_where_another_stopped(xr: Dataset, stop: int) -> None:
    """Also with other ranks and batches; the pass after it is the same as well."""
    loader = xr.loader(8, crop=CROP, seed=1)
    everything = list(loader) + list(loader)
    loader = xr.loader(8, crop=CROP, seed=1)
    for _ in itertools.islice(itertools.chain(loader, loader), stop):
        pass
    state = json.loads(json.dumps(loader.state_dict()))

    again = xr.loader(8, crop=CROP, seed=1, threads=1)
    again.load_state_dict(state)
    rest = list(again) + ([] if stop > 3 else list(again))
    assert len(rest) == 8 - stop
    assert all(map(equal, rest, everything[stop:]))

    halves = xr.loader(4, crop=CROP, seed=1)
    halves.load_state_dict(state)
    keys = [key for batch in halves for key in batch["key"]]
    assert keys == [key for batch in everything[stop : 4 if stop < 4 else 8] for key in batch["key"]]


@pytest.mark.integration
def test_a_new_process_goes_on_with_the_same_batches(xr: Dataset, image_data: Bucket, tmp_path: Path) -> None:
    """As after a kill: nothing is known there but the state in a checkpoint."""
    loader = xr.loader(4, crop=CROP, seed=6)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    torch.save({"data": loader.state_dict()}, tmp_path / "checkpoint.pt")
    rest = list(batches)
    script = f"""
import crossdim, torch
loader = crossdim.open({image_data.url!r}).loader(4, crop={CROP}, seed=6)
loader.load_state_dict(torch.load({str(tmp_path / "checkpoint.pt")!r}, weights_only=True)["data"])
torch.save([(batch["key"], batch["image"]) for batch in loader], {str(tmp_path / "rest.pt")!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    found = torch.load(tmp_path / "rest.pt", weights_only=True)
    assert [names for names, _ in found] == keys(rest)
    assert len(found) == 5
    assert all(torch.equal(image, batch["image"]) for (_, image), batch in zip(found, rest, strict=True))


def test_a_state_of_other_samples_is_refused(xr: Dataset, ct: Dataset) -> None:
    state = xr.loader(4).state_dict()
    for other in (ct.loader(4), xr.loader(4, seed=1), xr.loader(4, shuffle=False), crossdim.mix({xr: 1, ct: 1}).loader(4)):
        with pytest.raises(RunError, match="other samples or another order"):
            other.load_state_dict(state)
    with pytest.raises(RunError, match="no state of a loader: it has no position"):
        xr.loader(4).load_state_dict({"epoch": 1})


def test_a_transform_has_the_generator_of_the_position(xr: Dataset) -> None:
    def noisy(image, rng):
        return torch.from_numpy(image[:, ::2] + rng.standard_normal(image[:, ::2].shape, dtype=np.float32))

    loader = xr.loader(8, crop=CROP, transform=noisy, seed=2)
    first = list(loader)
    assert first[0]["image"].shape == (8, 1, 8, 8, 8)
    loader.set_epoch(0)
    assert all(map(equal, first, loader))
    assert not equal(first[0], next(iter(loader)))


def test_a_mixture_is_exact_in_every_cycle(xr: Dataset, ct: Dataset) -> None:
    loader = crossdim.mix({xr: 0.6, ct: 0.4}).loader(10, crop=CROP)
    names = set(xr.table["key"].to_pylist())
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    assert [sum(key in names for key in batch["key"]) for batch in batches] == [6] * 5
    assert Counter(Counter(key for batch in batches for key in batch["key"]).values()) == {1: 50}
    assert loader.classes == ("0", "1")
    for batch in batches:
        assert [geometry is not None for geometry in batch["pseudo3d"]] == [key in names for key in batch["key"]]


def test_classes_of_a_mixture_are_those_of_all(xr: Dataset, tmp_path: Path) -> None:
    publish(Bucket(str(tmp_path)), images(4, seed=9, classes=4), "four")
    four = crossdim.open(tmp_path)
    loader = crossdim.mix({four: 1, xr: 1}).loader(8)
    labels = {sample.key: int(sample.label) for dataset in (four, xr) for sample in dataset}
    assert loader.classes == ("0", "1", "2", "3")
    assert all(batch["label"].tolist() == [labels[key] for key in batch["key"]] for batch in loader)


def test_a_mixture_shows_itself(xr: Dataset, ct: Dataset) -> None:
    mixed = crossdim.mix({xr: 3, ct: 1})
    assert len(mixed) == 50
    assert repr(mixed).splitlines()[1:] == [f"  0.750  flat, 30 samples at {xr.url}", f"  0.250  solid, 20 samples at {ct.url}"]
    assert repr(mixed.loader(8)) == "Loader of flat (3), solid (1): 7 batches of 8 a pass, rank 0 of 1, at position 0"


def test_what_makes_no_sense_is_refused(xr: Dataset, ct: Dataset, tmp_path: Path) -> None:
    publish(Bucket(str(tmp_path)), [as_image(sample) for sample in images(3)], "plain", {"images": {}})
    plain = crossdim.open(tmp_path)
    with pytest.raises(UsageError, match="at least one each; found 2 for 3 ranks"):
        xr.loader(2, world=3)
    with pytest.raises(UsageError, match="found threads=0, rank=0, world=1"):
        xr.loader(2, threads=0)
    with pytest.raises(UsageError, match="rank=2, world=2"):
        xr.loader(2, rank=2, world=2)
    with pytest.raises(UsageError, match="last of 30 samples in batches of 28 are 2, fewer than 3 ranks"):
        xr.loader(28, world=3)
    with pytest.raises(UsageError, match="no full batch of 31"):
        xr.loader(31, drop_last=True)
    with pytest.raises(GeometryError, match="each of 3 spatial axes"):
        xr.loader(2, crop=(8, 8))
    with pytest.raises(GeometryError, match=r"images and volumes do not fit into one tensor \(plain: image, solid: superpatch\)"):
        crossdim.mix({plain: 1, ct: 1}).loader(2)
    with pytest.raises(RunError, match="positive numbers; found 1, 0"):
        crossdim.mix({xr: 1, ct: 0})
    with pytest.raises(UsageError, match=r"takes datasets as crossdim\.open returns them; found str"):
        crossdim.mix({xr.url: 1})
    with pytest.raises(UsageError, match="counted from 0"):
        xr.loader(2).set_epoch(-1)


def test_what_drop_last_leaves_out_is_other_samples_in_each_pass(xr: Dataset) -> None:
    loader = xr.loader(28, world=3, rank=1, drop_last=True)
    assert len(loader) == 1
    first, second = list(loader), list(loader)
    assert [len(batch["key"]) for batch in (*first, *second)] == [9, 9]
    assert loader.position == 60
    whole = xr.loader(28, drop_last=True)
    assert set(next(iter(whole))["key"]) != set(next(iter(whole))["key"])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_under_the_loader_of_torch_nothing_is_lost_or_read_twice(xr: Dataset, workers: int) -> None:
    """And the order is that without workers."""
    loader, expected = xr.loader(4, crop=CROP), list(xr.loader(4, crop=CROP))
    found = list(DataLoader(loader, batch_size=None, num_workers=workers))
    assert all(map(equal, found, expected))
    assert len(found) == len(expected) == 8
    loader.set_epoch(1)
    second = list(DataLoader(loader, batch_size=None, num_workers=workers))
    assert sorted(itertools.chain(*keys(second))) == sorted(xr.table["key"].to_pylist())
    assert keys(second) != keys(expected)


def test_workers_that_stay_go_on_to_the_next_pass(xr: Dataset) -> None:
    """Also after a pass that was left in the middle."""
    loader = xr.loader(4, crop=CROP)
    expected = [list(loader) for _ in range(3)]
    loader.set_epoch(0)
    torches = DataLoader(loader, batch_size=None, num_workers=2, persistent_workers=True)
    assert keys(torches) == keys(expected[0])
    assert next(iter(torches))["key"] == expected[1][0]["key"]
    assert keys(torches) == keys(expected[2])


def test_a_loader_can_be_pickled(xr: Dataset) -> None:
    """As a spawned worker gets it."""
    loader = xr.loader(8)
    next(iter(loader))
    again = pickle.loads(pickle.dumps(loader))
    assert again.position == 8
    assert all(map(equal, again, loader))


def test_the_protocol_of_lightning(xr: Dataset) -> None:
    """Its trainer takes any iterable, asks it for its length, and saves the state of one that has one."""
    loader = xr.loader(8)
    assert all(callable(getattr(loader, name)) for name in ("state_dict", "load_state_dict", "set_epoch", "__len__", "__iter__"))
    batches = iter(loader)
    next(batches)
    saved = {"loops": {"combined_loader": [loader.state_dict()]}}
    fresh = xr.loader(8)
    fresh.load_state_dict(saved["loops"]["combined_loader"][0])
    assert keys(fresh) == keys(batches)


def test_threads_end_with_the_loop(xr: Dataset) -> None:
    import threading

    for _ in xr.loader(4):
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("samples")]
