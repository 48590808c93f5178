"""The pseudo-3D view against values worked out by hand or with NumPy apart from our code, and against independent libraries.

The oracles are put to both forms, NumPy's and torch's; that the two agree everywhere is tested with the layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.pseudo3d import Pseudo3D, coverage, fold, to_gray, unroll
from crossdim.training.layers.pseudo3d import fold_torch, unroll_torch
from tests.strategies import views

X = np.arange(16, dtype=np.int16).reshape(1, 4, 4)
K4 = Pseudo3D()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@dataclass(frozen=True)
class Form:
    """The view as one library computes it: NumPy arrays in, NumPy arrays out."""

    unroll: Callable[..., np.ndarray]
    fold: Callable[..., np.ndarray]


def torch_unroll(image: np.ndarray, spec: Pseudo3D) -> np.ndarray:
    return unroll_torch(torch.from_numpy(image.copy())[None], spec)[0].numpy()


def torch_fold(volume: np.ndarray, spec: Pseudo3D, height: int, width: int, **options: float) -> np.ndarray:
    return fold_torch(torch.from_numpy(volume)[None], spec, height, width, **options)[0].numpy()


FORMS = {"numpy": Form(unroll, fold), "torch": Form(torch_unroll, torch_fold)}
both_forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def stacked(form: Form, spec: Pseudo3D, slices: list[list[list[int]]]) -> None:
    assert np.array_equal(form.unroll(X, spec), np.asarray(slices)[None])
    assert np.array_equal(form.fold(np.asarray(slices, X.dtype)[None], spec, 4, 4), X)


# ---- sixteen pixels, every voxel written down ----


@both_forms
def test_tiles_of_two_give_one_slice_for_each_offset(form):
    stacked(form, Pseudo3D(window=2, stride=2), [[[0, 2], [8, 10]], [[1, 3], [9, 11]], [[4, 6], [12, 14]], [[5, 7], [13, 15]]])


@both_forms
def test_the_window_layout_gives_one_slice_for_each_window(form):
    spec = Pseudo3D(window=2, stride=2, layout="window")
    stacked(form, spec, [[[0, 1], [4, 5]], [[2, 3], [6, 7]], [[8, 9], [12, 13]], [[10, 11], [14, 15]]])


@both_forms
def test_overlapping_windows_repeat_pixels(form):
    slices = [
        [[0, 1, 2], [4, 5, 6], [8, 9, 10]],
        [[1, 2, 3], [5, 6, 7], [9, 10, 11]],
        [[4, 5, 6], [8, 9, 10], [12, 13, 14]],
        [[5, 6, 7], [9, 10, 11], [13, 14, 15]],
    ]
    stacked(form, Pseudo3D(window=2, stride=1), slices)


def test_coverage_counts_the_windows_over_each_pixel():
    counts = coverage(Pseudo3D(window=2, stride=1), 4, 4)

    assert counts.tolist() == [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]
    assert counts.sum() == 4 * 9


@both_forms
def test_padding_is_zeros_around_the_image(form):
    spec = Pseudo3D(window=3, stride=1, padding=1)
    view = form.unroll(X, spec)[0]

    assert view.shape == (9, 4, 4)
    assert np.array_equal(view[4], X[0])
    assert view[0].tolist() == [[0, 0, 0, 0], [0, 0, 1, 2], [0, 4, 5, 6], [0, 8, 9, 10]]
    assert view[8].tolist() == [[5, 6, 7, 0], [9, 10, 11, 0], [13, 14, 15, 0], [0, 0, 0, 0]]
    assert np.array_equal(form.fold(view[None], spec, 4, 4), X)


# ---- sizes ----

SIZES = [
    # side, window, stride, padding, (D, H', W'), voxels per pixel, pixels lost per axis
    (224, 2, 2, 0, (4, 112, 112), 1.0, 0),
    (224, 3, 3, 0, (9, 74, 74), 0.982, 2),
    (224, 4, 4, 0, (16, 56, 56), 1.0, 0),
    (96, 4, 4, 0, (16, 24, 24), 1.0, 0),
    (256, 4, 4, 0, (16, 64, 64), 1.0, 0),
    (224, 4, 2, 1, (16, 112, 112), 4.0, 0),
    (224, 5, 5, 0, (25, 44, 44), 0.965, 4),
    (224, 6, 6, 0, (36, 37, 37), 0.982, 2),
    (224, 8, 8, 0, (64, 28, 28), 1.0, 0),
    (224, 8, 4, 2, (64, 56, 56), 4.0, 0),
    (224, 16, 16, 0, (256, 14, 14), 1.0, 0),
]


@both_forms
@pytest.mark.parametrize(("side", "window", "stride", "padding", "shape", "ratio", "lost"), SIZES)
def test_sizes_agree_with_the_table(form, side, window, stride, padding, shape, ratio, lost):
    """Sizes by the formula of convolutions; windows that lose pixels are refused unless asked for."""
    spec = Pseudo3D(window=window, stride=stride, padding=padding)
    if lost:
        with pytest.raises(GeometryError, match=f"the last {lost} rows and {lost} columns would be lost"):
            spec.grid(side, side)
        spec = replace(spec, allow_crop=True)

    assert spec.shape(1, side, side) == (1, *shape)
    assert form.unroll(np.zeros((1, side, side), np.uint8), spec).shape == (1, *shape)
    assert np.prod(shape) / side**2 == pytest.approx(ratio, abs=5e-4)


# ---- what the name im2col means ----


@both_forms
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_convolution_is_a_product_with_the_view(form, stride):
    """A conv3d with a (k*k, 1, 1) kernel on the view is conv2d on the image, the identity of the paper's figure 2a."""
    image, kernel = noise(1, 9, 11), noise(3, 3, seed=1)
    spec = Pseudo3D(window=3, stride=stride, allow_crop=True)
    view = torch.from_numpy(form.unroll(image, spec))[None]
    as_3d = F.conv3d(view, torch.from_numpy(kernel).reshape(1, 1, 9, 1, 1))
    as_2d = F.conv2d(torch.from_numpy(image)[None], torch.from_numpy(kernel)[None, None], stride=stride)

    assert as_3d.shape[2] == 1
    assert (as_3d[:, :, 0] - as_2d).abs().max() < 1e-12


# ---- which augmentations commute with the view ----


def four_axes(form: Form, image: np.ndarray) -> np.ndarray:
    """The view as P[i, j, y, x]."""
    view = form.unroll(image, K4)[0]
    return view.reshape(4, 4, *view.shape[1:])


@both_forms
def test_a_horizontal_flip_reverses_columns_and_their_offsets(form):
    """This is why a flip of the depth axis alone is no image transformation."""
    image = noise(1, 8, 12)

    assert np.array_equal(four_axes(form, image[:, :, ::-1]), four_axes(form, image)[:, ::-1, :, ::-1])


@both_forms
def test_a_vertical_flip_reverses_rows_and_their_offsets(form):
    image = noise(1, 8, 12)

    assert np.array_equal(four_axes(form, image[:, ::-1]), four_axes(form, image)[::-1, :, ::-1])


@both_forms
def test_half_a_turn_reverses_all_three_axes(form):
    image = noise(1, 8, 12)

    assert np.array_equal(form.unroll(image[:, ::-1, ::-1], K4), form.unroll(image, K4)[:, ::-1, ::-1, ::-1])


@both_forms
def test_transposing_exchanges_both_pairs_of_axes(form):
    image = noise(1, 8, 12)

    assert np.array_equal(four_axes(form, image.swapaxes(1, 2)), four_axes(form, image).transpose(1, 0, 3, 2))


@both_forms
@given(views())
def test_pixelwise_maps_commute_with_the_view(form, case):
    """Windowing, gamma or inversion may be done before or after; only the zeros of padding would notice."""
    image, spec = case
    spec = replace(spec, padding=0, allow_crop=True)
    if min(image.shape[1:]) < spec.window:
        return

    assert np.array_equal(form.unroll(255 - image.astype(np.float32), spec), 255 - form.unroll(image.astype(np.float32), spec))


@both_forms
def test_the_squared_error_is_the_same_in_both_spaces(form):
    """With stride = window a reconstruction loss on the view is one on the image."""
    a, b = noise(1, 8, 12), noise(1, 8, 12, seed=1)

    assert np.mean((form.unroll(a, K4) - form.unroll(b, K4)) ** 2) == pytest.approx(np.mean((a - b) ** 2), rel=1e-14)


# ---- a permutation ----


@both_forms
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_stride_equal_to_window_permutes_the_pixels(form, window, rows, columns, seed):
    """Nothing is lost and nothing is stored twice."""
    image = np.random.default_rng(seed).integers(0, 2**16, (1, rows * window, columns * window), dtype=np.uint16)
    spec = Pseudo3D(window=window, stride=window)

    assert spec.reversible
    assert np.array_equal(np.sort(form.unroll(image, spec), axis=None), np.sort(image, axis=None))


# ---- channels ----


@both_forms
def test_depth_mode_lays_channels_one_after_the_other(form):
    """Slices 4 to 7 are the view of channel 1 alone."""
    image = noise(3, 4, 4)
    view = form.unroll(image, Pseudo3D(window=2, stride=2, channel_mode="depth"))

    assert view.shape == (1, 12, 2, 2)
    assert np.array_equal(view[:, 4:8], form.unroll(image[1:2], Pseudo3D(window=2, stride=2)))


@both_forms
def test_keep_mode_treats_channels_apart(form):
    """A network with three input channels sees each colour's own view."""
    image = noise(3, 8, 8)
    view = form.unroll(image, Pseudo3D(channel_mode="keep"))

    assert np.array_equal(view, np.concatenate([form.unroll(channel[None], K4) for channel in image]))


def test_gray_is_pillows_luma_within_one_level():
    """Pillow computes BT.601 in integers with 16-bit weights, so it may round a tie the other way."""
    image = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    pillow = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L"))
    ours = to_gray(image)

    assert ours.dtype == np.uint8
    assert np.abs(ours[0].astype(int) - pillow).max() <= 1


@pytest.mark.parametrize("value", [0, 1, 77, 254, 255])
def test_gray_leaves_a_gray_picture_alone(value):
    """The weights sum to one, so a radiograph stored as RGB is the same radiograph."""
    assert (to_gray(np.full((3, 5, 5), value, np.uint8)) == value).all()


def test_gray_refuses_other_numbers_of_channels():
    """An alpha channel has no luma; dropping it unasked would repair silently."""
    with pytest.raises(GeometryError, match="found 4"):
        to_gray(np.zeros((4, 8, 8), np.uint8))


# ---- the derivative of a gather ----


@both_forms
@given(views(covered=False))
def test_every_pixel_is_gathered_as_often_as_it_is_covered(form, case):
    """Without automatic differentiation: the sum of the view of a one-hot image is the derivative by that pixel."""
    image, spec = case
    height, width = image.shape[1:]
    one_hot = np.eye(height * width, dtype=np.int16).reshape(-1, height, width)
    views_of_each = form.unroll(one_hot, replace(spec, channel_mode="keep"))

    assert np.array_equal(views_of_each.sum(axis=(1, 2, 3)).reshape(height, width), coverage(spec, height, width))


# ---- pixels that nobody read ----


@both_forms
def test_pixels_between_windows_are_flagged(form):
    """Stride 3 with window 2 never reads row 2 and column 2."""
    spec = Pseudo3D(window=2, stride=3)
    image = noise(1, 5, 5)
    view = form.unroll(image, spec)
    missed = coverage(spec, 5, 5) == 0

    assert missed.sum() == 9
    assert missed[2].all()
    assert missed[:, 2].all()
    with pytest.raises(GeometryError, match="9 of 25 pixels are read by no window"):
        form.fold(view, spec, 5, 5)


@both_forms
def test_a_value_for_unread_pixels_is_used_only_there(form):
    """What was read comes back exactly; the rest is what the caller said, not zero by accident."""
    spec = Pseudo3D(window=2, stride=3)
    image = noise(1, 5, 5)
    folded = form.fold(form.unroll(image, spec), spec, 5, 5, uncovered=-7.0)
    missed = coverage(spec, 5, 5) == 0

    assert (folded[0][missed] == -7).all()
    assert np.array_equal(folded[0][~missed], image[0][~missed])


@both_forms
def test_cropped_borders_are_flagged_too(form):
    """Pixels lost to allow_crop were not seen either."""
    spec = Pseudo3D(window=4, stride=4, allow_crop=True)
    view = form.unroll(np.ones((1, 9, 10), np.int16), spec)

    with pytest.raises(GeometryError, match=f"{9 * 10 - 8 * 8} of 90 pixels"):
        form.fold(view, spec, 9, 10)
    assert form.fold(view, spec, 9, 10, uncovered=0).sum() == 64


# ---- properties over every geometry ----


@both_forms
@given(views())
def test_folding_the_view_of_an_image_gives_the_image(form, case):
    """A stored sample serves 2D methods as well: for every geometry that reads all pixels nothing is rounded away."""
    image, spec = case
    folded = form.fold(form.unroll(image, spec), spec, *image.shape[1:])

    assert folded.dtype == image.dtype
    assert np.array_equal(folded, image)


@given(views(covered=False))
def test_the_view_is_the_gather_of_its_definition(case):
    """The definition as four loops: slow, and plainly right."""
    image, spec = case
    view = unroll(image, replace(spec, layout="offset", channel_mode="keep" if image.shape[0] > 1 else "gray"))
    padded = np.pad(image, ((0, 0), (spec.padding,) * 2, (spec.padding,) * 2))
    k, (grid_h, grid_w) = spec.window, view.shape[2:]
    for c, i, j, y in np.ndindex(image.shape[0], k, k, grid_h):
        column = k - 1 - j if spec.depth_order == "serpentine" and i % 2 else j
        expected = [padded[c, y * spec.stride + i, x * spec.stride + column] for x in range(grid_w)]

        assert view[c, i * k + j, y].tolist() == [v.item() for v in expected]


@given(views(covered=False))
def test_both_layouts_hold_the_same_voxels(case):
    """Q[y * W' + x, i, j] = P[i * k + j, y, x]."""
    image, spec = case
    spec = replace(spec, channel_mode="keep", depth_order="row_major")
    by_offset, by_window = unroll(image, replace(spec, layout="offset")), unroll(image, replace(spec, layout="window"))
    channels, k, (grid_h, grid_w) = image.shape[0], spec.window, by_offset.shape[2:]
    exchanged = by_offset.reshape(channels, k, k, grid_h, grid_w).transpose(0, 3, 4, 1, 2)

    assert np.array_equal(by_window, exchanged.reshape(channels, grid_h * grid_w, k, k))


@both_forms
@given(views(covered=False))
def test_the_view_agrees_with_torch_unfold(form, case):
    """An independent implementation gives the same gather."""
    image, spec = case
    spec = replace(spec, layout="offset", depth_order="row_major", channel_mode="depth")
    pixels = torch.from_numpy(image.astype(np.float64))[None]
    expected = F.unfold(pixels, spec.window, padding=spec.padding, stride=spec.stride)
    view = form.unroll(image, spec)

    assert np.array_equal(view.reshape(view.shape[1], -1), expected[0].numpy())


@both_forms
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_the_default_view_is_pixel_unshuffle(form, window, channels, rows, columns):
    """With stride = window the view is a well-known permutation with channels read as depth."""
    image = noise(channels, rows * window, columns * window)
    view = form.unroll(image, Pseudo3D(window=window, stride=window, channel_mode="depth"))

    assert np.array_equal(view[0], F.pixel_unshuffle(torch.from_numpy(image), window).numpy())


@given(st.integers(1, 9))
def test_serpentine_neighbours_differ_by_one_pixel(window):
    """The reason why the order exists: adjacent slices overlap, as in a scan."""
    offsets = Pseudo3D(window=window, stride=window, depth_order="serpentine").offsets()
    steps = [abs(a - c) + abs(b - d) for (a, b), (c, d) in itertools.pairwise(offsets)]

    assert sorted(offsets) == [(i, j) for i in range(window) for j in range(window)]
    assert set(steps) <= {1}


@given(
    st.sampled_from(["?", "u1", "i1", "<u2", ">i2", "<f2", "<f4", ">f4", "<f8", "<c8"]),
    st.integers(1, 9),
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from(["offset", "window"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_no_dtype_loses_a_bit(name, window, tiles, layout, mirrored, seed):
    """Rows of windows are moved as machine words where they fit: byte order, NaNs, borders and strides must not matter."""
    channels, grid_h, grid_w = tiles
    dtype, spare = np.dtype(name), seed % min(window, 3)
    shape = (channels, grid_h * window + spare, grid_w * window + spare)
    image = np.random.default_rng(seed).bytes(int(np.prod(shape)) * dtype.itemsize)
    image = np.frombuffer(image, dtype).reshape(shape)[:, :: -1 if mirrored else 1, :: -1 if mirrored else 1]
    spec = Pseudo3D(window=window, stride=window, layout=layout, channel_mode="keep", allow_crop=True)
    view = unroll(image, spec)
    tiled = image[:, : grid_h * window, : grid_w * window].reshape(channels, grid_h, window, grid_w, window)
    expected = tiled.transpose((0, 2, 4, 1, 3) if layout == "offset" else (0, 1, 3, 2, 4))

    assert view.dtype == dtype
    assert view.tobytes() == expected.tobytes()
    if not spare:
        assert fold(view, spec, *shape[1:]).tobytes() == image.tobytes()


@given(views(covered=False))
@pytest.mark.integration
def test_the_view_is_a_new_contiguous_array(case):
    """A caller that augments the view in place must not change the image that a neighbour still reads."""
    image, spec = case
    view = unroll(image, spec)

    assert view.flags.c_contiguous
    assert not np.shares_memory(view, image)
    assert view.dtype == image.dtype
    assert view.shape == spec.shape(*image.shape)


@both_forms
@pytest.mark.parametrize("wrong", [(1, 15, 2, 2), (1, 16, 2, 3), (2, 16, 2, 2, 1), (16,)])
def test_a_volume_that_is_no_such_view_is_refused(form, wrong):
    """Folding somebody else's volume would give a plausible wrong picture."""
    with pytest.raises(GeometryError, match="is not the view of a 8x8 image"):
        form.fold(np.zeros(wrong, np.int16), K4, 8, 8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0},
        {"stride": 0},
        {"padding": -1},
        {"padding": 4},
        {"layout": "row"},
        {"depth_order": "z"},
        {"channel_mode": "rgb"},
    ],
)
def test_geometry_that_makes_no_sense_is_refused(wrong):
    """A configuration checks itself when it is made, long before the first image."""
    with pytest.raises(GeometryError):
        Pseudo3D(**wrong)


def test_an_image_smaller_than_a_window_is_refused():
    """There is no window to unroll."""
    with pytest.raises(GeometryError, match="3x8 is smaller than one window of 4"):
        unroll(np.zeros((1, 3, 8), np.uint8), K4)


@pytest.mark.parametrize("shape", [(8, 8), (1, 1, 8, 8)])
def test_what_is_no_image_is_refused(shape):
    """A lost channel axis would be answered with a sentence about colours."""
    with pytest.raises(GeometryError, match=r"an image is \(C, H, W\)"):
        unroll(np.zeros(shape, np.uint8), K4)


@both_forms
def test_overlapping_averages_of_float64_are_right_to_the_last_bit_but_one(form):
    """A sum of nine equal numbers divided by nine may round; stored dtypes have room to spare, float64 has none."""
    image, spec = noise(1, 20, 20), Pseudo3D(window=3, stride=1)

    assert np.allclose(form.fold(form.unroll(image, spec), spec, 20, 20), image, rtol=2**-51, atol=0)
