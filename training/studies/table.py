"""The table of a study in Markdown: one row per arm, mean and standard deviation over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from crossdim.training.studies.base import Score
from crossdim.training.studies.run_summary import RunSummary


def render_study(title: str, arms: Sequence[str], courses: Mapping[str, Sequence[RunSummary]], scores: Sequence[Score]) -> str:
    """Render a study as two tables: the scores, and how the runs went.

    Args:
        title: of the study.
        arms: names, in order.
        courses: summaries of the runs of each trained arm, one for each seed.
        scores: of all arms and seeds.

    Returns:
        Markdown.
    """
    seeds = len({score.seed for score in scores})
    over = f"Mean ± standard deviation (n - 1) over {seeds} seeds" if seeds > 1 else "One seed, so without a spread"
    columns = sorted({(score.dataset, score.measure) for score in scores})
    probed = [
        [arm, *(_mean([s.value for s in scores if (s.arm, s.dataset, s.measure) == (arm, *column)], 3) for column in columns)]
        for arm in arms
    ]
    went = [[arm, *_row(courses[arm])] for arm in arms if arm in courses]
    heads = ["arm", *(f"{dataset}, {measure}" for dataset, measure in columns)]
    return "\n".join(
        [
            f"## {title}",
            "",
            f"{over}; probes in balanced accuracy of frozen features, same folds for all.",
            "",
            *_table(heads, probed),
            "",
            "Losses of different arms are not comparable. Evenness of projections near 0 is collapse to a point. What follows it",
            "is of the encoder's features of a fixed batch at the last measurement, of the worst stream: a low RankMe, few",
            "dimensions (1 is a line) and a uniformity near 0 are collapse; alignment is the squared distance of two views of a",
            "sample.",
            "",
            *_table(
                [
                    "arm",
                    "steps",
                    "samples",
                    "voxels a step",
                    "loss, first tenth",
                    "last tenth",
                    "least evenness",
                    "RankMe",
                    "dimensions",
                    "alignment",
                    "uniformity",
                    "s a step",
                    "wait",
                ],
                went,
            ),
            "",
        ]
    )


def _row(runs: Sequence[RunSummary]) -> list[str]:
    return [
        str(runs[0].steps),
        str(runs[0].samples),
        f"{runs[0].voxels:,}",
        _mean([run.loss_first for run in runs], 3),
        _mean([run.loss_last for run in runs], 3),
        _mean([run.evenness for run in runs], 2),
        _mean([run.rank_me for run in runs], 1),
        _mean([run.dimensions for run in runs], 1),
        _mean([run.alignment for run in runs], 2),
        _mean([run.uniformity for run in runs], 2),
        _mean([run.seconds / run.steps for run in runs], 2),
        f"{np.mean([run.wait_share for run in runs]):.1%}",
    ]


def _mean(values: Sequence[float], digits: int) -> str:
    """Mean, and deviation of several; "none" for a measure that an arm does not have, such as a masked error without masks."""
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return "none"
    spread = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{spread}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows)]
