"""Cross-D convolution against the Fourier transcription of its paper: kernels, outputs and every gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.layers.circulant import build_circulant, build_middle_terms, build_mixing
from crossdim.training.layers.crossd import CrossDConv
from crossdim.training.layers.per_sample import Form, mix_planes
from crossdim.training.layers.rotation import boltzmann_mean, shift_of
from tests.oracles import crossd_fft as oracle

#: in, out, kernel, stride, padding, groups of published networks, and even, anisotropic and dilated ones.
CASES = [(6, 8, 3, 1, 1, 1), (6, 8, 3, 2, 1, 2), (3, 8, 7, 2, 3, 1), (6, 6, 3, 1, 1, 6), (4, 6, 4, 1, 2, 2), (4, 4, 5, 3, 0, 1)]
FORMS: tuple[Form, ...] = ("planes", "windows", "shared")


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _layer(*args: object, **kwargs: object) -> CrossDConv:
    torch.manual_seed(0)
    layer = CrossDConv(*args, **kwargs).double()  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weights_3d.copy_(_random(*layer.weights_3d.shape, seed=1))
        if layer.rotation_params is not None:
            layer.rotation_params[3].weight.copy_(_random(4, 16, 1, 1, seed=2))
    return layer


def _gradients(output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weight = _random(*output.shape, seed=3).to(output.dtype)
    return list(torch.autograd.grad((output * weight).sum(), inputs, allow_unused=True, materialize_grads=True))


@given(
    st.tuples(*[st.integers(1, 7)] * 3),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 10**6),
)
def test_kernels_and_their_gradients_are_those_of_the_fourier_transform(
    kernel: tuple[int, int, int], batch: int, outs: int, ins: int, seed: int
) -> None:
    """K = 1 to 7, even and mixed sizes too: kernels and gradients of weights and of axis and angle, to 1e-12."""
    u = _random(outs, ins, *kernel, seed=seed).requires_grad_()
    r = _random(batch, 4, seed=seed + 1).requires_grad_()
    ours = mix_planes(u, build_middle_terms(shift_of(r), kernel))
    theirs = oracle.kernels(u, r)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    for mine, other in zip(_gradients(ours, [u, r]), _gradients(theirs, [u, r]), strict=True):
        assert torch.allclose(mine, other, rtol=1e-12, atol=1e-11)


@given(
    st.sampled_from([1, 2, 3, 4, 5, 7]),
    st.integers(1, 2),
    st.integers(0, 3),
    st.integers(1, 2),
    st.sampled_from([1, 2, 3]),
    st.integers(7, 12),
    st.integers(7, 12),
    st.integers(1, 3),
)
@settings(max_examples=40)
def test_layers_of_any_shape_are_the_transcription(
    kernel: int, stride: int, padding: int, dilation: int, groups: int, height: int, width: int, batch: int
) -> None:
    """Random shapes: outputs and gradients of input, weights and rotation net."""
    dilation = dilation if kernel <= 3 else 1
    layer = _layer(2 * groups, 3 * groups, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, mode="paper")
    x = _random(batch, 2 * groups, height, width).requires_grad_()
    inputs = [x, layer.weights_3d]
    if layer.rotation_params is not None:
        layer.rotation_params.eval()
        inputs += list(layer.rotation_params.parameters())
        r = oracle.answer(x, list(layer.rotation_params))
    else:
        r = _random(batch, 4)
    assert layer.bias is not None
    theirs = oracle.convolution(x, layer.weights_3d, r, stride, padding, groups, dilation) + layer.bias[:, None, None]
    ours = layer(x)
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    for mine, other in zip(_gradients(ours, inputs), _gradients(theirs, inputs), strict=True):
        assert torch.allclose(mine, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["paper", "centered"])
@pytest.mark.parametrize("training", [False, True])
def test_all_forms_are_equal(case: tuple[int, ...], mode: str, training: bool) -> None:
    """Outputs to 1e-12, gradients to 1e-11; batch statistics of the rotation net count a batch once."""
    ins, outs, kernel, stride, padding, groups = case
    x = _random(9, ins, 9, 11).requires_grad_()
    reference = _layer(ins, outs, kernel, stride=stride, padding=padding, groups=groups, bias=False, mode=mode).train(training)
    net = copy.deepcopy(reference.rotation_params)
    assert net is not None
    r = oracle.answer(x, list(net))
    u = reference.weights_3d if mode == "paper" else reference.weights_3d.roll((-1, -1, -1), dims=(2, 3, 4))
    theirs = oracle.convolution(x, u, r, stride, padding, groups)
    expected = _gradients(theirs, [x, reference.weights_3d, *net.parameters()])
    for form in FORMS if groups == 1 else ("planes",):
        layer = copy.deepcopy(reference)
        layer.form = form
        ours = layer(x)
        assert layer.rotation_params is not None
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12 * theirs.abs().max().item())
        found = _gradients(ours, [x, layer.weights_3d, *layer.rotation_params.parameters()])
        for mine, other in zip(found, expected, strict=True):
            assert torch.allclose(mine, other, rtol=0, atol=1e-11 * max(1.0, other.abs().max().item()))
        assert torch.equal(layer.rotation_params[1].running_mean, net[1].running_mean)


@pytest.mark.parametrize("form", FORMS)
def test_single_precision_agrees_to_its_rounding(form: Form) -> None:
    """1e-6 of an output of about 1, for weights as they are drawn."""
    torch.manual_seed(0)
    layer = CrossDConv(16, 16, 3, padding=1, form=form).eval()
    x = torch.randn(3, 16, 10, 10)
    with torch.no_grad():
        exact = copy.deepcopy(layer).double()(x.double())
        assert (layer(x) - exact).abs().max() < 2e-6
        assert exact.std() > 0.3


@pytest.mark.parametrize("form", FORMS)
def test_pieces_are_put_together_right(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    """More samples and outputs than one piece holds."""
    layer = _layer(5, 10, 3, padding=1, bias=False, form=form)
    x = _random(19, 5, 4, 4).requires_grad_()
    expected = _gradients(layer(x), [x, *layer.parameters()])
    monkeypatch.setattr("crossdim.training.layers.unfold.PIECE", 8 * 9 * 5 * 3)
    monkeypatch.setattr("crossdim.training.layers.per_sample.PIECE", 3 * 27 * 5 * 16)
    found = _gradients(layer(x), [x, *layer.parameters()])
    for mine, other in zip(found, expected, strict=True):
        assert torch.allclose(mine, other, atol=1e-11)


def test_circulants_form_a_group() -> None:
    """Orthogonal, S_a S_b = S_(a+b), period K, rows of sum 1."""
    for taps in (1, 3, 5, 7):
        a, b = torch.tensor([0.37, -1.4], dtype=torch.float64), torch.tensor([2.2, 0.05], dtype=torch.float64)
        of_a, of_b, of_sum = build_circulant(a, taps)[0], build_circulant(b, taps)[0], build_circulant(a + b, taps)[0]
        assert torch.allclose(of_a @ of_b, of_sum, atol=1e-13)
        assert torch.allclose(build_circulant(a + taps, taps)[0], of_a, atol=1e-13)
        assert torch.allclose(of_a @ of_a.transpose(1, 2), torch.eye(taps, dtype=torch.float64), atol=1e-13)
        assert torch.allclose(of_a.sum(-1), torch.ones(2, taps, dtype=torch.float64), atol=1e-13)


def test_shifting_a_whole_kernel_keeps_its_norm_and_sum() -> None:
    """Section 2.2, for odd K, in the transcription: what the middle slice is taken from."""
    u, r = _random(2, 3, 5, 5, 5), _random(4, 4)
    whole = oracle.turned(u, oracle.rotation(r))
    assert whole.imag.abs().max() < 1e-14
    assert torch.allclose(whole.real.flatten(1).norm(dim=1), u.norm().expand(4), rtol=1e-13)
    assert torch.allclose(whole.real.flatten(1).sum(1), u.sum().expand(4), rtol=1e-11)


@given(st.lists(st.floats(-20, 20), min_size=4, max_size=4))
def test_shifts_sum_to_three_and_stay_near_one(r: list[float]) -> None:
    """Four numbers, two degrees of freedom."""
    shift = shift_of(torch.tensor([r], dtype=torch.float64))
    assert abs(shift.sum().item() - 3) < 1e-12
    assert (shift - 1).abs().max() <= torch.pi / 4 * 2**0.5 + 1e-12


def test_angle_zero_is_a_roll_in_paper_mode_and_the_middle_slice_in_centered() -> None:
    for taps in (2, 3, 4, 5, 7):
        u = _random(2, 3, taps, taps, taps)
        paper = mix_planes(u, build_middle_terms(torch.ones(1, 3, dtype=torch.float64), (taps,) * 3))
        assert torch.allclose(paper[0], u.roll((1, 1, 1), (2, 3, 4))[:, :, taps // 2], atol=1e-12)
        centered = mix_planes(u, build_middle_terms(torch.zeros(1, 3, dtype=torch.float64), (taps,) * 3))
        assert torch.allclose(centered[0], u[:, :, taps // 2], atol=1e-12)


@pytest.mark.parametrize("taps", [2, 3, 4, 5, 7])
def test_a_paper_layer_becomes_a_centered_one_by_a_roll(taps: int) -> None:
    """As centered(U) = paper(roll(U, -1)), so published weights can be brought over without changing images."""
    layer = _layer(2, 3, taps, mode="paper").eval()
    x = _random(2, 2, 9, 9)
    before, weights = layer(x), layer.weights_3d.detach().clone()
    layer.center()
    assert layer.mode == "centered"
    assert torch.equal(layer.weights_3d, weights.roll((1, 1, 1), (2, 3, 4)))
    assert torch.allclose(layer(x), before, atol=1e-12)
    layer.center()
    assert torch.allclose(layer(x), before, atol=1e-12)


def test_a_volume_of_one_slice_meets_the_middle_of_the_kernel() -> None:
    """2D and 3D use of a centered layer at angle 0 are one operation."""
    layer = _layer(3, 4, 3, padding=1)
    assert layer.rotation_params is not None
    layer.rotation_params.reset_to_zero_angle()
    x = _random(2, 3, 6, 7)
    assert torch.allclose(layer(x), layer(x[:, :, None])[:, :, 0], atol=1e-12)
    assert layer.rotation_params[3].bias[:3].abs().min() > 0


def test_a_layer_at_rest_learns_to_turn() -> None:
    """At rest the angle has a gradient; with an axis of zero it would not."""
    layer = _layer(3, 4, 3, padding=1)
    assert layer.rotation_params is not None
    layer.rotation_params.reset_to_zero_angle()
    layer(_random(2, 3, 6, 7)).square().sum().backward()
    assert layer.rotation_params[3].bias.grad[3].abs() > 1e-3


def test_volumes_are_convolved_with_the_kernel_itself() -> None:
    for mode in ("paper", "centered"):
        layer = _layer(4, 6, (3, 5, 3), stride=(1, 2, 1), padding=(1, 2, 0), groups=2, mode=mode)
        x = _random(2, 4, 5, 7, 6)
        expected = functional.conv3d(x, layer.weights_3d, layer.bias, (1, 2, 1), (1, 2, 0), 1, 2)
        assert torch.equal(layer(x), expected)


def test_one_tap_is_a_plain_convolution() -> None:
    """Nothing to turn, no rotation net, and none loaded."""
    layer = _layer(3, 5, 1, stride=2)
    assert layer.rotation_params is None
    x = _random(2, 3, 7, 7)
    assert torch.equal(layer(x), functional.conv2d(x, layer.weights_3d[:, :, 0], layer.bias, 2))
    state = layer.state_dict() | {"rotation_params.0.weight": torch.zeros(16, 3, 1, 1)}
    layer.load_state_dict(state)


def test_the_transcription_gives_one_tap_no_rotation_gradient() -> None:
    """Why the rotation net of one tap may be dropped."""
    u, r = _random(2, 3, 1, 1, 1), _random(2, 4).requires_grad_()
    output = oracle.convolution(_random(2, 3, 4, 4), u, r)
    assert torch.allclose(output, functional.conv2d(_random(2, 3, 4, 4), u[:, :, 0]), atol=1e-14)
    assert torch.equal(torch.autograd.grad(output.sum(), r)[0], torch.zeros(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("form", FORMS)
def test_in_evaluation_a_sample_knows_nothing_of_its_batch(form: Form) -> None:
    """Bit for bit where the arithmetic is that of one sample, else to rounding."""
    layer = _layer(3, 4, 3, padding=1, form=form).eval()
    x = _random(5, 3, 6, 6)
    together = layer(x)
    alone = torch.cat([layer(x[b : b + 1]) for b in range(5)])
    assert torch.allclose(together, alone, rtol=0, atol=1e-13)


def test_in_training_batch_norm_of_the_rotation_net_sees_the_batch() -> None:
    layer = _layer(3, 4, 3, padding=1).train()
    x = _random(5, 3, 6, 6)
    assert (layer(x)[:1] - layer(x[:1])).abs().max() > 1e-3


def test_a_depthwise_layer_turns_all_groups_alike() -> None:
    """One shift from all channels, kernels group by group."""
    layer = _layer(4, 8, 3, groups=4, bias=False).eval()
    x = _random(2, 4, 5, 5)
    each = layer.planes(layer.shifts(x))
    for b in range(2):
        for g in range(4):
            alone = functional.conv2d(x[b : b + 1, g : g + 1], each[b, 2 * g : 2 * g + 2])
            assert torch.allclose(layer(x)[b : b + 1, 2 * g : 2 * g + 2], alone, atol=1e-12)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_borders_are_those_of_torch(padding_mode: str) -> None:
    layer = _layer(2, 3, 3, padding=(1, 2, 1), padding_mode=padding_mode)
    flat = nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode=padding_mode).double()
    solid = nn.Conv3d(2, 3, 3, padding=(1, 2, 1), padding_mode=padding_mode).double()
    assert layer.rotation_params is not None
    layer.rotation_params.reset_to_zero_angle()
    assert layer.bias is not None
    with torch.no_grad():
        flat.weight.copy_(layer.weights_3d[:, :, 1])
        solid.weight.copy_(layer.weights_3d)
        flat.bias.copy_(layer.bias)
        solid.bias.copy_(layer.bias)
    assert torch.allclose(layer(_random(1, 2, 5, 6)), flat(_random(1, 2, 5, 6)), atol=1e-12)
    assert torch.allclose(layer(_random(1, 2, 4, 5, 6)), solid(_random(1, 2, 4, 5, 6)), atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rank", [4, 5])
def test_channels_last_and_views_are_taken(form: Form, rank: int) -> None:
    """The published layer fails for both."""
    layer = _layer(4, 6, 3, padding=1, form=form).eval()
    x = _random(2, 4, *(5, 8, 8)[5 - rank :])
    last = x.to(memory_format=torch.channels_last if rank == 4 else torch.channels_last_3d)
    assert torch.allclose(layer(last), layer(x), atol=1e-12)
    strided = torch.cat([x, x], dim=-1)[..., ::2]
    assert torch.allclose(layer(strided), layer(strided.contiguous()), atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_weights_with_channels_last_are_taken(form: Form) -> None:
    """In which 3D convolutions are faster. ``Module.to`` cannot lay out weights of two ranks, so it is done one by one."""
    layer = _layer(4, 6, 3, padding=1, form=form)
    last = copy.deepcopy(layer)
    last.weights_3d.data = layer.weights_3d.data.contiguous(memory_format=torch.channels_last_3d)
    assert not last.weights_3d.is_contiguous()
    x = _random(2, 4, 8, 8).requires_grad_()
    found, expected = ([y, *_gradients(y, [x, *m.parameters()])] for m in (last, layer) for y in [m(x)])
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_modules_and_autocast_run_and_train(form: Form) -> None:
    """Shifts stay in float32; the convolution is in bfloat16."""
    torch.manual_seed(0)
    layer = CrossDConv(8, 8, 3, padding=1, form=form)
    x = torch.randn(2, 8, 12, 12)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x)
    whole = copy.deepcopy(layer).bfloat16()
    low = whole(x.bfloat16())
    assert mixed.dtype == low.dtype == torch.bfloat16
    assert whole.shifts(x.bfloat16()).dtype == torch.float32
    for found in (mixed, low):
        assert (found.float() - exact).abs().mean() < 0.02 * exact.abs().mean()
        found.float().square().mean().backward()
    for module in (layer, whole):
        assert all(p.grad is not None and p.grad.dtype == p.dtype and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rank", [4, 5])
@pytest.mark.integration
def test_exported_programs_take_any_batch(form: Form, rank: int) -> None:
    """One program for each rank."""
    torch.manual_seed(0)
    layer = CrossDConv(3, 4, 3, padding=1, form=form).eval()
    x = torch.randn(2, 3, *(5, 8, 8)[5 - rank :])
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=64)},))
    more = torch.cat([x, -x, x])
    assert torch.allclose(program.module()(more), layer(more), atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.integration
def test_compiled_layers_give_the_same_outputs_and_gradients(form: Form) -> None:
    """Without the code generator, which needs a C++ compiler: tracing and gradients are what can differ."""
    torch.compiler.reset()
    layer = _layer(3, 4, 3, padding=1, form=form)
    x = _random(2, 3, 6, 6).requires_grad_()
    expected = _gradients(layer(x), [x, *layer.parameters()])
    compiled = torch.compile(copy.deepcopy(layer), backend="aot_eager", fullgraph=True)
    found = _gradients(compiled(x), [x, *compiled.parameters()])
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(found, expected, strict=True))


def test_frozen_inputs_and_weights_get_no_gradient() -> None:
    """Empty gradients: probes freeze the layer, stems have an input without gradient."""
    for form in FORMS:
        layer = _layer(3, 4, 3, padding=1, form=form)
        layer.weights_3d.requires_grad_(False)
        layer(_random(2, 3, 6, 6)).sum().backward()
        assert layer.weights_3d.grad is None
        assert layer.rotation_params is not None
        assert layer.rotation_params[3].weight.grad is not None


def test_an_empty_batch_is_an_empty_batch() -> None:
    layer = _layer(3, 4, 3, padding=1).eval()
    for rank in (4, 5):
        assert layer(torch.zeros(0, 3, *(6, 6, 6)[5 - rank :], dtype=torch.float64)).shape == (0, 4, *(6, 6, 6)[5 - rank :])


def test_names_and_sizes_are_those_of_published_checkpoints() -> None:
    """Section 1.1: 16 C_in + 116 numbers of a rotation net."""
    layer = CrossDConv(64, 64, 3, bias=False)
    net = [f"rotation_params.{i}.{kind}" for i in (0, 1, 3) for kind in ("weight", "bias")]
    statistics = [f"rotation_params.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")]
    assert set(layer.state_dict()) == {"weights_3d", *net, *statistics}
    assert layer.rotation_params is not None
    assert sum(p.numel() for p in layer.rotation_params.parameters()) == 16 * 64 + 116
    assert layer.weights_3d.std().item() == pytest.approx(0.03402, rel=0.02)


def test_what_is_no_convolution_is_refused() -> None:
    with pytest.raises(GeometryError, match="mode"):
        CrossDConv(2, 2, 3, mode="centred")  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match="form"):
        CrossDConv(2, 2, 3, form="fft")(torch.zeros(1, 2, 4, 4))  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match="one group"):
        CrossDConv(2, 2, 3, groups=2, form="shared")(torch.zeros(1, 2, 4, 4))
    with pytest.raises(GeometryError, match="3 and 2 channels do not fall into 2 groups"):
        CrossDConv(3, 2, 3, groups=2)
    with pytest.raises(GeometryError, match=r"one number or three, \(D, H, W\); found \(3, 3\)"):
        CrossDConv(2, 2, (3, 3))
    with pytest.raises(GeometryError, match=r"found \(2, 4, 4\)"):
        CrossDConv(2, 2, 3)(torch.zeros(2, 4, 4))


def test_mixing_is_orthogonal_rows_for_odd_kernels() -> None:
    """What fails if a plane is scaled or leaks between taps."""
    matrix = build_mixing(build_middle_terms(_random(3, 3), (3, 5, 7)))
    assert torch.allclose(matrix @ matrix.transpose(1, 2), torch.eye(35, dtype=torch.float64).expand(3, -1, -1), atol=1e-12)


def test_the_aggregator_is_a_boltzmann_mean() -> None:
    rows = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=torch.float64)
    assert boltzmann_mean(rows[None, None]).item() == pytest.approx(2.49265273458577, abs=1e-14)
    assert boltzmann_mean(torch.full((1, 1, 3, 3), 0.7, dtype=torch.float64)).item() == pytest.approx(0.7, abs=1e-14)


@pytest.mark.parametrize("form", FORMS)
def test_the_backward_pass_keeps_inputs_and_weights_alone(form: Form) -> None:
    """What memory goal and large batches hang on: neither planes, nor windows, nor maps of the rotation net are saved."""
    layer = CrossDConv(8, 8, 3, padding=1, bias=False, form=form)
    x = torch.randn(4, 8, 16, 16)
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x)
    small = 4 * len(x) * 9 * 27 * 6  # matrices of the shifts
    assert sum(saved.values()) <= x.nbytes + layer.weights_3d.nbytes + small
    y.sum().backward()


def test_planes_of_few_samples_exist_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = _layer(2, 3, 3, bias=False, form="planes")
    seen = []

    def spy(weights_3d: Tensor, terms: list[tuple[Tensor, Tensor]]) -> Tensor:
        seen.append(len(terms[0][0]))
        return mix_planes(weights_3d, terms)

    monkeypatch.setattr("crossdim.training.layers.per_sample.mix_planes", spy)
    monkeypatch.setattr("crossdim.training.layers.per_sample.PIECE", 3 * 9 * 2 * 3)
    layer(_random(7, 2, 5, 5)).sum().backward()
    assert max(seen) == 3
    assert sum(seen) == 2 * 7
