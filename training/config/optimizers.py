"""Settings of optimizers and their learning-rate schedule; each builds its own PyTorch optimizer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from crossdim.storage_schema.errors import RunError, list_wrong_settings


class Optimizer(ABC):
    """Settings of an optimizer. Subclasses are frozen, keyword-only dataclasses with a rate ``lr`` and ``warmup_steps``.

    Attributes:
        kind: name in ``OPTIMIZERS``.
        extension: the module that registered it; None if it is one of crossdim's own.
    """

    kind: ClassVar[str]
    extension: ClassVar[str | None] = None
    lr: float
    warmup_steps: int

    @abstractmethod
    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer of a module's parameters."""

    def learning_rate(self, step: int, total: int) -> float:
        """Return the learning rate of a step: a linear warm-up, then half a cosine down to 0.

        Args:
            step: counted from 0.
            total: steps of the whole run.

        Returns:
            The learning rate, from 0 to ``lr``.
        """
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, total - self.warmup_steps)
        return self.lr * 0.5 * (1 + math.cos(math.pi * progress))


#: Rates and decays beyond this are mistakes; what single precision does not hold would fail in the first step only.
MAX_RATE = 1e30


@dataclass(frozen=True, kw_only=True, slots=True)
class Sgd(Optimizer):
    """Stochastic gradient descent with momentum. PCRLv2 steps the cosine once an epoch, without warm-up; we every step.

    Attributes:
        lr: largest learning rate.
        momentum: momentum of the gradient.
        weight_decay: decay of every parameter (L2).
        warmup_steps (steps): steps in which the learning rate rises from 0.
    """

    kind: ClassVar[str] = "sgd"

    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            lr=0 < self.lr <= MAX_RATE,
            momentum=0 <= self.momentum < 1,
            weight_decay=0 <= self.weight_decay <= MAX_RATE,
            warmup_steps=self.warmup_steps >= 0,
        ):
            rates = f"lr in (0, {MAX_RATE:g}], weight_decay in [0, {MAX_RATE:g}]"
            raise RunError(f"SGD needs {rates}, momentum in [0, 1) and warmup_steps >= 0; found {found}")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Build SGD in which every parameter decays, norms and biases too: as in PCRLv2."""
        return torch.optim.SGD(module.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay, for transformers; defaults as masked autoencoders are commonly pretrained.

    Attributes:
        lr: largest learning rate.
        betas: decays of the moving averages of the gradient and of its square.
        weight_decay: decoupled decay of matrices and kernels.
        warmup_steps (steps): steps in which the learning rate rises from 0.
    """

    kind: ClassVar[str] = "adamw"

    lr: float = 1.5e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            lr=0 < self.lr <= MAX_RATE,
            betas=all(0 <= beta < 1 for beta in self.betas),
            weight_decay=0 <= self.weight_decay <= MAX_RATE,
            warmup_steps=self.warmup_steps >= 0,
        ):
            rates = f"lr in (0, {MAX_RATE:g}], weight_decay in [0, {MAX_RATE:g}]"
            raise RunError(f"AdamW needs {rates}, betas in [0, 1) and warmup_steps >= 0; found {found}")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Build AdamW in which matrices and kernels decay; biases, norms and tokens (one axis longer than 1) do not."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        kernels = [p for p in parameters if sum(side > 1 for side in p.shape) > 1]
        chosen = {id(p) for p in kernels}
        rest = [p for p in parameters if id(p) not in chosen]
        groups = [{"params": kernels, "weight_decay": self.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas)


#: To add an optimizer, write a class and add it here.
OPTIMIZERS: dict[str, type[Optimizer]] = {optimizer.kind: optimizer for optimizer in (Sgd, AdamW)}
