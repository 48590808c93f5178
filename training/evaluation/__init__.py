"""Evaluation: probes of a run's encoder beside untrained baselines, reconstruction figures, and a report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.counts import count
from crossdim.foundation.location import hide_secrets
from crossdim.foundation.output import check_outside
from crossdim.foundation.page.pictures import Gallery
from crossdim.foundation.progress import track
from crossdim.foundation.provenance import format_time, record_provenance
from crossdim.storage_schema.errors import RunError, UsageError
from crossdim.training.chosen_steps import ChosenSteps
from crossdim.training.data.dataset import PublishedDataset, open_dataset, tell_apart
from crossdim.training.evaluation.checkpoint_probes import (
    build_document,
    choose_checkpoints,
    format_checkpoint_results,
    probe_checkpoints,
    write_checkpoint_results,
)
from crossdim.training.evaluation.dataset_notes import (
    describe_folds,
    describe_left_out,
    describe_preparation,
    describe_trained,
    describe_unprobed,
    describe_version,
)
from crossdim.training.evaluation.evaluated_run import EvaluatedRun, read_sources
from crossdim.training.evaluation.features import compute_features, read_labelled
from crossdim.training.evaluation.figures import list_figures, publish_figures
from crossdim.training.evaluation.networks import build_untrained, load_trained
from crossdim.training.evaluation.probes import ProbeComparison
from crossdim.training.evaluation.restoring import RestorationResult, evaluate_restoration
from crossdim.training.methods.base import Method
from crossdim.training.pictures.galleries import build_galleries
from crossdim.training.run_dir.layout import EVALUATION, PICTURES, REPORT
from crossdim.training.run_dir.metrics import describe_damage, read_log
from crossdim.training.run_dir.output_check import check_run_folder
from crossdim.training.run_dir.picture_log import write_galleries
from crossdim.training.show.evaluation import CheckpointResult, ProbeResult
from crossdim.training.show.facts import read_facts
from crossdim.training.show.findings import describe_verdict
from crossdim.training.show.page import write_pages
from crossdim.training.split_choice import AUTO, SplitChoice

#: Seeds of untrained baselines start here, far from the seeds of runs.
BASELINE_SEED = 1_000_003
#: Distributions that decide the figures.
PACKAGES = ("torch", "numpy", "scikit-learn")
REMEDY = "name the --out of a pretrain command"


@dataclass(kw_only=True)
class Findings:
    """Results of an evaluation, collected over its datasets."""

    datasets: list[dict[str, str]] = field(default_factory=list)
    results: list[ProbeResult] = field(default_factory=list)
    of_checkpoints: list[CheckpointResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shown: list[Gallery] = field(default_factory=list)
    restored: list[RestorationResult] = field(default_factory=list)


def _evaluate_dataset(
    dataset: PublishedDataset, evaluated: EvaluatedRun, baselines: Sequence[Method], folds: int, findings: Findings
) -> None:
    """Draw pictures of one dataset, reconstruct its volumes if the method can, and probe it if it has labels."""
    config, method = evaluated.config, evaluated.method
    place = {"name": dataset.name, "url": hide_secrets(dataset.bucket.url), "manifest": dataset.manifest.digest}
    findings.datasets.append(place)
    findings.notes += filter(None, [describe_preparation(dataset, evaluated), describe_version(dataset, evaluated)])
    findings.shown += build_galleries(dataset, config.method, method)
    restoration = evaluate_restoration(dataset.name, dataset, config.method, method)
    findings.restored += [restoration] if restoration else []
    split = evaluated.choose_split(dataset)
    probed = dataset.select(split) if split else dataset
    findings.notes += filter(None, [describe_left_out(probed)])
    data = read_labelled(probed, config.method)
    if data is None:
        findings.notes.append(describe_unprobed(probed, split, evaluated))
        return
    findings.notes += filter(None, [describe_trained(data, evaluated, dataset), describe_folds(data, folds)])
    comparison = ProbeComparison(data, [compute_features(other.encoder, data.x_NC) for other in baselines], folds)
    results = comparison.compare(compute_features(method.encoder, data.x_NC))
    findings.results += results
    earlier = [step for step in evaluated.checkpoints if step != evaluated.step]
    findings.of_checkpoints += probe_checkpoints(evaluated.run, config, earlier, comparison, findings.notes)
    if evaluated.step in evaluated.checkpoints:
        findings.of_checkpoints += [CheckpointResult(step=evaluated.step, result=result) for result in results]


def evaluate(
    run: Bucket,
    datasets: Sequence[Bucket],
    *,
    folds: int,
    baselines: int,
    quiet: bool,
    checkpoints: ChosenSteps | Literal["all"] | None = None,
    versions: Mapping[str, int] | None = None,
    split: SplitChoice = AUTO,
) -> tuple[dict[str, Any], str]:
    """Probe a run's newest encoder and write its report.

    Args:
        run: folder of the run.
        datasets: published datasets; those with labels of two classes are probed, all are shown in the report.
        folds: of the cross-validation.
        baselines: number of untrained encoders to compare with.
        quiet: no progress bar.
        checkpoints: those that are probed as well, for curves over steps; None for none.
        versions: of datasets by URL; the newest of others.
        split: whose samples are probed, see :mod:`crossdim.training.split_choice`.

    Returns:
        The results as plain values, and as lines for people.

    Raises:
        UsageError: if the folder does not exist, holds other files and no run, or a checkpoint is not kept.
        RunError: if the run has no checkpoint, or there is no figure that could replace those of its report.
    """
    provenance = record_provenance(PACKAGES)
    check_outside(run, datasets, "RUN")
    if not run.exists():
        raise UsageError(f"{run.where('')} does not exist; {REMEDY}")
    check_run_folder(run, "RUN", remedy=REMEDY)
    run.check_writable()  # for the report
    config, method, identity, step = load_trained(run)
    evaluated = EvaluatedRun(
        run=run,
        config=config,
        method=method,
        step=step,
        checkpoints=choose_checkpoints(run, checkpoints, config.steps) if checkpoints else [],
        split=split,
        datasets=identity["datasets"],
        sources=read_sources(run),
    )
    others = [build_untrained(config, BASELINE_SEED + i) for i in range(baselines)]
    findings = Findings()
    if step < config.steps:
        findings.notes.append(f"The run was not finished: these figures are of step {step} of {config.steps}.")
    opened = tell_apart([open_dataset(one, split=None, version=(versions or {}).get(one.url)) for one in datasets])
    for dataset in track("evaluate", "dataset", opened, quiet=quiet):
        _evaluate_dataset(dataset, evaluated, others, folds, findings)
    _, damaged = read_log(run)
    findings.notes += [describe_damage(run, damaged)] if damaged else []
    before = _figures(run)
    if not findings.results and not findings.restored and before:
        raise RunError(f"{' '.join(findings.notes)} So {run.where(REPORT)}, which has {before}, is left as it is")
    document = _build_document(evaluated, findings, baselines) | {"provenance": provenance | {"ended": format_time()}}
    document |= _write_results(evaluated, findings, baselines, document, identity)
    return document, "\n".join(_list_lines(run, findings, before))


def _build_document(evaluated: EvaluatedRun, findings: Findings, baselines: int) -> dict[str, Any]:
    """The results as plain values."""
    run, config = evaluated.run, evaluated.config
    return {
        "out": hide_secrets(run.url),
        "recipe": config.method.kind,
        "step": evaluated.step,
        "steps": config.steps,
        "global_batch": config.global_batch,
        "seed": config.seed,
        "datasets": list(evaluated.datasets),
        "baselines": baselines,
        "split": evaluated.split,
        "evaluated": findings.datasets,
        "results": [asdict(r) | {"verdict": r.verdict} for r in findings.results],
        "restored": [restoration.document() for restoration in findings.restored],
        "notes": findings.notes,
        "report": run.where(REPORT),
    }


def _write_results(
    evaluated: EvaluatedRun, findings: Findings, baselines: int, document: dict[str, Any], identity: dict[str, Any]
) -> dict[str, Any]:
    """Write results, pictures, report and card, and send figures to trackers; returns what is known of checkpoints."""
    run, of_checkpoints = evaluated.run, {}
    run.put(EVALUATION, json.dumps(document, sort_keys=True, indent=1).encode())
    write_galleries(run, PICTURES, findings.shown)
    if findings.of_checkpoints:
        probes = build_document(findings.of_checkpoints, baselines)
        write_checkpoint_results(run, probes)
        of_checkpoints = {"checkpoints": probes["results"]}
    facts = read_facts(run, time.time(), identity)
    figures, verdict = list_figures(findings.results, findings.restored), describe_verdict(facts)
    config = evaluated.config.document()
    publish_figures(run, config, evaluated.step, figures, findings.of_checkpoints, verdict, findings.shown)
    write_pages(run, facts)
    return of_checkpoints


def _list_lines(run: Bucket, findings: Findings, before: str | None) -> list[str]:
    """The results for people."""
    lines = [*map(_line, findings.results), *(line for restoration in findings.restored for line in restoration.lines)]
    lines += format_checkpoint_results(findings.of_checkpoints)
    replaced = [f"these replace the {before} of the report"] * bool(before)
    return [*lines, *findings.notes, *replaced, f"report: {run.where(REPORT)}"]


def _figures(run: Bucket) -> str | None:
    """What an existing report has figures of; None if there is no report, or none that can be read."""
    if not run.exists(EVALUATION):
        return None
    try:
        document = json.loads(run.read(EVALUATION))
        results, others = document["results"], document["restored"]
        places = [str(one["url"]) for one in document.get("evaluated", [])]
        names = places or sorted({str(result["dataset"]) for result in results})
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if not results and not others:
        return None
    return f"figures of {', '.join(names)}" if names else "figures"


def _line(result: ProbeResult) -> str:
    counts = f"{count(result.num_samples, 'sample')} of {result.patients}"
    who = f"{result.dataset} ({result.presentation}), {result.probe}, {counts}"
    ours = f"{result.trained:.3f} ± {result.trained_spread:.3f}"
    theirs = f"untrained {result.untrained:.3f} ± {result.untrained_spread:.3f}"
    return f"{who}: {ours}, {theirs}; {result.verdict}"
