"""The differentiable form of the view: the same voxels and pixels as NumPy's, and the gradient of a gather.

Values worked out by hand are put to both forms in ``tests/storage_schema/test_pseudo3d.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.pseudo3d import Pseudo3D, coverage, fold, unroll
from crossdim.training.layers.pseudo3d import fold_torch, unroll_torch
from tests.strategies import views

GEOMETRIES = [
    Pseudo3D(window=2, stride=2),
    Pseudo3D(window=2, stride=2, layout="window"),
    Pseudo3D(window=2, stride=2, depth_order="serpentine"),
    Pseudo3D(window=3, stride=1, padding=1),
    Pseudo3D(window=2, stride=1, layout="window", depth_order="serpentine"),
]


def noise(*shape: int, requires_grad: bool = False) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=requires_grad)


@given(views(covered=False))
def test_torch_gives_the_stored_voxels_bit_for_bit(case):
    """A view made on the fly and one read from the bucket must be interchangeable."""
    image, spec = case
    batch = np.stack([image, image[:, ::-1]])
    view = unroll_torch(torch.from_numpy(batch), spec)

    assert view.is_contiguous()
    assert np.array_equal(view.numpy(), np.stack([unroll(each, spec) for each in batch]))


@pytest.mark.parametrize("channel_mode", ["gray", "keep", "depth"])
@pytest.mark.parametrize("depth_order", ["row_major", "serpentine"])
@pytest.mark.parametrize("layout", ["offset", "window"])
@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 3, 0), (3, 1, 1), (4, 2, 1), (2, 3, 0)])
def test_every_setting_gives_the_same_both_ways(window, stride, padding, layout, depth_order, channel_mode):
    """All settings, none left to the draw of a strategy: the same view, and the same image from it."""
    spec = Pseudo3D(
        window=window, stride=stride, padding=padding, layout=layout, depth_order=depth_order, channel_mode=channel_mode
    )
    height, width = (window + n * stride - 2 * padding for n in (3, 4))
    images = noise(2, 1 if channel_mode == "gray" else 3, height, width).float()
    view = unroll_torch(images, spec)
    folded = fold_torch(view, spec, height, width, uncovered=0.5)
    unread = coverage(spec, height, width) == 0

    assert np.array_equal(view.numpy(), [unroll(image, spec) for image in images.numpy()])
    assert np.array_equal(folded.numpy(), np.where(unread, np.float32(0.5), images.numpy()))
    assert np.array_equal(folded.numpy(), [fold(each, spec, height, width, uncovered=0.5) for each in view.numpy()])


@given(views(covered=False), st.integers(0, 99))
def test_torch_folds_any_volume_as_numpy_does(case, seed):
    """Volumes of a network are no views, so windows disagree and rounding matters: still the same bits."""
    image, spec = case
    values = np.random.default_rng(seed).normal(scale=50, size=(2, *spec.shape(*image.shape)))
    batch = (np.abs(values) if image.dtype.kind == "u" else values).astype(image.dtype)
    folded = fold_torch(torch.from_numpy(batch), spec, *image.shape[1:], uncovered=7)

    assert folded.is_contiguous()
    assert folded.numpy().dtype == image.dtype
    assert np.array_equal(folded.numpy(), np.stack([fold(each, spec, *image.shape[1:], uncovered=7) for each in batch]))


@given(views(covered=False))
def test_torch_refuses_what_numpy_refuses(case):
    """A pixel that nobody read is no black pixel."""
    image, spec = case
    volume = unroll(image, spec)
    if coverage(spec, *image.shape[1:]).all():
        return
    with pytest.raises(GeometryError) as numpys:
        fold(volume, spec, *image.shape[1:])
    with pytest.raises(GeometryError) as torchs:
        fold_torch(torch.from_numpy(volume)[None], spec, *image.shape[1:])

    assert str(torchs.value) == str(numpys.value)


@given(views(covered=False))
def test_the_gradient_of_a_pixel_counts_the_windows_that_read_it(case):
    """The derivative of a gather is how often each element was gathered."""
    image, spec = case
    leaf = torch.zeros((1, *image.shape), dtype=torch.float64, requires_grad=True)
    unroll_torch(leaf, spec).sum().backward()

    assert np.array_equal(leaf.grad[0].numpy(), np.broadcast_to(coverage(spec, *image.shape[1:]), image.shape))


@given(views(covered=False))
def test_windows_share_the_gradient_of_a_pixel_evenly(case):
    """An average hands each of its n voxels 1 / n; voxels over padding get none, and unread pixels need none."""
    image, spec = case
    counts = np.maximum(coverage(spec, *image.shape[1:]), 1)
    shares = np.broadcast_to(1.0 / counts, image.shape)
    leaf = torch.zeros((1, *spec.shape(*image.shape)), dtype=torch.float64, requires_grad=True)
    fold_torch(leaf, spec, *image.shape[1:], uncovered=0).sum().backward()

    assert np.array_equal(leaf.grad[0].numpy(), unroll(shares, spec))


@pytest.mark.parametrize("spec", GEOMETRIES)
def test_derivatives_agree_with_differences(spec):
    """Both directions are linear, so finite differences are exact up to rounding."""
    image = noise(2, 1, 4, 4, requires_grad=True)
    volume = noise(2, *spec.shape(1, 4, 4), requires_grad=True)

    assert torch.autograd.gradcheck(lambda x: unroll_torch(x, spec), (image,))
    assert torch.autograd.gradcheck(lambda x: fold_torch(x, spec, 4, 4), (volume,))


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_the_default_geometry_is_pixel_unshuffle_and_pixel_shuffle(window, channels, rows, columns):
    """With stride = window both ways are torch's own permutations, channels read as depth."""
    spec = Pseudo3D(window=window, stride=window, channel_mode="depth")
    images = noise(2, channels, rows * window, columns * window)
    unshuffled = F.pixel_unshuffle(images, window)

    assert torch.equal(unroll_torch(images, spec)[:, 0], unshuffled)
    assert torch.equal(fold_torch(unshuffled[:, None], spec, *images.shape[2:]), images)


@pytest.mark.parametrize("spec", [Pseudo3D(window=1, stride=1), *GEOMETRIES])
def test_results_are_new_memory(spec):
    """Augmenting a view in place must not change the image; with a window of one pixel nothing moves, and still."""
    images = noise(2, 1, 4, 4)
    view = unroll_torch(images, spec)
    view_before, images_before = view.clone(), images.clone()
    fold_torch(view, spec, 4, 4).zero_()

    assert torch.equal(view, view_before)
    view.zero_()
    assert torch.equal(images, images_before)


def test_colour_is_not_turned_gray_inside_a_network():
    """Luma belongs before augmentation; doing it here too would hide which of the two was used."""
    with pytest.raises(GeometryError, match="found 3"):
        unroll_torch(torch.zeros(1, 3, 8, 8), Pseudo3D())
