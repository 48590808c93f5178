"""TrainState: the objects that training changes: weights, the optimizer's state, and the moving average of the weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_optimizer_state_dict
from torch.optim.swa_utils import AveragedModel

from crossdim.training.config.pretraining import Pretraining
from crossdim.training.engine.execution import build_average, distribute, prepare
from crossdim.training.methods.base import Method


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainState:
    """A method on its device and what moves its weights.

    Attributes:
        method: what is trained.
        module: what the loop calls: the method, or a module around it that averages gradients over the ranks.
        optimizer: of the method's parameters.
        average: moving average of the weights and buffers; None if none is kept.
        sharded: whether weights and optimizer are sharded over the ranks, so that each rank saves its own part.
        device: where the method lies.
    """

    method: Method
    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    sharded: bool
    device: torch.device

    @classmethod
    def build(cls, config: Pretraining, device: torch.device) -> TrainState:
        """Build the state of step 0. Weights are drawn from the run's seed, whatever was drawn before.

        Args:
            config: of the run.
            device: where to compute.

        Returns:
            The state of step 0, on ``device``.

        Raises:
            UsageError: if the method cannot be computed with the settings of the run.
        """
        method = prepare(config.build_method(config.seed), config.compute, device)
        return cls(
            method=method,
            module=method,
            optimizer=config.optimizer.build(method),
            average=build_average(method, config.compute.ema),
            sharded=config.compute.sharded,
            device=device,
        )

    def distribute(self, *, static: bool = False) -> TrainState:
        """Return the same state with a module that averages gradients over the ranks, see :func:`.execution.distribute`."""
        return replace(self, module=distribute(self.method, self.device, static=static))

    def update_average(self) -> None:
        """Update the moving average, if there is one, with the weights as they are now."""
        if self.average:
            self.average.update_parameters(self.method)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of weights and optimizer by name, as far as this rank holds it; filling them loads a state."""
        flat = StateDictOptions(flatten_optimizer_state_dict=True)
        optimizer: dict[str, Any] = get_optimizer_state_dict(self.method, self.optimizer, options=flat)
        # The rest, such as learning rates, is the configuration's.
        states = {name: value for name, value in optimizer.items() if name.startswith("state.")}
        weights: dict[str, Any] = get_model_state_dict(self.method)
        return weights | states

    def gather_encoder(self) -> dict[str, Tensor]:
        """Gather the weights of a sharded encoder in host memory, on rank 0. All ranks call it."""
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        found: dict[str, Any] = get_model_state_dict(self.method.encoder, options=whole)
        return found

    def load(self, model: dict[str, Any], optimizer: dict[str, Any]) -> None:
        """Load weights and the optimizer's state of parameters; its learning rates and the like stay the configuration's.

        Args:
            model: state dict of the method.
            optimizer: state dict of the optimizer.
        """
        self.method.load_state_dict(model)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": optimizer["state"], "param_groups": groups})
