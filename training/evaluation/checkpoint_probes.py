"""Probes of the checkpoints that a run kept: whether more steps helped, and whether more would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.digest import canonical_json
from crossdim.storage_schema.errors import StorageError, UsageError
from crossdim.training.chosen_steps import ALL, ChosenSteps
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.evaluation.features import compute_features
from crossdim.training.evaluation.networks import load_at_step
from crossdim.training.evaluation.probes import ProbeComparison
from crossdim.training.run_dir.checkpoint_listing import complete_names
from crossdim.training.run_dir.layout import CHECKPOINT_PROBES, CHECKPOINTS, checkpoint_name, checkpoint_step
from crossdim.training.show.evaluation import CheckpointResult, group_by_probe


def choose_checkpoints(run: Bucket, chosen: ChosenSteps | Literal["all"], steps: int) -> list[int]:
    """Choose checkpoints of a run.

    Args:
        run: its folder.
        chosen: their steps, or all that are kept.
        steps: of the whole run.

    Returns:
        Their steps, in order.

    Raises:
        UsageError: if one of them is not kept, naming those that are.
    """
    kept = [checkpoint_step(name) for name in complete_names(run)]
    wanted = kept if chosen == ALL else list(chosen.resolve(steps, "--checkpoints"))
    if gone := [step for step in wanted if step not in kept]:
        raise UsageError(
            f"--checkpoints: {run.where(CHECKPOINTS)} keeps {', '.join(map(str, kept))}, and not {', '.join(map(str, gone))}; "
            "name some of these, or all; pretrain --keep-at says which stay"
        )
    return wanted


def probe_checkpoints(
    run: Bucket, config: Pretraining, steps: Sequence[int], comparison: ProbeComparison, notes: list[str]
) -> list[CheckpointResult]:
    """Probe several checkpoints on one dataset, beside the same untrained networks over the same folds.

    Args:
        run: folder of the run.
        config: of the run.
        steps: of the checkpoints.
        comparison: the dataset, with the scores of the untrained networks.
        notes: a sentence is added for each checkpoint that cannot be read, once.

    Returns:
        A result for each checkpoint and probe.
    """
    found = []
    for step in steps:
        try:
            method = load_at_step(run, config, step)
        except StorageError as error:
            note = f"{checkpoint_name(step)} cannot be read and was left out: {error}."
            notes += [note] if note not in notes else []
            continue
        results = comparison.compare(compute_features(method.encoder, comparison.data.x_NC))
        found += [CheckpointResult(step=step, result=result) for result in results]
    return found


def build_document(results: Sequence[CheckpointResult], baselines: int) -> dict[str, Any]:
    """Results as JSON values, which :func:`.show.evaluation.parse_checkpoint_results` reads.

    Args:
        results: of all datasets.
        baselines: number of untrained networks.

    Returns:
        The document.
    """
    return {"baselines": baselines, "results": [asdict(one.result) | {"step": one.step} for one in results]}


def write_checkpoint_results(run: Bucket, document: dict[str, Any]) -> None:
    """Write results of checkpoints, for pages that are built later.

    Args:
        run: its folder.
        document: of :func:`build_document`.
    """
    run.put(CHECKPOINT_PROBES, canonical_json(document))


def format_checkpoint_results(results: Sequence[CheckpointResult]) -> list[str]:
    """Format results as tables, one for each dataset and probe.

    Args:
        results: of all datasets.

    Returns:
        Lines for people.
    """
    lines = []
    for rows in group_by_probe(results).values():
        first = rows[0].result
        lines.append(f"{first.dataset} ({first.presentation}), {first.probe}, balanced accuracy by steps:")
        lines.append(f"  {'untrained':>9}  {first.untrained:.3f} ± {first.untrained_spread:.3f}")
        lines += [
            f"  {one.step:>9}  {one.result.trained:.3f} ± {one.result.trained_spread:.3f}  "
            f"{one.result.difference:+.3f} ± {one.result.spread:.3f}  {one.result.verdict}"
            for one in rows
        ]
    return lines
