"""ACS and its relatives against 3D convolutions whose kernel is zero but for a plane, set tap by tap."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from crossdim import ACSConv, Conv25D, MeanACSConv, SoftACSConv, inflate_kernel
from crossdim.storage_schema.errors import GeometryError
from crossdim.training.layers.acs import thirds
from crossdim.training.layers.transposed import PlaneConvTranspose


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _plane(weight: Tensor, axis: int) -> Tensor:
    """The cube of a 2D kernel, tap by tap: across depth (axial), rows (coronal) or columns (sagittal)."""
    taps = weight.shape[-1]
    cube = torch.zeros(*weight.shape[:2], taps, taps, taps, dtype=weight.dtype)
    for a in range(taps):
        for b in range(taps):
            where = [a, b]
            where.insert(axis, taps // 2)
            cube[:, :, where[0], where[1], where[2]] = weight[:, :, a, b]
    return cube


def _embedded(layer: ACSConv) -> Tensor:
    """The cube of an ACS convolution: every output channel by the block it is in."""
    a, c, s = layer.split
    blocks = layer.weight.detach().split([a, c, s])
    return torch.cat([_plane(block, axis) for axis, block in enumerate(blocks)])


@given(
    st.sampled_from([1, 2, 3, 4, 5]),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.tuples(*[st.integers(0, 3)] * 3),
    st.tuples(*[st.integers(1, 2)] * 3),
    st.sampled_from([(1, 4, 5), (1, 1, 1), (2, 4, 6), (3, 3, 9), (6, 6, 6), (2, 6, 14), (4, 4, 8)]),
    st.tuples(*[st.integers(4, 10)] * 3),
)
@settings(max_examples=120)
@pytest.mark.integration
def test_acs_is_the_embedded_convolution(
    kernel: int,
    stride: tuple[int, int, int],
    padding: tuple[int, int, int],
    dilation: tuple[int, int, int],
    channels: tuple[int, int, int],
    sides: tuple[int, int, int],
) -> None:
    """For every stride, padding, dilation and grouping: where the published code gives wrong values or none."""
    assume(all(n + 2 * p >= d * (kernel - 1) + 1 for n, p, d in zip(sides, padding, dilation, strict=True)))
    groups, ins, outs = channels
    layer = ACSConv(ins, outs, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups).double()
    x = _random(2, ins, *sides).requires_grad_()
    expected = functional.conv3d(x, _embedded(layer), layer.bias, stride, padding, dilation, groups)
    found = layer(x)
    assert torch.allclose(found, expected, atol=1e-12)
    weight = _random(*found.shape, seed=1)
    mine, theirs = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected))
    assert torch.allclose(mine, theirs, atol=1e-11)


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
def test_acs_takes_other_borders(padding_mode: str) -> None:
    layer = ACSConv(2, 3, 3, padding=1, padding_mode=padding_mode).double()  # type: ignore[arg-type]
    x = _random(1, 2, 4, 5, 6)
    padded = functional.pad(x, (1,) * 6, mode=padding_mode)
    assert torch.allclose(layer(x), functional.conv3d(padded, _embedded(layer), layer.bias), atol=1e-12)


def test_blocks_are_shared_as_published() -> None:
    splits = {
        64: (22, 21, 21),
        128: (43, 43, 42),
        256: (86, 85, 85),
        512: (171, 171, 170),
        10: (4, 3, 3),
        2: (1, 1, 0),
        1: (1, 0, 0),
    }
    assert {channels: thirds(channels) for channels in splits} == splits


def test_another_split_is_taken_and_a_wrong_one_refused() -> None:
    layer = ACSConv(2, 5, 3, split=(0, 4, 1)).double()
    x = _random(1, 2, 5, 5, 5)
    assert torch.allclose(layer(x), functional.conv3d(x, _embedded(layer), layer.bias), atol=1e-12)
    with pytest.raises(GeometryError, match=r"share 5 output channels; found \(1, 1, 1\)"):
        ACSConv(2, 5, 3, split=(1, 1, 1))


def test_images_see_the_2d_convolution() -> None:
    for layer in (ACSConv(4, 6, 3, stride=2, padding=1, groups=2), MeanACSConv(4, 6, 3, stride=2, padding=1, groups=2)):
        x = torch.randn(2, 4, 7, 8)
        assert torch.equal(layer(x), functional.conv2d(x, layer.weight, layer.bias, 2, 1, 1, 2))


@pytest.mark.parametrize("groups", [1, 2])
def test_mean_and_soft_acs_average_three_embedded_convolutions(groups: int) -> None:
    x = _random(2, 4, 5, 6, 7)
    mean = MeanACSConv(4, 6, 3, stride=2, padding=1, groups=groups).double()
    soft = SoftACSConv(4, 6, 3, stride=2, padding=1, groups=groups).double()
    assert soft.soft_w_core.shape == (6, 3)
    assert soft.soft_w_core.min() >= 0
    assert soft.soft_w_core.max() < 1
    share = soft.soft_w_core.detach().exp() / soft.soft_w_core.detach().exp().sum(1, keepdim=True)
    for layer, weights in ((mean, torch.full((6, 3), 1 / 3, dtype=torch.float64)), (soft, share)):
        cube = sum(_plane(layer.weight.detach(), axis) * weights[:, axis, None, None, None, None] for axis in range(3))
        assert torch.allclose(layer(x), functional.conv3d(x, cube, layer.bias, 2, 1, 1, groups), atol=1e-12)


def test_soft_weights_learn() -> None:
    soft = SoftACSConv(2, 3, 3, padding=1)
    soft(torch.randn(1, 2, 4, 4, 4)).square().sum().backward()
    assert soft.soft_w_core.grad is not None
    assert soft.soft_w_core.grad.abs().min() > 0


def test_25d_sees_slices_and_strides_along_depth() -> None:
    """Section 3.3."""
    layer = Conv25D(2, 3, 3, stride=2, padding=1).double()
    x = _random(1, 2, 5, 6, 7)
    slices = [functional.conv2d(x[:, :, d], layer.weight[:, :, 0], layer.bias, 2, 1) for d in (0, 2, 4)]
    assert torch.allclose(layer(x), torch.stack(slices, dim=2), atol=1e-12)


def test_i3d_is_the_image_inside_and_two_thirds_at_the_border() -> None:
    weight, image = _random(3, 2, 3, 3), _random(1, 2, 6, 6, seed=1)
    flat = functional.conv2d(image, weight, padding=1)
    solid = functional.conv3d(image[:, :, None].expand(-1, -1, 5, -1, -1), inflate_kernel(weight, "i3d", depth=3), padding=1)
    assert torch.allclose(solid[:, :, 1:-1], flat[:, :, None].expand(-1, -1, 3, -1, -1), atol=1e-13)
    for border in (0, -1):
        assert torch.allclose(solid[:, :, border], flat * 2 / 3, atol=1e-13)


def test_ways_of_inflation_that_do_not_exist_are_refused() -> None:
    with pytest.raises(GeometryError, match="unknown inflation"):
        inflate_kernel(torch.zeros(1, 1, 3, 3), "center", depth=3)  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match="an ACS kernel is a cube"):
        inflate_kernel(torch.zeros(1, 1, 3, 3), "acs", depth=3)


@given(
    st.sampled_from([(1, 3, 5), (2, 4, 6), (3, 3, 3)]),
    st.sampled_from([2, 3, 4]),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.integers(0, 1),
    st.integers(1, 2),
)
@settings(max_examples=40)
def test_transposed_planes_are_the_adjoint_of_acs(
    channels: tuple[int, int, int], kernel: int, stride: tuple[int, int, int], padding: int, dilation: int
) -> None:
    """The rule of the embedded kernel, held against the transposed convolution of a cube set tap by tap."""
    groups, ins, outs = channels
    layer = PlaneConvTranspose(ins, outs, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups).double()
    cube = torch.zeros(ins, outs // groups, kernel, kernel, kernel, dtype=torch.float64)
    axis_of = [axis for axis, count in enumerate(thirds(outs)) for _ in range(count)]
    for i in range(ins):
        for o in range(outs // groups):
            channel = i // (ins // groups) * (outs // groups) + o
            cube[i, o] = _plane(layer.weight.detach()[i : i + 1, o : o + 1], axis_of[channel])[0, 0]
    x = _random(2, ins, 3, 4, 5)
    expected = functional.conv_transpose3d(x, cube, layer.bias, stride, padding, 0, groups, dilation)
    assert torch.allclose(layer(x), expected, atol=1e-12)
    flat = functional.conv_transpose2d(x[:, :, 0], layer.weight, layer.bias, stride[1:], padding, 0, groups, dilation)
    assert torch.equal(layer(x[:, :, 0]), flat)


@pytest.mark.parametrize("kind", [ACSConv, MeanACSConv, SoftACSConv])
@pytest.mark.parametrize("rank", [4, 5])
def test_plane_convolutions_are_exported(kind: type[ACSConv], rank: int) -> None:
    layer = kind(3, 4, 3, stride=2, padding=1).eval()
    x = torch.randn(2, 3, *(5, 8, 8)[5 - rank :])
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=64)},))
    more = torch.cat([x, -x, x])
    assert torch.allclose(program.module()(more), layer(more), atol=1e-6)
