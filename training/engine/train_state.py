"""Learner: what a run changes: weights, the optimizer's state, and the moving average of the weights if one is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_optimizer_state_dict
from torch.optim.swa_utils import AveragedModel

from crossdim.foundation.bucket import Bucket
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.methods.base import Method
from crossdim.training.run_dir import sharded
from crossdim.training.run_dir.checkpoint import State
from crossdim.training.run_dir.checkpoint_listing import parts_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """A method on its device, its optimizer, and the average; ``in_parts`` if each rank saves its own part of them."""

    method: Method
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    in_parts: bool

    @classmethod
    def of(cls, config: Pretraining, device: torch.device) -> Learner:
        """At step 0: weights drawn from the run's seed, whatever was drawn before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            method = config.compute.prepare(config.method.build(), device)
        average, in_parts = config.compute.average(method), config.compute.sharded
        return cls(method=method, optimizer=config.optimizer.build(method), average=average, in_parts=in_parts)

    def moved(self) -> None:
        """After an update: the average follows."""
        if self.average:
            self.average.update_parameters(self.method)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of weights and optimizer by name, as far as this rank holds it; filling them is loading."""
        flat = StateDictOptions(flatten_optimizer_state_dict=True)
        optimizer: dict[str, Any] = get_optimizer_state_dict(self.method, self.optimizer, options=flat)
        # What lies beside the state, such as rates, is the config's.
        states = {name: value for name, value in optimizer.items() if name.startswith("state.")}
        weights: dict[str, Any] = get_model_state_dict(self.method)
        return weights | states

    def encoder_weights(self) -> dict[str, Tensor]:
        """Of a learner in parts: the whole encoder in host memory, on rank 0; all ranks call it."""
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        found: dict[str, Any] = get_model_state_dict(self.method.encoder, options=whole)
        return found

    def state(self, step: int, position: int, identity: dict[str, Any]) -> State:
        """Everything that is needed to go on from here, but for what lies in parts."""
        return State(
            step=step,
            position=position,
            identity=identity,
            model={} if self.in_parts else dict(self.method.state_dict()),
            optimizer={} if self.in_parts else self.optimizer.state_dict(),
            average=dict(self.average.state_dict()) if self.average else None,
        )

    def resume(self, run: Bucket, state: State) -> None:
        """Go on from a state of a run of the same identity.

        Raises:
            StorageError: on all ranks, if a part of it is not whole; the learner is of no use then until it resumes another.
        """
        if self.in_parts:
            sharded.read(run, parts_of(state.step), state.parts, self.tensors(), None)
        else:
            self.method.load_state_dict(state.model)
            # Rates and the like are the configuration's.
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state.optimizer["state"], "param_groups": groups})
        if self.average:
            assert state.average is not None  # equal identities keep equal averages
            self.average.load_state_dict(state.average)
