"""The differentiable twin of the view: the same voxels, and O-A11 for its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given

from storage_schema.errors import GeometryError
from storage_schema.pseudo3d import Pseudo3D, coverage, unroll
from tests.strategies import views
from training.layers.pseudo3d import unroll_torch


@given(views(covered=False))
def test_torch_gives_the_stored_voxels_bit_for_bit(case):
    """A view made on the fly and one read from the bucket must be interchangeable."""
    image, spec = case
    batch = np.stack([image, image[:, ::-1]])
    view = unroll_torch(torch.from_numpy(batch), spec)

    assert np.array_equal(view.numpy(), np.stack([unroll(each, spec) for each in batch]))


@given(views(covered=False))
def test_the_gradient_of_a_pixel_counts_the_windows_that_read_it(case):
    """O-A11: the derivative of a gather is how often each element was gathered."""
    image, spec = case
    leaf = torch.zeros((1, *image.shape), dtype=torch.float64, requires_grad=True)
    unroll_torch(leaf, spec).sum().backward()

    assert np.array_equal(leaf.grad[0].numpy(), np.broadcast_to(coverage(spec, *image.shape[1:]), image.shape))


def test_colour_is_not_turned_gray_inside_a_network():
    """Luma belongs before augmentation; doing it here too would hide which of the two was used."""
    with pytest.raises(GeometryError, match="found 3"):
        unroll_torch(torch.zeros(1, 3, 8, 8), Pseudo3D())
