"""The figures of an evaluation by name and step, as trackers take them, TensorBoard among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.page.pictures import Gallery
from crossdim.training.evaluation.restoring import RestorationResult
from crossdim.training.run_dir.boards import write_evaluation_board
from crossdim.training.show.evaluation import CheckpointResult, ProbeResult
from crossdim.training.trackers.tracking import send_evaluation


def list_figures(results: Sequence[ProbeResult], restored: Sequence[RestorationResult]) -> dict[str, float]:
    """List the figures of one checkpoint.

    Args:
        results: of its probes.
        restored: of its reconstructions.

    Returns:
        Balanced accuracies of the encoder and of untrained ones, and means of measures over volumes, by name.
    """
    probes = {
        f"probes/{one.dataset}/{one.probe}/{who}": value
        for one in results
        for who, value in (("trained", one.trained), ("untrained", one.untrained))
    }
    return probes | {f"restored/{one.dataset}/{figure.label}": figure.mean for one in restored for figure in one.figures}


def publish_figures(
    run: Bucket,
    config: Mapping[str, Any],
    step: int,
    figures: Mapping[str, float],
    of_checkpoints: Sequence[CheckpointResult],
    verdict: str,
    galleries: Sequence[Gallery],
) -> None:
    """Give an evaluation to TensorBoard and to the trackers of the run; pictures of samples only to TensorBoard.

    Args:
        run: its folder.
        config: document of its configuration.
        step: number of steps done.
        figures: of this step.
        of_checkpoints: probes of earlier checkpoints.
        verdict: a sentence.
        galleries: pictures.
    """
    earlier: dict[int, list[ProbeResult]] = defaultdict(list)
    for one in of_checkpoints:
        if one.step != step:
            earlier[one.step].append(one.result)
    texts = {"verdict": verdict}
    for number, results in earlier.items():
        write_evaluation_board(run, number, list_figures(results, ()), {}, ())
    write_evaluation_board(run, step, figures, texts, galleries)
    steps = [*((number, list_figures(results, ())) for number, results in sorted(earlier.items())), (step, figures)]
    send_evaluation(run, config, steps, texts, finished=step == config["steps"])
