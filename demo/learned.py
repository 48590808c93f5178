"""What a run of the demo learned, in one line, from the figures that ``evaluate`` wrote."""

from __future__ import annotations

import json
from pathlib import Path

#: Chosen before the figures are seen, and shown whichever way they point.
PROBE = "linear"


def describe_learned(run: Path, dataset: str) -> str:
    """The linear probe of one dataset, whichever way it points.

    Args:
        run: folder of an evaluated run.
        dataset: name of the dataset whose figures are shown.

    Returns:
        Probe, number of samples, encoder, untrained networks, difference and verdict.

    Raises:
        LookupError: if the evaluation has no linear probe of that dataset.
    """
    results = json.loads((run / "evaluation.json").read_text())["results"]
    shown = [result for result in results if (result["dataset"], result["probe"]) == (dataset, PROBE)]
    if not shown:
        raise LookupError(f"{run / 'evaluation.json'} has no {PROBE} probe of {dataset}; evaluate the run on it")
    [one] = shown
    figures = f"{one['trained']:.3f} ± {one['trained_spread']:.3f}"
    untrained = f"untrained networks {one['untrained']:.3f} ± {one['untrained_spread']:.3f}"
    difference = f"difference {one['difference']:+.3f} ± {one['spread']:.3f}, {one['verdict']}"
    return f"{PROBE} probe on {one['num_samples']} unseen radiographs: {figures}, {untrained}; {difference}"
