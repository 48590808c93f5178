"""Cross-D convolution against numbers computed apart from this code, most of them with the published code.

Numbers were computed in float64 with the published code, or by hand where the docstring says how.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from crossdim.training.layers.circulant import build_circulant, build_middle_terms
from crossdim.training.layers.crossd import CrossDConv
from crossdim.training.layers.per_sample import mix_planes
from crossdim.training.layers.rotation import shift_of
from tests.oracles import crossd_fft as oracle

#: Shift of axis (1, 2, 3) / sqrt(14) and angle 0.3.
SHIFT = (1.0801783725737273, 0.8396432548525454, 1.0801783725737273)
KERNEL_OF_RAMP = [
    [0.30885379726581197, 0.23582167383190733, 0.26161588647793227],
    [0.09904704417356286, 0.026014920739658214, 0.05180913338568299],
    [0.2673766125074891, 0.1943444890735845, 0.22013870171960928],
]
KERNEL_OF_RESIDUES = [
    [0.12133298442867196, 0.6150588100387369, 0.6488792224334802],
    [0.448216083500319, 0.00942274513220119, 0.6225159082685354],
    [0.07402920642085621, 1.0670013643233358, 0.6485774991512229],
]


def _lin(*shape: int) -> Tensor:
    count = math.prod(shape)
    return (((37 * torch.arange(count)) % 101).double() / 101 - 0.5).view(shape)


def _residues(taps: int) -> Tensor:
    return (((7 * torch.arange(taps**3)) % 11).double() / 10).view(1, 1, taps, taps, taps)


def _kernel(u: Tensor) -> Tensor:
    shift = torch.tensor([SHIFT], dtype=torch.float64)
    ours = mix_planes(u, build_middle_terms(shift, tuple(u.shape[2:])))[0, 0, 0]
    assert torch.allclose(oracle.shifted_kernels(u, shift)[0, 0, 0], ours, atol=1e-13)
    return ours


def _close(found: Tensor, expected: object) -> bool:
    return torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-13)


def _layer() -> CrossDConv:
    layer = CrossDConv(2, 3, 3, padding=1, bias=False, mode="paper").double().eval()
    net = layer.rotation_params
    assert net is not None
    with torch.no_grad():
        for tensor in (layer.weights_3d, net[0].weight, net[0].bias, net[3].weight, net[3].bias):
            tensor.copy_(_lin(*tensor.shape))
    return layer


def test_shift_of_an_axis_and_an_angle() -> None:
    angle = math.atanh(0.3 / (math.pi / 4))
    assert torch.allclose(
        shift_of(torch.tensor([[1e6, 2e6, 3e6, angle]], dtype=torch.float64)),
        torch.tensor([SHIFT], dtype=torch.float64),
        atol=1e-13,
    )


def test_rows_of_circulants() -> None:
    quarter = torch.tensor([0.25], dtype=torch.float64)
    three = build_circulant(quarter, 3)[0][0]
    assert _close(three[0], [0.9106836025229592, -0.2440169358562925, 0.3333333333333333])
    assert _close(three[:, 0], [0.9106836025229592, 0.3333333333333333, -0.2440169358562926])
    five = [0.9040294042680405, -0.2, 0.1431841912319175, -0.1587208986669682, 0.3115073031670100]
    assert _close(build_circulant(quarter, 5)[0][0, 0], five)
    seven = [
        -0.2291250673728109, 0.6419941724907048, 0.6419941724907048, -0.2291250673728109,
        0.1585594663106776, -0.1428571428571429, 0.1585594663106776,
    ]  # fmt: skip
    assert _close(build_circulant(torch.tensor([1.5], dtype=torch.float64), 7)[0][0, 3], seven)


def test_slope_of_a_circulant() -> None:
    """Section 2.2: dS/ds at K = 3, s = 0.25, first entry."""
    shift = torch.tensor([0.25], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(build_circulant(shift, 3)[0][0, 0, 0], shift)
    assert slope.item() == pytest.approx(-0.6981317007977317, abs=1e-13)


def test_kernel_of_a_ramp() -> None:
    """The source misprints one digit of the second row; the transcription is held against it in ``_kernel``."""
    assert _close(_kernel((torch.arange(27).double() / 27).view(1, 1, 3, 3, 3)), KERNEL_OF_RAMP)


def test_kernel_of_residues() -> None:
    assert _close(_kernel(_residues(3)), KERNEL_OF_RESIDUES)


def test_kernel_of_even_size() -> None:
    """Four terms, because the Nyquist frequency is complex."""
    first = [0.6791419808258687, 0.8913115213549503, 0.5369948250048336, 0.13885503311412872]
    assert _close(_kernel(_residues(4))[0], first)


def test_two_of_the_four_numbers_count() -> None:
    """Section 2.2: singular values of the derivative of the shift."""
    r = torch.tensor([0.3, -0.5, 0.8, 0.4], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda one: shift_of(one[None])[0], r)
    values = torch.linalg.svdvals(jacobian)
    assert values[:2].tolist() == pytest.approx([1.1056, 0.5221], abs=1e-4)
    assert values[2] < 1e-14


def test_answer_that_does_not_depend_on_the_image() -> None:
    """Axis (1, 2, 3) / sqrt(14), angle 0.36294596658646144."""
    layer = _layer()
    assert layer.rotation_params is not None
    with torch.no_grad():
        layer.rotation_params[3].weight.zero_()
        layer.rotation_params[3].bias.copy_(torch.tensor([1.0, 2.0, 3.0, 0.5]))
    x, y, z = 0.2672612412419243, 0.5345224824838485, 0.8017837236257728
    angle = 0.36294596658646144
    expected = [1 + angle * (z - y), 1 + angle * (x - z), 1 + angle * (y - x)]
    assert layer.shifts(torch.randn(1, 2, 4, 4, dtype=torch.float64))[0].tolist() == pytest.approx(expected, abs=1e-8)


def test_images_through_a_whole_layer() -> None:
    """Through the layer and through the transcription."""
    layer, x = _layer(), _lin(2, 2, 4, 5)
    assert layer.rotation_params is not None
    r = oracle.answer(x, list(layer.rotation_params))
    assert _close(torch.tanh(r[:, 3]) * math.pi / 4, [-0.42377720707716143, -0.42103658317429116])
    assert _close(layer.shifts(x)[0], [0.7481953696068021, 1.498935442071688, 0.7528691883215098])
    for y in (layer(x), oracle.convolution(x, layer.weights_3d, r, padding=1)):
        assert _close(
            y[0, 0, 0],
            [-0.045434676905546104, -0.23093062892371086, 0.24660313764028655, -0.050980806960518, -0.09183991016636726],
        )
        assert _close(
            y[1, 2, 3],
            [-0.11359572802124888, 0.3440578766425925, -0.056119080930767076, -0.32214255385906143, -0.06201542453787767],
        )
        assert y.sum().item() == pytest.approx(1.4598181806968864, abs=1e-12)
        assert y.square().sum().item() == pytest.approx(6.9356468166061855, abs=1e-12)
    strided = CrossDConv(2, 3, 3, stride=2, padding=1, bias=False, mode="paper").double().eval()
    strided.load_state_dict(layer.state_dict())
    assert torch.allclose(strided(x), layer(x)[:, :, ::2, ::2], rtol=0, atol=1e-14)


def test_volumes_through_the_same_layer() -> None:
    z = _layer()(_lin(1, 2, 3, 4, 5))
    assert z.sum().item() == pytest.approx(1.456327810998921, abs=1e-11)
    assert z.square().sum().item() == pytest.approx(53.780323328755955, abs=1e-10)
    first = [-0.10935202431134187, -0.32158611900794043, 1.380648955984707, -0.6448387412998725, -0.3458974610332321]
    assert _close(z[0, 0, 1, 1], first)
