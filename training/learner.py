"""Learner: what a run changes: weights, the optimizer's state, and the moving average of the weights if one is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from training.checkpoint import State
from training.config import Pretraining
from training.methods.base import Method


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """A method on its device, its optimizer, and the average."""

    method: Method
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None

    @classmethod
    def of(cls, config: Pretraining, device: torch.device) -> Learner:
        """At step 0: weights drawn from the run's seed, whatever was drawn before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            method = config.compute.prepare(config.method.build(), device)
        return cls(method=method, optimizer=config.optimizer.build(method), average=config.compute.average(method))

    def moved(self) -> None:
        """After an update: the average follows."""
        if self.average:
            self.average.update_parameters(self.method)

    def state(self, step: int, position: int, identity: dict[str, Any]) -> State:
        """Everything that is needed to go on from here."""
        return State(
            step=step,
            position=position,
            identity=identity,
            model=dict(self.method.state_dict()),
            optimizer=self.optimizer.state_dict(),
            average=dict(self.average.state_dict()) if self.average else None,
        )

    def resume(self, state: State) -> None:
        """Go on from a state of a run of the same identity."""
        self.method.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        if self.average:
            assert state.average is not None  # equal identities keep equal averages
            self.average.load_state_dict(state.average)
