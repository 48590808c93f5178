"""Unrolling and folding of arrays and tensors by one name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import crossdim
from crossdim import Pseudo3D
from crossdim.storage_schema.errors import GeometryError


@pytest.mark.parametrize("geometry", [Pseudo3D(), Pseudo3D(window=3, stride=2, padding=1), Pseudo3D(layout="window")])
def test_arrays_and_tensors_have_the_same_views(geometry: Pseudo3D) -> None:
    side = 21 if geometry.padding else 24
    image = np.random.default_rng(0).random((1, side, side), np.float32)
    view = crossdim.unroll(image, geometry)
    tensor = torch.from_numpy(image)
    assert np.array_equal(crossdim.unroll(tensor, geometry), view)
    assert np.array_equal(crossdim.unroll(torch.stack([tensor, tensor]), geometry)[1], view)
    assert np.array_equal(crossdim.fold(view, side, side, geometry), image)
    assert np.array_equal(crossdim.fold(torch.from_numpy(view), side, side, geometry), image)
    assert np.array_equal(crossdim.fold(torch.from_numpy(view)[None], side, side, geometry)[0], image)


def test_other_axes_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"\(C, H, W\), and a batch of them"):
        crossdim.unroll(torch.zeros(8, 8))
    with pytest.raises(GeometryError, match=r"\(C, D, H, W\), and a batch of them"):
        crossdim.fold(torch.zeros(8, 8), 8, 8)
    with pytest.raises(GeometryError, match=r"\(C, H, W\)"):
        crossdim.unroll(np.zeros((8, 8)))


def test_gradients_pass() -> None:
    image = torch.rand(1, 8, 8, requires_grad=True)
    crossdim.fold(crossdim.unroll(image), 8, 8).sum().backward()
    assert torch.equal(image.grad, torch.ones(1, 8, 8))
