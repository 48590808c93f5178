"""Mixing: how samples of several datasets share optimizer steps.

Every mode is the same order with its pattern stretched, so all of them are exact, resumable and the same on every rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossdim.storage_schema.errors import RunError, list_wrong_settings
from crossdim.training.data.order import Order

MixMode = Literal["paired", "ratio", "block", "joint"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixing:
    """Which datasets a step holds. How CDSSL-P3D mixes them was not available to us; ``paired`` is our choice.

    * ``paired``: every step has a batch of each dataset, and one update from all of them.
    * ``ratio``: a step holds one dataset; with weights 0.25 and 0.75, exactly 2 of 8 consecutive steps hold the first.
    * ``block``: as ``ratio``, but ``block_steps`` consecutive steps hold the same dataset (UniMiSS changes after 2 epochs;
      main.py 105-121).
    * ``joint``: as ``paired``, but in one tensor: batch norm sees images and volumes together. Their views must have equal
      shapes.

    Attributes:
        mode: in a step, ``paired`` has a batch of each dataset, ``ratio`` one dataset, ``block`` too, but the same one for many
            steps, and ``joint`` all datasets in one tensor.
        block_steps (steps): consecutive steps that hold the same dataset, in mode ``block``.
    """

    mode: MixMode = "paired"
    block_steps: int = 100

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            mode=self.mode in ("paired", "ratio", "block", "joint"),
            block_steps=self.block_steps >= 1,
        ):
            raise RunError(f"mixing is paired, ratio, block or joint, with block_steps of at least 1; found {found}")

    def stretch(self, global_batch: int) -> int:
        """How many consecutive positions belong to one dataset."""
        return {"ratio": global_batch, "block": global_batch * self.block_steps}.get(self.mode, 1)

    def smallest_batch(self, order: Order, global_batch: int, world: int) -> int:
        """The smallest number of samples that any rank passes through batch norm together, in any step.

        Args:
            order: of the run.
            global_batch: samples of one step on all ranks.
            world: number of ranks.

        Returns:
            Number of samples.
        """
        if self.mode in ("ratio", "block"):
            return global_batch // world  # every step holds one dataset
        shares = order.mixture.counts(global_batch) // world
        return int((shares.sum(axis=0) if self.mode == "joint" else shares).min())
