"""The configuration of a pretraining run: everything that decides what it computes, in one frozen tree, to JSON and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from crossdim.foundation.settings import Families, Override, from_document, override_settings, to_document
from crossdim.storage_schema.errors import RunError, list_wrong_settings
from crossdim.training.backbones import BACKBONES
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.config.execution import Execution
from crossdim.training.config.optimizers import OPTIMIZERS, Optimizer, Sgd
from crossdim.training.data.mixing import Mixing
from crossdim.training.methods import METHODS
from crossdim.training.methods.base import Method, MethodConfig
from crossdim.training.methods.image_to_volume import IMAGE_TO_VOLUME, ImageToVolume

FAMILIES: Families = {MethodConfig: METHODS, BackboneSettings: BACKBONES, Optimizer: OPTIMIZERS, ImageToVolume: IMAGE_TO_VOLUME}

#: Names of checkpoints have eight digits for the step.
MAX_STEPS = 10**8 - 1
#: A step's samples are listed in memory by every worker.
MAX_GLOBAL_BATCH = 2**20
#: The largest that PyTorch's generators take.
MAX_SEED = 2**64 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretraining:
    """A run. Where data and results are, and how many workers there are, is not part of it.

    Attributes:
        method: what is trained, and how samples become views.
        steps (steps): optimizer steps of the whole run.
        global_batch (samples): samples of all presentations and ranks together in one step; does not depend on the workers.
        optimizer: what moves the weights, with the learning rate by step.
        seed: seed of weights, order, views and draws.
        clip_norm: largest gradient norm; None leaves gradients alone.
        mixing: which datasets a step holds.
        compute: how a step is carried out.
    """

    method: MethodConfig
    steps: int
    global_batch: int
    optimizer: Optimizer = field(default_factory=Sgd)
    seed: int = 0
    clip_norm: float | None = None
    mixing: Mixing = field(default_factory=Mixing)
    compute: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            steps=1 <= self.steps <= MAX_STEPS,
            global_batch=1 <= self.global_batch <= MAX_GLOBAL_BATCH,
            seed=0 <= self.seed <= MAX_SEED,
        ):
            most = f"at most {MAX_STEPS} steps, a global_batch of at most {MAX_GLOBAL_BATCH} and a seed of at most 2**64 - 1"
            least = "a run needs steps and global_batch of at least 1 and a seed of at least 0"
            raise RunError(f"a run takes {most}; {least}; found {found}")

    def build_method(self, seed: int) -> Method:
        """The network as a run of a seed starts with, whatever was drawn before; later draws are as if it had not been built.

        Args:
            seed: of the weights.

        Returns:
            The method, on the CPU.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.method.build()

    def document(self) -> dict[str, Any]:
        """The run as JSON values, which :func:`read_config` reads."""
        document: dict[str, Any] = to_document(self)
        return document


def read_config(document: Any, subject: str) -> Pretraining:
    """Parse a run's configuration from its document.

    Args:
        document: JSON values.
        subject: where they came from, for the error.

    Returns:
        The configuration, its settings checked.

    Raises:
        DocumentError: listing every setting that is unknown, missing or of the wrong type.
    """
    return from_document(Pretraining, document, subject=subject, families=FAMILIES)


def apply_overrides(config: Pretraining, overrides: Iterable[str | Override]) -> Pretraining:
    """Change settings of a run.

    Args:
        config: the run.
        overrides: texts such as ``optimizer.lr=0.1``.

    Returns:
        A new configuration.

    Raises:
        UsageError: naming a setting that does not exist or takes no such value.
    """
    return override_settings(config, overrides, FAMILIES)
