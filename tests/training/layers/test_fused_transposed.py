"""A transposed convolution and a convolution as one: equal values and gradients, and fewer multiplications where it is chosen."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from crossdim.training.layers.fused_transposed import _convolve_fused, pays, upsample_and_convolve

STEPS = [(2, 2, 2), (1, 2, 2), (2, 1, 1)]


def _pair(step: tuple[int, int, int], width: int, out: int, *, bias: bool = True) -> tuple[nn.ConvTranspose3d, nn.Conv3d]:
    torch.manual_seed(0)
    return (
        nn.ConvTranspose3d(width, width, step, stride=step, bias=bias).double(),
        nn.Conv3d(width, out, 3, padding=1, bias=bias).double(),
    )


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("sides", [(1, 1, 1), (2, 3, 4), (4, 2, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_both(step: tuple[int, int, int], sides: tuple[int, int, int], bias: bool) -> None:
    """At borders too, where the second reads zeros and not the bias of the first."""
    up, conv = _pair(step, 5, 3, bias=bias)
    x = torch.randn(2, 5, *sides, dtype=torch.float64, requires_grad=True)
    weights = [x, *up.parameters(), *conv.parameters()]
    thin = min(s * side for s, side in zip(step, sides, strict=True)) == 1
    one, two = (upsample_and_convolve if thin else _convolve_fused)(x, up, conv), conv(up(x))
    assert torch.allclose(one, two, atol=1e-12)
    ours = torch.autograd.grad(one.sin().sum(), weights)
    theirs = torch.autograd.grad(two.sin().sum(), weights)
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(ours, theirs, strict=True))


def _flops(call: object) -> int:
    with FlopCounterMode(display=False) as counter:
        call()  # type: ignore[operator]
    return int(counter.get_total_flops())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("width", "sides"), [(32, (2, 3, 3)), (32, (2, 6, 6)), (32, (2, 8, 8)), (32, (8, 14, 14)), (4, (2, 2, 2))]
)
def test_the_choice_is_the_one_with_fewer_operations(step: tuple[int, int, int], width: int, sides: tuple[int, int, int]) -> None:
    up, conv = _pair(step, width, width // 2, bias=False)
    x = torch.randn(2, width, *sides, dtype=torch.float64)
    chosen = _flops(lambda: upsample_and_convolve(x, up, conv))
    assert chosen == min(_flops(lambda: _convolve_fused(x, up, conv)), _flops(lambda: conv(up(x))))


def test_at_the_size_of_the_paper_one_convolution_is_a_third_of_the_work() -> None:
    up, conv = nn.ConvTranspose3d(128, 128, 2, stride=2, device="meta"), nn.Conv3d(128, 64, 3, padding=1, device="meta")
    x = torch.empty(32, 128, 8, 28, 28, device="meta")
    assert pays(x.shape, up, conv)
    assert _flops(lambda: conv(up(x))) / _flops(lambda: _convolve_fused(x, up, conv)) > 3.5
