"""What the run of the demo learned, in two lines, from the figures that ``evaluate`` wrote."""

from __future__ import annotations

import json
from pathlib import Path

#: Chosen before the figures are seen, and shown whichever way they point.
PROBE = "linear"


def describe_learned(run: Path, dataset: str) -> str:
    """The linear probe of one dataset, and how many probes of all datasets differ from untrained networks.

    Args:
        run: folder of an evaluated run.
        dataset: name of the dataset whose figures are shown.

    Returns:
        Two lines.

    Raises:
        LookupError: if the evaluation has no linear probe of that dataset.
    """
    results = json.loads((run / "evaluation.json").read_text())["results"]
    shown = [result for result in results if (result["dataset"], result["probe"]) == (dataset, PROBE)]
    if not shown:
        raise LookupError(f"{run / 'evaluation.json'} has no {PROBE} probe of {dataset}; evaluate the run on it")
    [one] = shown
    above, below = (sum(result["verdict"].startswith(word) for result in results) for word in ("above", "below"))
    figures = f"{one['trained']:.3f} ± {one['trained_spread']:.3f} with this encoder"
    untrained = f"{one['untrained']:.3f} ± {one['untrained_spread']:.3f} with untrained networks"
    difference = f"difference {one['difference']:+.3f} ± {one['spread']:.3f}"
    return (
        f"learned: balanced accuracy of a {PROBE} probe on {one['num_samples']} radiographs that pretraining did not see: "
        f"{figures}, {untrained}; {difference}, {one['verdict']}\n"
        f"of all {len(results)} probes {above} above untrained networks by more than the spread, {below} below"
    )
