"""What a run of the demo learned, in one line, from the figures that ``evaluate`` wrote."""

from __future__ import annotations

import json
from pathlib import Path

#: Every probe is shown, whichever way it points: none is chosen by its figures.
PROBES = {"knn": "k-NN", "linear": "linear"}


def describe_learned(run: Path, dataset: str) -> str:
    """The probes of one dataset beside those of untrained networks.

    Args:
        run: folder of an evaluated run.
        dataset: name of the dataset whose figures are shown.

    Returns:
        Number of samples, and of each probe encoder, untrained networks, difference and verdict.

    Raises:
        LookupError: if the evaluation has no probe of that dataset.
    """
    document = json.loads((run / "evaluation.json").read_text())
    results = [result for result in document["results"] if result["dataset"] == dataset]
    if not results:
        raise LookupError(f"{run / 'evaluation.json'} has no probe of {dataset}; evaluate the run on it")
    probes = (
        f"{PROBES[one['probe']]} probe {one['trained']:.3f} ± {one['trained_spread']:.3f}, "
        f"untrained networks {one['untrained']:.3f} ± {one['untrained_spread']:.3f}, "
        f"difference {one['difference']:+.3f} ± {one['spread']:.3f}, {one['verdict']}"
        for one in results
    )
    return f"{results[0]['num_samples']} unseen radiographs, {'; '.join(probes)}"
