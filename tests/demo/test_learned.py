"""The last lines of the demo say what the evaluation found, whichever way it points."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from crossdim.training.run_dir.layout import EVALUATION
from crossdim.training.show.evaluation import ProbeResult
from demo.learned import describe_learned


def write_run(folder: Path, *results: ProbeResult) -> Path:
    """The part of ``evaluate``'s document that is read."""
    document = {"results": [asdict(result) | {"verdict": result.verdict} for result in results]}
    (folder / EVALUATION).write_text(json.dumps(document))
    return folder


def result(dataset: str, probe: str, difference: float) -> ProbeResult:
    return ProbeResult(
        dataset=dataset,
        presentation="pseudo3d",
        probe=probe,
        num_samples=621,
        num_patients=621,
        num_classes=2,
        num_folds=15,
        trained=0.8 + difference,
        trained_spread=0.011,
        untrained=0.8,
        untrained_spread=0.022,
        difference=difference,
        spread=0.033,
    )


def test_probe_encoder_untrained_spread_and_number_are_said(tmp_path: Path) -> None:
    run = write_run(tmp_path, result("b", "linear", 0.2), result("a", "knn", -0.1), result("a", "linear", 0.05))
    assert describe_learned(run, "a") == (
        "621 unseen radiographs, "
        "k-NN probe 0.700 ± 0.011, untrained networks 0.800 ± 0.022, difference -0.100 ± 0.033, below the untrained baselines; "
        "linear probe 0.850 ± 0.011, untrained networks 0.800 ± 0.022, difference +0.050 ± 0.033, above the untrained baselines"
    )


def test_what_was_not_learned_is_said_too(tmp_path: Path) -> None:
    run = write_run(tmp_path, result("a", "linear", 0.03))
    assert describe_learned(run, "a").endswith("difference +0.030 ± 0.033, inside the spread: no difference shown")


def test_a_missing_probe_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, result("b", "linear", 0.1))
    with pytest.raises(LookupError, match="no probe of a"):
        describe_learned(run, "a")
