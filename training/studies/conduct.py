"""Conducting a study: every arm with every seed is an ordinary run in its folder; the same line goes on where it stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from crossdim.foundation import signals
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.output import check_output, check_outside
from crossdim.storage_schema.errors import RunError, UsageError
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.dataset import PublishedDataset, open_dataset
from crossdim.training.evaluation import trained, untrained
from crossdim.training.evaluation.features import features, labelled
from crossdim.training.evaluation.probes import folds_of, readers, scores
from crossdim.training.evaluation.restoring import restored
from crossdim.training.evaluation.weak import weak_scores
from crossdim.training.launch.driver import Workers, pretrain
from crossdim.training.launch.worker import Source
from crossdim.training.methods.base import Method
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.metrics import read_metrics
from crossdim.training.run_dir.output_check import is_hidden
from crossdim.training.run_dir.run_config import CONFIG
from crossdim.training.studies.base import Arm, Diet, Score, Study
from crossdim.training.studies.course import Course, course
from crossdim.training.studies.table import page

#: The configuration of one of its runs, which is the first that a study writes.
_OF_A_STUDY = re.compile(rf"[^/]+/seed-\d+/{re.escape(CONFIG)}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What a study is done on: datasets to train on, others to be judged by, the runs' folder, seeds, the cross-validation.

    ``weak`` adds the weak probe, which trains batch norms and one layer anew for every fold.
    """

    sources: tuple[Source, ...]
    judges: tuple[Source, ...]
    out: Bucket
    seeds: int
    folds: int
    weak: bool
    workers: Workers
    threads: int


def conduct(study: Study, bench: Bench) -> tuple[dict[str, Any], str]:
    """Run what has not been run, judge everything, write ``study.json`` and ``study.md``.

    Returns:
        The document, and the table for people.

    Raises:
        UsageError: if the folder holds other files and no study, or is one of the datasets or in one; or if an arm has no data.
    """
    check_outside(bench.out, [source.bucket for source in (*bench.sources, *bench.judges)])
    check_output(bench.out, kind="study", is_ours=lambda paths: any(map(_OF_A_STUDY.match, paths)), is_ignored=is_hidden)
    bench.out.check_writable()
    datasets = [open_dataset(source.bucket, split=None) for source in bench.sources]
    _refuse_starving(study, datasets)
    judging = [*datasets, *(open_dataset(source.bucket, split=None) for source in bench.judges)]
    names = short_names([dataset.bucket.where("") for dataset in judging])
    courses: dict[str, list[Course]] = {}
    found: list[Score] = []
    jobs = [(arm, seed) for arm in study.arms for seed in range(bench.seeds)]
    for arm, seed in tqdm(jobs, desc=study.title, unit="run", disable=bench.workers.quiet):
        if signals.received():  # in the last step of the run before, which was finished
            raise KeyboardInterrupt
        config = replace(arm.config, seed=seed)
        method = _method(arm, config, bench, datasets, courses)
        for name, dataset in zip(names, judging, strict=True):
            found += [
                Score(arm=arm.name, seed=seed, dataset=name, measure=measure, value=value)
                for measure, value in _judged(name, config, method, dataset, bench)
            ]
    document = {
        "title": study.title,
        "arms": {arm.name: {"diet": arm.diet, "config": arm.config.document()} for arm in study.arms},
        "datasets": {name: c.manifest.digest for name, c in zip(names, judging, strict=True)},
        "courses": {name: [asdict(one) for one in several] for name, several in courses.items()},
        "scores": [asdict(score) for score in found],
    }
    text = page(study.title, [arm.name for arm in study.arms], courses, found)
    bench.out.put("study.json", json.dumps(document, sort_keys=True, indent=1).encode())
    bench.out.put("study.md", text.encode())
    return document, text


def _refuse_starving(study: Study, datasets: Sequence[PublishedDataset]) -> None:
    hungry = [
        arm.name
        for arm in study.arms
        if arm.diet in (Diet.FLAT, Diet.SOLID) and not any(arm.diet.holds(flat=c.manifest.presentation.is_flat) for c in datasets)
    ]
    if hungry:
        given = ", ".join(f"{c.manifest.name} ({c.manifest.presentation})" for c in datasets)
        raise UsageError(f"{study.title} needs images and volumes; {', '.join(hungry)} would have no data among {given}")


def _method(
    arm: Arm, config: Pretraining, bench: Bench, datasets: Sequence[PublishedDataset], courses: dict[str, list[Course]]
) -> Method:
    """The arm's network, trained to the end if it is fed."""
    if arm.diet is Diet.NOTHING:
        return untrained(config, config.seed)
    eaten = [s for s, c in zip(bench.sources, datasets, strict=True) if arm.diet.holds(flat=c.manifest.presentation.is_flat)]
    run = bench.out.at(f"{arm.name}/seed-{config.seed}")
    quiet = replace(bench.workers, quiet=True)
    pretrain(config, eaten, run, quiet, saving=Saving(every=max(1, config.steps // 10)), threads=bench.threads)
    records = read_metrics(run)
    if not records:
        raise RunError(
            f"{run.where('')}: not one step of its metrics can be read; delete this run, and the same line does it again"
        )
    courses.setdefault(arm.name, []).append(course(records))
    _, method, _, _ = trained(run)
    return method


def _judged(name: str, config: Pretraining, method: Method, dataset: PublishedDataset, bench: Bench) -> list[tuple[str, float]]:
    """Every measure that one dataset allows: probes where it has labels, restoration where the method restores volumes."""
    restoration = restored(name, dataset, config.method, method)
    figures = restoration.figures if restoration else ()
    sizes = [("compression", figures[0].compression)] if figures else []
    return [*_probed(config, method, dataset, bench), *((figure.name, figure.mean) for figure in figures), *sizes]


def _probed(config: Pretraining, method: Method, dataset: PublishedDataset, bench: Bench) -> list[tuple[str, float]]:
    """Folds depend on the dataset alone, so arms and seeds share them."""
    data = labelled(dataset, config.method)
    if data is None:
        return []
    x_NF, parts = features(method.encoder, data.x_NC), folds_of(data, bench.folds)
    found = {probe: scores(probe, x_NF, data, parts) for probe in readers(len(data.labels))}
    if bench.weak:
        found["weak"] = weak_scores(method.encoder, data, parts)
    return [(probe, float(np.mean(values))) for probe, values in found.items()]


def short_names(urls: Sequence[str]) -> list[str]:
    """The last part of each URL; the whole URLs where two would be called alike."""
    names = [url.rstrip("/").rpartition("/")[2] for url in urls]
    return names if len(set(names)) == len(names) else list(urls)
