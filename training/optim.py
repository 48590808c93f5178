"""The optimizer and its schedule, as functions of a run's progress."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from storage_schema.errors import RunError


@dataclass(frozen=True, kw_only=True, slots=True)
class Sgd:
    """Stochastic gradient descent with momentum, the rate falling by half a cosine after a linear warm-up.

    PCRLv2 steps the cosine once an epoch and has no warm-up; we step it every step.
    """

    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if not (self.lr > 0 and 0 <= self.momentum < 1 and self.weight_decay >= 0 and self.warmup_steps >= 0):
            raise RunError(f"SGD needs lr > 0, 0 <= momentum < 1, weight_decay >= 0 and warmup_steps >= 0; found {self}")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a module's parameters."""
        return torch.optim.SGD(module.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def rate(self, step: int, total: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, total - self.warmup_steps)
        return self.lr * 0.5 * (1 + math.cos(math.pi * progress))
