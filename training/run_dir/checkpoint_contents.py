"""Checks that the contents of a checkpoint fit its own configuration.

Hashes show that bytes are those that were written, not that they fit. Networks are built on the meta device, so this takes no
memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from crossdim.storage_schema.errors import CrossdimError, StorageError
from crossdim.training.config.pretraining import Pretraining, read_config
from crossdim.training.extensions import check_extensions
from crossdim.training.run_dir.checkpoint_state import CheckpointState
from crossdim.training.torch_file import check_tensor

_WORDS = ("name", "manifest", "preprocessing")


def check_contents(state: CheckpointState) -> None:
    """Check that a run can go on from a state and be evaluated with it.

    Weights and optimizer of a sharded run lie in parts, which are checked when they are read.

    Args:
        state: of a checkpoint whose bytes have their hashes.

    Raises:
        StorageError: naming the first thing that does not fit the configuration in the state, or is not finite.
        UsageError: if it uses modules that are not imported.
    """
    config = _read_config(state)
    _check_progress(state, config)
    try:
        with torch.device("meta"):
            method = config.method.build()
        names = dict(method.state_dict())
        optimizer = config.optimizer.build(method)
    except (CrossdimError, RuntimeError, ArithmeticError, TypeError, ValueError, MemoryError) as error:
        raise StorageError(f"its configuration builds no network: {' '.join(str(error).split())[:200]}") from error
    if config.compute.sharded != bool(state.parts):
        raise StorageError(f"it has {len(state.parts)} parts, and compute.sharded is {config.compute.sharded}")
    if not state.parts:
        _check_tensors(state.model, names, "model")
        drawn = {id(parameter) for name in method.drawn for parameter in method.get_submodule(name).parameters()}
        _check_optimizer(state, config, optimizer, drawn)
    _check_average(state, config, names)


def _read_config(state: CheckpointState) -> Pretraining:
    identity = state.identity
    datasets, weights = identity.get("datasets"), identity.get("weights")
    fine = isinstance(datasets, list) and isinstance(weights, list) and len(datasets) == len(weights) > 0
    if not fine or not all(isinstance(d, dict) and all(isinstance(d.get(w), str) for w in _WORDS) for d in datasets or ()):
        raise StorageError("its identity names no datasets")
    check_extensions(identity.get("extensions"), "the run")
    try:
        return read_config(identity.get("config"), "its configuration")
    except CrossdimError as error:
        raise StorageError(" ".join(str(error).split())) from error


def _check_progress(state: CheckpointState, config: Pretraining) -> None:
    if state.step > config.steps:
        raise StorageError(f"it is of step {state.step}, and the run has {config.steps}")
    if state.position != (expected := state.step * config.global_batch):
        raise StorageError(
            f"its position is {state.position}; {state.step} steps of {config.global_batch} samples end at {expected}"
        )


def _check_tensors(found: Mapping[str, Any], expected: Mapping[str, Any], subject: str) -> None:
    if odd := sorted(map(str, found.keys() ^ expected.keys())):
        raise StorageError(f"{subject} has not the names of the network: {len(odd)} differ, such as {odd[0]}")
    for name, value in expected.items():
        if isinstance(value, Tensor):
            check_tensor(found[name], value, f"{subject} {name}")
        elif type(found[name]) is not type(value):
            raise StorageError(f"{subject} {name} is {type(found[name]).__name__}, expected {type(value).__name__}")


def _check_average(state: CheckpointState, config: Pretraining, names: Mapping[str, Any]) -> None:
    if (config.compute.ema is None) != (state.average is None):
        raise StorageError(f"it has {'no' if state.average is None else 'an'} average, and compute.ema is {config.compute.ema}")
    if state.average is not None:
        expected = {f"module.{name}": value for name, value in names.items()}
        count = torch.empty((), dtype=torch.long, device="meta")
        _check_tensors(state.average, expected | {"n_averaged": count}, "average")


def _check_optimizer(
    state: CheckpointState, config: Pretraining, optimizer: torch.optim.Optimizer, drawn: Collection[int]
) -> None:
    """Rates and the like are the configuration's; what is read is the state of each parameter, by its number.

    Those whose ``id`` is among ``drawn`` may have none yet.
    """
    fresh = optimizer.state_dict()["param_groups"]
    groups, states = state.optimizer.get("param_groups"), state.optimizer.get("state")
    if not isinstance(groups, list) or not isinstance(states, dict) or not all(isinstance(group, dict) for group in groups):
        raise StorageError("optimizer has no groups of parameters, or no state")
    if [group.get("params") for group in groups] != [group["params"] for group in fresh]:
        raise StorageError("optimizer has not the parameters of the network")
    tensors = dict(enumerate(tensor for group in optimizer.param_groups for tensor in group["params"]))
    template = _template(config)
    stepped = {number for number, tensor in tensors.items() if tensor.requires_grad and id(tensor) not in drawn}
    expected = stepped if template and state.step else set()
    if not expected <= states.keys() <= tensors.keys():
        raise StorageError(f"optimizer has a state of {len(states)} parameters, expected {len(expected)}")
    for number, tensor in tensors.items():
        _check_state(states.get(number, {}), template if number in states else {}, tensor, f"optimizer state {number}")


def _check_state(found: Any, template: Mapping[str, Tensor], tensor: Tensor, subject: str) -> None:
    """One parameter's; what an optimizer does not use it leaves out, or has None for."""
    if not isinstance(found, dict):
        raise StorageError(f"{subject} is {type(found).__name__}, expected tensors by name")
    used = {name: value for name, value in found.items() if value is not None}
    expected = {name: tensor if value.ndim else value for name, value in template.items()}
    _check_tensors(used, expected, subject)


def _template(config: Pretraining) -> dict[str, Tensor]:
    """What the run's optimizer keeps of a parameter with one axis, once it has stepped."""
    small = torch.nn.Linear(2, 2)
    optimizer = config.optimizer.build(small)
    for parameter in small.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {name: value for name, value in optimizer.state[small.bias].items() if value is not None}
