"""Collate: equal views are stacked, sources are padded, and what does not belong together is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.data.collate import collate

KEYS = ["a", "b"]


def test_sources_of_different_sizes_are_padded_behind_and_keep_their_numbers() -> None:
    sources = [np.arange(1, 7, dtype=np.uint8).reshape(2, 3), np.arange(1, 9, dtype=np.uint8).reshape(4, 2)]
    found = collate([{"source": source} for source in sources], KEYS, "image", 2).tensors["source"]
    assert found.shape == (2, 4, 3)
    assert found.dtype == torch.uint8
    for row, source in zip(found.numpy(), sources, strict=True):
        height, width = source.shape
        assert np.array_equal(row[:height, :width], source)
        assert row.sum() == source.sum()


def test_sources_of_different_types_share_one_that_holds_both() -> None:
    sources = [np.full((1, 1), 65535, np.uint16), np.full((1, 1), -1, np.int16)]
    found = collate([{"source": source} for source in sources], KEYS, "image", 2).tensors["source"]
    assert found.flatten().tolist() == [65535, -1]


def test_views_of_different_shapes_are_refused() -> None:
    views = [{"x": np.zeros((1, side), np.float32)} for side in (2, 3)]
    with pytest.raises(GeometryError, match=r"view 'x' of image has shapes \(1, 2\) of a and \(1, 3\) of b"):
        collate(views, KEYS, "image", 2)


def test_views_of_different_names_are_refused() -> None:
    """Images and volumes of one joint batch, both drawn for the device, have plans of different kinds."""
    views = [{name: np.zeros(1, np.float32)} for name in ("x", "y")]
    with pytest.raises(GeometryError, match=r"samples of joint have views \['x'\] of a and \['y'\] of b"):
        collate(views, KEYS, "joint", 2)
