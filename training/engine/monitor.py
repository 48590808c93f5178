"""FeatureMonitor: measures the features of a fixed batch every so many steps, and says when they collapse.

Every rank computes the same batch, so that none waits longer than the others and synchronised batch norms have their collectives;
the numbers of rank 0 are everybody's, so that all ranks decide alike. Batch norms use the statistics of the batch, as in a step.
What is trained is left as it was, to the bit: no gradient, no running statistic, no random number of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor

from crossdim.storage_schema.errors import RunError, list_wrong_settings
from crossdim.training.config.execution import Execution
from crossdim.training.data.collate import Batch
from crossdim.training.engine.execution import autocast, is_distributed
from crossdim.training.engine.train_state import TrainState
from crossdim.training.methods.base import ENCODER
from crossdim.training.objectives.collapse import alignment, dimensions, rank_me, uniformity

#: How the names of what is measured on fixed batches begin.
FIXED = "fixed"
#: Encoder features whose RankMe is below this share of what their number allows are collapsed. Ours: of untrained networks it is
#: above half, of collapsed ones below a quarter within 25 steps (recipes/LOG.md).
FLOOR = 0.25
#: Of fewer samples nothing is said: so few vary in few dimensions anyway.
MIN_SAMPLES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Monitoring:
    """When features are measured.

    Attributes:
        every (steps): between measurements; 0 for none.
        stop_on_collapse: whether a run whose features collapse is ended.
    """

    every: int = 50
    stop_on_collapse: bool = False

    def __post_init__(self) -> None:
        least = int(self.stop_on_collapse)
        if found := list_wrong_settings(self, every=self.every >= least):
            reason = "that a collapse can be seen" if least else "or 0 for none"
            raise RunError(f"there are at least {least} steps between measurements of features, {reason}; found {found}")


class FeatureMonitor:
    """Measures the features of fixed batches.

    Args:
        read: reads the batches, before the first measurement.
        every: steps between measurements; 0 for none.
        warns: whether few dimensions are a collapse: of methods that compare views. Others are measured only.
    """

    def __init__(self, read: Callable[[], Sequence[Batch]], every: int, *, warns: bool) -> None:
        self._read, self._every, self._warns = read, every, warns
        #: What collapsed at the newest measurement, in a sentence; empty if nothing did.
        self.collapse = ""

    @cached_property
    def _batches(self) -> Sequence[Batch]:
        return self._read()

    def measure(self, state: TrainState, execution: Execution, done: int) -> dict[str, float]:
        """Measure, if it is time to. All ranks call it.

        Args:
            state: left as it is.
            execution: settings of the step.
            done: steps that are done.

        Returns:
            Measures by name, such as ``fixed/superpatch/encoder.rank_me``; none if it is not time.

        Raises:
            StorageError: if the fixed batches cannot be read.
        """
        if not self._every or done % self._every:
            return {}
        found: dict[str, Tensor] = {}
        for batch in self._batches:
            for name, views in embed(state, batch, execution).items():
                found |= {f"{FIXED}/{batch.stream}/{name}.{measure}": value for measure, value in measure_views(views).items()}
        numbers = torch.stack(list(found.values())).to(state.device, torch.float64)
        if is_distributed(state.module):
            dist.broadcast(numbers, src=0)
        monitors = dict(zip(found, numbers.tolist(), strict=True))
        self.collapse = self._find_collapse(state, monitors) if self._warns else ""
        return monitors

    def _find_collapse(self, state: TrainState, monitors: dict[str, float]) -> str:
        channels, low = state.method.encoder_spec.num_features, []
        for batch in self._batches:
            most = min(len(batch.keys) - 1, channels)
            value = monitors[f"{FIXED}/{batch.stream}/{ENCODER}.rank_me"]
            if len(batch.keys) >= MIN_SAMPLES and value < FLOOR * most:
                low.append(f"{value:.1f} of at most {most} dimensions ({batch.stream})")
        return describe_collapse(low) if low else ""


def describe_collapse(low: Sequence[str]) -> str:
    """Describe a collapse, and what to try.

    Args:
        low: how few dimensions there are, in each stream that has too few.

    Returns:
        One sentence, without its full stop.
    """
    return (
        f"the encoder's features of a fixed batch collapse: by RankMe they vary in {' and '.join(low)}, and below {FLOOR:.0%} "
        "of these they tell little apart; try a lower learning rate (--set optimizer.lr=...), a longer warm-up "
        "(optimizer.warmup_steps) or more samples a step (global_batch)"
    )


@torch.no_grad()
def embed(state: TrainState, batch: Batch, execution: Execution) -> dict[str, list[Tensor]]:
    """Compute features and projections of a batch as in a step, and leave buffers and random generators as they were.

    Args:
        state: holds the method, in training mode.
        batch: of a stream.
        execution: settings of the step.

    Returns:
        See :meth:`.Method.embed`.
    """
    buffers = {name: buffer.clone() for name, buffer in state.method.named_buffers()}
    devices = [state.device] if state.device.type == "cuda" else []
    with torch.random.fork_rng(devices), autocast(execution, state.device):
        found = state.method.embed(batch.to(state.device))
    for name, buffer in state.method.named_buffers():
        buffer.copy_(buffers[name])
    return found


def measure_views(views: Sequence[Tensor]) -> dict[str, Tensor]:
    """Measure features of one or two views of each sample.

    Args:
        views: (B, C) each.

    Returns:
        ``dimensions`` and ``rank_me`` of the first view; with a second one, also ``uniformity`` of the first, and ``alignment``.
    """
    one, *others = (view.float().cpu() for view in views)
    found = {"dimensions": dimensions(one), "rank_me": rank_me(one)}
    return found | {"alignment": alignment(one, others[0]), "uniformity": uniformity(one)} if others else found
