"""CheckpointState: the whole state of a run, as ``state.pt`` and the parts of a checkpoint hold it."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointState:
    """Everything that a run needs to go on.

    Attributes:
        step: steps done.
        position: samples consumed globally, T: the whole data state.
        identity: what must agree on resume, see ``crossdim.training.launch.worker.build_identity``.
        model: state of the method.
        optimizer: state of the optimizer.
        average: state of the moving average of the weights; None if the run keeps none.
        parts: of a sharded run, the sha256 of every object in ``parts/``; model and optimizer are empty then.
    """

    step: int
    position: int
    identity: dict[str, Any]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None = None
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> dict[str, Any]:
        """The method's state that the run is evaluated with: the average where there is one."""
        if self.average is None:
            return self.model
        return {name.removeprefix("module."): value for name, value in self.average.items() if name != "n_averaged"}

    @property
    def encoder(self) -> dict[str, Any]:
        """The weights of the encoder that the run is kept for."""
        return {name.removeprefix("encoder."): value for name, value in self.kept.items() if name.startswith("encoder.")}


def serialise_state(state: CheckpointState) -> bytes:
    """Serialize a state as it is stored, without its parts."""
    buffer = io.BytesIO()
    torch.save({name: getattr(state, name) for name in CheckpointState.__dataclass_fields__ if name != "parts"}, buffer)
    return buffer.getvalue()
