"""Recomputation changes memory and time and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from crossdim.training.backbones.unet3d import UNet3DSettings
from crossdim.training.layers.dual_norm import NORMS, select_statistics
from crossdim.training.layers.recompute import enable_recomputation


def _network(norm: str) -> nn.Module:
    torch.manual_seed(0)
    settings = UNet3DSettings(base_width=2, norm=norm)  # type: ignore[arg-type]
    network = nn.ModuleList([settings.encoder(), settings.decoder()])
    select_statistics(network, "superpatch")
    return network


def _recomputing(network: nn.Module) -> nn.Module:
    for part in network:  # type: ignore[attr-defined]
        for unit in part.units():
            enable_recomputation(unit)
    return network


def _run(network: nn.Module) -> dict[str, Tensor]:
    """Outputs of two steps, then gradients, then buffers."""
    torch.manual_seed(1)
    encoder, decoder = network  # type: ignore[misc]
    outputs: dict[str, Tensor] = {}
    for step in range(2):
        levels = decoder(encoder(torch.randn(2, 1, 8, 16, 16)))
        torch.stack([level.square().mean() for level in levels]).sum().backward()
        outputs |= {f"output{step}.{i}": level.detach() for i, level in enumerate(levels)}
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {**outputs, **{f"gradient {k}": v for k, v in gradients.items()}, **dict(network.state_dict())}


def _equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("norm", NORMS)
def test_outputs_gradients_buffers_and_names_are_the_same_bit_for_bit(norm: str) -> None:
    """Fails if a batch norm averages the recomputed batch in a second time."""
    plain, again = _run(_network(norm)), _run(_recomputing(_network(norm)))
    assert sum(name.startswith("gradient") for name in plain) == len(list(_network(norm).parameters()))
    assert _equal(plain, again)


def test_activations_are_really_computed_again() -> None:
    network = _recomputing(_network("bn"))
    calls: list[int] = []
    network[0].down0[0][0].register_forward_hook(lambda *_: calls.append(1))  # type: ignore[index]
    _run(network)
    assert len(calls) == 4


def test_a_deep_copy_recomputes_with_its_own_weights() -> None:
    """Evaluation copies networks; a forward still bound to the original would use the original's weights."""
    network = _recomputing(_network("bn"))
    copied = copy.deepcopy(network)
    for p in network.parameters():
        nn.init.constant_(p, float("nan"))
    assert _equal(_run(copied), _run(_network("bn")))


def test_a_compiled_network_recomputes_to_the_same_bits() -> None:
    """A compiler cannot trace the context that keeps statistics; it must go around."""
    network = _recomputing(_network("bn"))
    for part in network:  # type: ignore[attr-defined]
        part.compile(backend="aot_eager")
    assert _equal(_run(network), _run(_network("bn")))
