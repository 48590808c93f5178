"""The numbers of one training step, as they are logged."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """What is known of one step after it, on every rank alike (times are this rank's).

    Attributes:
        step: its number, from 0.
        loss: the sum of ``terms``.
        terms: loss terms as they are summed, by stream.
        monitors: what the method watches, by stream.
        lr: the learning rate.
        grad_norm: norm of the gradient of all ranks together, before it was clipped.
        counts: samples by presentation: the mix that was realised.
        samples: a digest of the keys that all ranks together trained on: the sum of their 63-bit hashes, so neither their
            order nor the number of ranks shows in it.
        voxels: numbers in all views of all ranks; where views are made on the device, in what they are made from.
        wait_s: how long this rank waited for data.
        step_s: waiting included.
        skew_s: between the first and the last rank that came to where ranks wait for one another, on the same start: what the
            others lost to the last. Of a GPU it is the time until work was handed to it, which shows late data, not slow kernels.
            Ranks that wait for one another in the forward pass already (sharded weights, synchronised norms) show less of it.
        slowest: the rank that came last.
    """

    step: int
    loss: float
    terms: dict[str, float]
    monitors: dict[str, float]
    lr: float
    grad_norm: float
    counts: dict[str, int]
    samples: int
    voxels: int
    wait_s: float
    step_s: float
    skew_s: float
    slowest: int

    @property
    def rates(self) -> dict[str, float]:
        """Samples and voxels a second, of all ranks together."""
        return {"samples_per_s": sum(self.counts.values()) / self.step_s, "voxels_per_s": self.voxels / self.step_s}


def key_hash(key: str) -> int:
    """63 bits of the sha256 of a sample key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
