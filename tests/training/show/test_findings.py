"""The first sentence of a page says what the figures say, and warnings come where they are due and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from crossdim.training.run_dir.records import Record
from crossdim.training.run_dir.run_config import RunConfig
from crossdim.training.run_dir.status import Status
from crossdim.training.show.curves import (
    MAX_POINTS,
    average_points,
    count_mix,
    draw_curves,
    draw_probe_curves,
    group_monitors,
    name_monitor,
)
from crossdim.training.show.evaluation import Evaluation, parse_checkpoint_results, parse_evaluation
from crossdim.training.show.facts import RunFacts
from crossdim.training.show.findings import describe_verdict, find_warnings


def result(difference: float, spread: float = 0.05) -> dict[str, Any]:
    words = {"dataset": "d", "presentation": "image", "probe": "knn", "verdict": "v"}
    counts = {"num_samples": 800, "num_patients": 400, "num_classes": 2, "num_folds": 5}
    figures = {"trained": 0.6 + difference, "trained_spread": 0.03, "untrained": 0.6, "untrained_spread": 0.04}
    return words | counts | figures | {"difference": difference, "spread": spread}


def record(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "loss": 1.0 / (step + 1),
        "terms": {"a": 1.0},
        "monitors": {} if step % 10 else {"fixed/s/encoder.rank_me": 20.0, "fixed/s/encoder.dimensions": 8.0},
        "lr": 0.1,
        "grad_norm": 1.0,
        "counts": {"pseudo3d": 2, "superpatch": 6},
        "step_s": 0.5,
        "wait_s": 0.1,
        "skew_s": 0.0,
    }


def facts(evaluation: Evaluation | None = None, damaged: int = 0, events: Sequence[Record] = (), **status: Any) -> RunFacts:
    return RunFacts(
        status=Status(run="/r", state="done", steps=30, events={}, notable_events=[], **{"step": 30} | status),
        config=RunConfig(identity={"config": {}}),
        metrics=[record(step) for step in range(30)],
        damaged=damaged,
        events=events,
        evaluation=evaluation,
        galleries=[],
    )


@pytest.mark.parametrize(("patients", "sign"), [(400, 1), (16, 0), (25, 0), (30, 1)])
def test_few_patients_show_no_difference_however_well_folds_agree(patients: int, sign: int) -> None:
    """0.1 is 0.5 / sqrt(25): with more patients than that it is above the sampling error."""
    [found] = parse_evaluation({"results": [result(0.1, 0.01) | {"num_patients": patients}]}).results
    assert found.sign == sign
    text = f"inside the sampling error of {patients} patients (up to {0.5 / patients**0.5:.3f}): no difference shown"
    assert found.verdict == ("above the untrained baselines" if sign else text)


def test_two_that_only_guess_are_not_told_apart() -> None:
    """Of 13 classes, 0.064 is below chance, however far it is above 0."""
    counts = {"num_classes": 13, "num_patients": 400, "trained": 0.064, "untrained": 0.0}
    [found] = parse_evaluation({"results": [result(0.064, 0.01) | counts]}).results
    assert found.sign == 0
    assert found.verdict == "no better than chance, 0.077, and nor are untrained baselines: no difference shown"


def test_the_sampling_error_bounds_the_deviation_of_a_balanced_accuracy() -> None:
    """20,000 draws of 50 answers to each of two classes, at the accuracy where they vary most and at another."""
    rng = np.random.default_rng(0)
    [found] = parse_evaluation({"results": [result(0.1) | {"num_patients": 100}]}).results
    worst, other = (rng.binomial(50, p, (20_000, 2)).mean(axis=1).std() / 50 for p in (0.5, 0.9))
    assert worst == pytest.approx(found.sampling_error, rel=0.02)
    assert other < found.sampling_error


@pytest.mark.parametrize(
    ("differences", "sentence"),
    [
        ([0.2, 0.1, 0.06, 0.3], "Better than an untrained network on 4 of 4 probes."),
        ([0.2, 0.01], "Better than an untrained network on 1 of 2 probes, no difference on 1."),
        ([0.2, -0.2, 0.0], "Better than an untrained network on 1 of 3 probes, worse on 1, no difference on 1."),
        ([-0.2, -0.01], "Worse than an untrained network on 1 of 2 probes, no difference on 1."),
        ([0.01, -0.05], "No better than an untrained network: on 2 of 2 probes no difference is shown."),
        ([0.2], "Better than an untrained network on 1 of 1 probe."),
    ],
)
def test_the_verdict_counts_probes_by_difference_and_spread(differences: list[float], sentence: str) -> None:
    evaluation = parse_evaluation({"results": [result(difference) for difference in differences]})
    assert describe_verdict(facts(evaluation)) == sentence


def test_what_is_not_known_is_not_called_better() -> None:
    assert describe_verdict(facts()).startswith("It has not been evaluated.")
    assert describe_verdict(facts(Evaluation())).startswith("It was evaluated, and no dataset could be probed.")


def test_collapsed_features_are_warned_of_and_others_are_not() -> None:
    assert find_warnings(facts(events=[{"kind": "start", "step": 0, "text": ""}])) == []
    collapses = [{"kind": "collapse", "step": step, "text": f"features collapse to {step}"} for step in (50, 150)]
    assert find_warnings(facts(events=collapses)) == ["at step 150 features collapse to 150"]


def test_waiting_and_lost_steps_are_warned_of() -> None:
    found = find_warnings(facts(wait_share=0.3, skew_share=0.2, damaged=4))
    assert [warning.split()[0] for warning in found] == ["30%", "20%", "4"]
    assert find_warnings(facts(wait_share=0.05, skew_share=0.0)) == []


@pytest.mark.parametrize(
    "change",
    [{"trained": "high"}, {"num_classes": 0}, {"spread": None}, {"difference": []}],
)
def test_a_result_that_is_damaged_is_left_out(change: dict[str, Any]) -> None:
    parsed = parse_evaluation({"results": [result(0.2), result(0.2) | change, 7, None], "notes": 3, "restored": [{}, 1]})
    assert len(parsed.results) == 1
    assert parsed.notes == []
    assert parsed.reconstructions == []


def test_a_long_line_is_averaged_and_a_short_one_is_left_alone() -> None:
    x = np.arange(10_000, dtype=np.float64)
    means, values = average_points(x, np.sin(x / 1000))
    assert len(means) == MAX_POINTS
    assert np.abs(values - np.sin(means / 1000)).max() < 1e-3
    y = np.array([1.0, np.nan, 3.0])
    kept = average_points(np.arange(3.0), y)
    np.testing.assert_array_equal(kept, [[0, 2], [1, 3]])


def test_the_mix_is_counted() -> None:
    assert count_mix(facts().metrics) == [("pseudo3d", 60, 0.25), ("superpatch", 180, 0.75)]


def test_curves_mark_what_happened() -> None:
    lost = {"kind": "lost", "step": 7, "text": "worker 1 died", "workers": 2}
    starts = [{"kind": "start", "step": 0, "workers": 2}, {"kind": "resume", "step": 7, "workers": 1}]
    charts = {title: chart for title, _, chart in draw_curves(facts().metrics, [starts[0], lost, starts[1]])}
    assert {"Loss", "Terms", "RankMe", "Effective dimensions", "Time", "Workers"} <= set(charts)
    assert "step 7: lost, worker 1 died" in charts["Loss"].svg
    assert draw_curves(facts().metrics[:1], []) == []


def test_monitors_are_grouped_by_what_they_measure_whatever_they_are() -> None:
    names = (
        "s/evenness0",
        "s/evenness1",
        "p/evenness0",
        "fixed/s/encoder.rank_me",
        "fixed/s/z0.rank_me",
        "s/psnr_masked",
        "s/lost",
    )
    metrics = [record(step) | {"monitors": dict.fromkeys(names, 4.0) | {"s/lost": float("nan")}} for step in range(3)]
    assert group_monitors(metrics) == {
        "rank_me": ["fixed/s/encoder.rank_me", "fixed/s/z0.rank_me"],
        "evenness": ["p/evenness0", "s/evenness0", "s/evenness1"],
        "psnr_masked": ["s/psnr_masked"],
    }
    titles = [title for title, _, _ in draw_curves(metrics, [])]
    assert titles[2:5] == ["RankMe", "Evenness", "PSNR of hidden patches, dB"]


def test_probe_curves_have_the_untrained_networks_beside() -> None:
    """The dashed line is at their mean, the band as high as twice their deviation, in the units of the axis."""
    rows = [result(difference) | {"step": step} for step, difference in ((100, 0.2), (50, 0.1))]
    (title, about, chart), *others = draw_probe_curves(parse_checkpoint_results({"results": [*rows, {"step": 3}]}))
    assert (title, about, others) == ("d, knn", "image, 800 samples of 400 patients", [])
    level = re.search(r'class="level"[^>]* d="M64 ([\d.]+)H', chart.svg)
    band = re.search(r'class="band"[^>]* y="([\d.]+)"[^>]* height="([\d.]+)"', chart.svg)
    points = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', chart.svg)]
    assert level
    assert band
    per_unit = (points[0][1] - points[1][1]) / 0.1  # of 0.7 and 0.8
    assert points[0][1] - float(level[1]) == pytest.approx(-0.1 * per_unit, abs=0.2)
    assert float(band[2]) == pytest.approx(2 * 0.04 * per_unit, abs=0.2)
    assert points[0][0] < points[1][0]


def test_figures_of_an_earlier_step_are_told_apart_from_the_run() -> None:
    older = parse_evaluation({"results": [result(0.3)], "step": 14})
    assert describe_verdict(facts(older, step=30)).startswith("At step 14: Better than an untrained network")
    assert "probes and reconstructions are of step 14; the run is at step 30: evaluate it again" in find_warnings(
        facts(older, step=30)
    )
    for same in (parse_evaluation({"results": [result(0.3)], "step": 30}), parse_evaluation({"results": [result(0.3)]})):
        assert describe_verdict(facts(same, step=30)).startswith("Better than an untrained network")
        assert not any("evaluate it again" in warning for warning in find_warnings(facts(same, step=30)))


@pytest.mark.parametrize(
    "damage", [{"num_samples": float("inf")}, {"num_patients": 10**400}, {"trained": 10**400}, {"num_folds": -1}]
)
def test_numbers_that_no_evaluation_has_are_left_out(damage: dict[str, Any]) -> None:
    assert (
        parse_evaluation({"results": [result(0.1) | damage, result(0.1)]}).results
        == parse_evaluation({"results": [result(0.1)]}).results
    )


@pytest.mark.parametrize(
    ("logged", "named"),
    [
        ("fixed/superpatch/z2.rank_me", "superpatch, projection 2"),
        ("fixed/pseudo3d/encoder.dimensions", "pseudo3d, encoder"),
        ("fixed/pseudo3d/z.rank_me", "pseudo3d, projection"),
        ("pseudo3d/evenness0", "pseudo3d, projection 0"),
        ("superpatch/accuracy", "superpatch"),
        ("loss_scale", "loss_scale"),
    ],
)
def test_monitors_are_named_in_words(logged: str, named: str) -> None:
    assert name_monitor(logged) == named
