"""Runs a study: every arm with every seed is an ordinary run in its own folder; the same command resumes an interrupted study."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from crossdim.foundation import signals
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.output import check_output, check_outside
from crossdim.foundation.progress import track
from crossdim.foundation.provenance import format_time
from crossdim.storage_schema.errors import RunError, UsageError
from crossdim.training.chosen_steps import ChosenSteps
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.dataset import PublishedDataset
from crossdim.training.evaluation.features import compute_features, read_labelled
from crossdim.training.evaluation.networks import build_untrained, load_trained
from crossdim.training.evaluation.probes import classifiers, compute_scores, split_folds
from crossdim.training.evaluation.restoring import evaluate_restoration
from crossdim.training.evaluation.weak import weak_scores
from crossdim.training.launch.driver import pretrain
from crossdim.training.launch.worker import Source
from crossdim.training.launch.workers import Workers
from crossdim.training.methods.base import Method
from crossdim.training.recipes.provenance import record_run
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.layout import CONFIG
from crossdim.training.run_dir.metrics import read_metrics
from crossdim.training.run_dir.output_check import is_hidden
from crossdim.training.studies.base import Arm, DataSubset, Score, Study
from crossdim.training.studies.run_summary import RunSummary, summarise_run
from crossdim.training.studies.table import render_study

#: Configuration of one of a study's runs, which is the first file that a study writes.
_OF_A_STUDY = re.compile(rf"[^/]+/seed-\d+/{re.escape(CONFIG)}\Z")
#: Checkpoints of each run that stay, so that crossdim evaluate RUN --checkpoints all shows whether more steps would help.
KEPT = ChosenSteps(percents=(25, 50, 100))


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """Data, output and size of a study.

    Attributes:
        sources: datasets to train on.
        eval_sources: further datasets, only to evaluate on.
        out: folder of the study.
        seeds: runs of each arm.
        folds: of the cross-validation.
        weak: whether the weak probe is run, which trains batch norms and one layer for every fold.
        workers: of each run.
        threads: of each worker.
    """

    sources: tuple[Source, ...]
    eval_sources: tuple[Source, ...]
    out: Bucket
    seeds: int
    folds: int
    weak: bool
    workers: Workers
    threads: int


def run_study(study: Study, study_config: StudyConfig) -> tuple[dict[str, Any], str]:
    """Train what is missing, evaluate all arms, write ``study.json`` and ``study.md``.

    Args:
        study: the arms.
        study_config: data, output and size.

    Returns:
        The document, and the table for people.

    Raises:
        UsageError: if the folder holds other files and no study, or is one of the datasets or inside one; or if an arm has
            no data.
    """
    provenance = record_run(None, study.arms[0].config, use_gpu=study_config.workers.use_gpu)
    check_outside(study_config.out, [source.bucket for source in (*study_config.sources, *study_config.eval_sources)])
    check_output(study_config.out, kind="study", is_ours=lambda paths: any(map(_OF_A_STUDY.match, paths)), is_ignored=is_hidden)
    study_config.out.check_writable()
    datasets = [source.open(split=None) for source in study_config.sources]
    _check_arms_have_data(study, datasets)
    evaluated = [*datasets, *(source.open(split=None) for source in study_config.eval_sources)]
    names = short_names([dataset.bucket.where("") for dataset in evaluated])
    courses: dict[str, list[RunSummary]] = {}
    found: list[Score] = []
    jobs = [(arm, seed) for arm in study.arms for seed in range(study_config.seeds)]
    for arm, seed in track(study.title, "run", jobs, quiet=study_config.workers.quiet):
        if signals.received():  # during the last step of the previous run, which was completed
            raise KeyboardInterrupt
        config = replace(arm.config, seed=seed)
        method = _train_arm(arm, config, study_config, datasets, courses)
        for name, dataset in zip(names, evaluated, strict=True):
            found += _evaluate(arm.name, seed, name, config, method, dataset, study_config)
    found = _keep_first(found)
    document = {
        "provenance": provenance | {"ended": format_time()},
        "title": study.title,
        "arms": {arm.name: {"diet": arm.data, "config": arm.config.document()} for arm in study.arms},
        "datasets": {name: c.manifest.digest for name, c in zip(names, evaluated, strict=True)},
        "courses": {name: [asdict(one) for one in several] for name, several in courses.items()},
        "scores": [asdict(score) for score in found],
    }
    text = render_study(
        study.title, list(dict.fromkeys([*(arm.name for arm in study.arms), *(s.arm for s in found)])), courses, found
    )
    study_config.out.put("study.json", json.dumps(document, sort_keys=True, indent=1).encode())
    study_config.out.put("study.md", text.encode())
    return document, text


def _check_arms_have_data(study: Study, datasets: Sequence[PublishedDataset]) -> None:
    without_data = [
        arm.name
        for arm in study.arms
        if arm.data in (DataSubset.IMAGES, DataSubset.VOLUMES)
        and not any(arm.data.includes(is_2d=c.manifest.presentation.is_2d) for c in datasets)
    ]
    if without_data:
        given = ", ".join(f"{c.manifest.name} ({c.manifest.presentation})" for c in datasets)
        raise UsageError(f"{study.title} needs images and volumes; {', '.join(without_data)} would have no data among {given}")


def _train_arm(
    arm: Arm,
    config: Pretraining,
    study_config: StudyConfig,
    datasets: Sequence[PublishedDataset],
    courses: dict[str, list[RunSummary]],
) -> Method:
    """The arm's network, trained to the end if it has data."""
    if arm.data is DataSubset.NOTHING:
        return build_untrained(config, config.seed)
    sources = [
        s for s, c in zip(study_config.sources, datasets, strict=True) if arm.data.includes(is_2d=c.manifest.presentation.is_2d)
    ]
    run = study_config.out.at(f"{arm.name}/seed-{config.seed}")
    quiet = replace(study_config.workers, quiet=True)
    saving = Saving(every=max(1, config.steps // 10), at=KEPT.resolve(config.steps, ""))
    provenance = record_run(None, config, use_gpu=quiet.use_gpu)
    pretrain(config, sources, run, quiet, saving=saving, threads=study_config.threads, provenance=provenance)
    records = read_metrics(run)
    if not records:
        raise RunError(
            f"{run.where('')}: no step of its metrics can be read; delete this run, and the same command trains it again"
        )
    courses.setdefault(arm.name, []).append(summarise_run(records))
    _, method, _, _ = load_trained(run)
    return method


def _evaluate(
    arm: str, seed: int, name: str, config: Pretraining, method: Method, dataset: PublishedDataset, study_config: StudyConfig
) -> list[Score]:
    """Every measure that one dataset allows: probes if it has labels, reconstruction if the method reconstructs volumes.

    What needs no training has rows of its own; it does not depend on the seed.
    """

    def score(measure: str, value: float, predictor: str = "") -> Score:
        return Score(arm=predictor or arm, seed=0 if predictor else seed, dataset=name, measure=measure, value=value)

    restoration = evaluate_restoration(name, dataset, config.method, method)
    figures = restoration.figures if restoration else ()
    return [
        *(score(probe, value) for probe, value in _probe(config, method, dataset, study_config)),
        *(score(figure.name, figure.mean, figure.predictor) for figure in figures),
        *(score("compression", figure.compression) for figure in figures[:1]),
    ]


def _keep_first(scores: Sequence[Score]) -> list[Score]:
    """Scores without those that an earlier one repeats: every arm measures the same predictors that need no training."""
    return list({(score.arm, score.seed, score.dataset, score.measure): score for score in reversed(scores)}.values())[::-1]


def _probe(config: Pretraining, method: Method, dataset: PublishedDataset, study_config: StudyConfig) -> list[tuple[str, float]]:
    """Scores of the probes. Folds depend on the dataset only, so arms and seeds share them."""
    data = read_labelled(dataset, config.method)
    if data is None:
        return []
    x_NF, parts = compute_features(method.encoder, data.x_NC), split_folds(data, study_config.folds)
    found = {probe: compute_scores(probe, x_NF, data, parts) for probe in classifiers(len(data.labels))}
    if study_config.weak:
        found["weak"] = weak_scores(method.encoder, data, parts)
    return [(probe, float(np.mean(values))) for probe, values in found.items()]


def short_names(urls: Sequence[str]) -> list[str]:
    """The last part of each URL; the whole URLs if two would have the same name."""
    names = [url.rstrip("/").rpartition("/")[2] for url in urls]
    return names if len(set(names)) == len(names) else list(urls)
