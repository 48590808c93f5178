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
from crossdim.foundation.manifest_file import find_version_number
from crossdim.foundation.output import check_outside
from crossdim.foundation.page.pictures import Gallery
from crossdim.foundation.progress import track
from crossdim.foundation.provenance import format_time, record_provenance
from crossdim.storage_schema.errors import RunError, UsageError
from crossdim.storage_schema.manifest import Manifest
from crossdim.storage_schema.vocabulary import Split
from crossdim.training.chosen_steps import ALL, AUTO, ChosenSteps
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.dataset import PublishedDataset, open_dataset, tell_apart
from crossdim.training.evaluation.checkpoint_probes import (
    build_document,
    choose_checkpoints,
    format_checkpoint_results,
    probe_checkpoints,
    write_checkpoint_results,
)
from crossdim.training.evaluation.features import Labelled, classes, compute_features, read_labelled
from crossdim.training.evaluation.figures import list_figures, publish_figures
from crossdim.training.evaluation.networks import build_untrained, load_trained
from crossdim.training.evaluation.probes import ProbeComparison, count_usable_folds
from crossdim.training.evaluation.restoring import RestorationResult, evaluate_restoration
from crossdim.training.methods.base import Method
from crossdim.training.pictures.galleries import build_galleries
from crossdim.training.run_dir.layout import CARD, EVALUATION, PICTURES, REPORT
from crossdim.training.run_dir.metrics import describe_damage, read_log
from crossdim.training.run_dir.output_check import check_run_folder
from crossdim.training.run_dir.picture_log import write_galleries
from crossdim.training.show.evaluation import CheckpointResult, ProbeResult
from crossdim.training.show.facts import read_facts
from crossdim.training.show.findings import describe_verdict
from crossdim.training.show.page import build_card, build_page

#: Seeds of untrained baselines start here, far from the seeds of runs.
BASELINE_SEED = 1_000_003
#: Names of classes in one note.
SHOWN_CLASSES = 10
#: Distributions that decide the figures.
PACKAGES = ("torch", "numpy", "scikit-learn")


def _preparation_note(identity: dict[str, Any], dataset: PublishedDataset) -> str | None:
    """A note if a dataset was prepared differently from those that the encoder was trained on."""
    known = {d["preprocessing"] for d in identity["datasets"]}
    if dataset.manifest.preprocessing_digest in known:
        return None
    return f"{dataset.name} was prepared differently from the encoder's training data; its figures mix both effects."


@dataclass(frozen=True, kw_only=True, slots=True)
class _Subject:
    """What is evaluated, and on what.

    Attributes:
        run: its folder.
        config: of the run.
        method: its newest network.
        step: of that.
        checkpoints: steps of those that are probed as well.
        split: whose samples are probed: ``auto`` takes held-out ones where labels were trained on, and all elsewhere.
        datasets: that the run was trained on, as in its identity.
    """

    run: Bucket
    config: Pretraining
    method: Method
    step: int
    checkpoints: Sequence[int]
    split: Split | Literal["auto", "all"]
    datasets: Sequence[Mapping[str, Any]]

    @property
    def uses_labels(self) -> bool:
        """Whether the encoder was trained from labels."""
        return bool(self.config.method.label_names())

    def choose_split(self, manifest: Manifest) -> Split | None:
        """The split of a dataset that is probed; None for all of them."""
        if self.split == AUTO:
            return Split.TEST if self.uses_labels and self.is_trained_on(manifest) else None
        return None if self.split == ALL else Split(self.split)

    def is_trained_on(self, manifest: Manifest) -> bool:
        """Whether the run was trained on a dataset, or on an earlier version of it."""
        ours = (manifest.name, manifest.preprocessing_digest)
        return any(ours == (one["name"], one["preprocessing"]) or manifest.digest == one["manifest"] for one in self.datasets)


@dataclass(kw_only=True)
class Findings:
    """Results of an evaluation, collected over its datasets."""

    results: list[ProbeResult] = field(default_factory=list)
    of_checkpoints: list[CheckpointResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shown: list[Gallery] = field(default_factory=list)
    restored: list[RestorationResult] = field(default_factory=list)


def _evaluate_dataset(
    dataset: PublishedDataset, subject: _Subject, baselines: Sequence[Method], folds: int, findings: Findings
) -> None:
    """Draw pictures of one dataset, reconstruct its volumes if the method can, and probe it if it has labels."""
    config, method = subject.config, subject.method
    findings.shown += build_galleries(dataset, config.method, method)
    restoration = evaluate_restoration(dataset.name, dataset, config.method, method)
    findings.restored += [restoration] if restoration else []
    split = subject.choose_split(dataset.manifest)
    probed = dataset.select(split) if split else dataset
    name = dataset.name
    findings.notes += filter(None, [_describe_left_out(probed)])
    data = read_labelled(probed, config.method)
    if data is None:
        findings.notes.append(_describe_unprobed(probed, split, subject))
        return
    findings.notes += filter(None, [_describe_trained(data, subject, dataset.manifest)])
    used = count_usable_folds(data, folds)
    if used < folds:
        groups = count(used, "input" if data.num_unknown else "patient")
        findings.notes.append(f"{name}: {used} folds were used, and not {folds}: its smallest class has {groups}.")
    comparison = ProbeComparison(data, [compute_features(other.encoder, data.x_NC) for other in baselines], folds)
    results = comparison.compare(compute_features(method.encoder, data.x_NC))
    findings.results += results
    earlier = [step for step in subject.checkpoints if step != subject.step]
    findings.of_checkpoints += probe_checkpoints(subject.run, config, earlier, comparison, findings.notes)
    if subject.step in subject.checkpoints:
        findings.of_checkpoints += [CheckpointResult(step=subject.step, result=result) for result in results]


def evaluate(
    run: Bucket,
    datasets: Sequence[Bucket],
    *,
    folds: int,
    baselines: int,
    quiet: bool,
    checkpoints: ChosenSteps | Literal["all"] | None = None,
    versions: Mapping[str, int] | None = None,
    split: Split | Literal["auto", "all"] = AUTO,
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
        split: whose samples are probed: ``auto`` takes held-out ones of datasets whose labels the encoder was trained on, and
            all of others.

    Returns:
        The results as plain values, and as lines for people.

    Raises:
        UsageError: if the folder does not exist, holds other files and no run, or a checkpoint is not kept.
        RunError: if the run has no checkpoint, or there is no figure that could replace those of its report.
    """
    provenance = record_provenance(PACKAGES)
    check_outside(run, datasets, "RUN")
    if not run.exists():
        raise UsageError(f"{run.where('')} does not exist; name the --out of a pretrain command")
    check_run_folder(run, "RUN", remedy="name the --out of a pretrain line")
    run.check_writable()  # for the report
    config, method, identity, step = load_trained(run)
    chosen = choose_checkpoints(run, checkpoints, config.steps) if checkpoints else []
    subject = _Subject(
        run=run, config=config, method=method, step=step, checkpoints=chosen, split=split, datasets=identity["datasets"]
    )
    others = [build_untrained(config, BASELINE_SEED + i) for i in range(baselines)]
    findings = Findings()
    if step < config.steps:
        findings.notes.append(f"The run was not finished: these figures are of step {step} of {config.steps}.")
    evaluated: list[dict[str, str]] = []
    opened = tell_apart([open_dataset(one, split=None, version=(versions or {}).get(one.url)) for one in datasets])
    for dataset in track("evaluate", "dataset", opened, quiet=quiet):
        evaluated.append({"name": dataset.name, "url": hide_secrets(dataset.bucket.url), "manifest": dataset.manifest.digest})
        findings.notes += filter(None, [_preparation_note(identity, dataset), _describe_version(dataset, subject)])
        _evaluate_dataset(dataset, subject, others, folds, findings)
    summary = {
        "out": hide_secrets(run.url),
        "recipe": config.method.kind,
        "step": step,
        "steps": config.steps,
        "global_batch": config.global_batch,
        "seed": config.seed,
        "datasets": identity["datasets"],
        "baselines": baselines,
        "split": split,
        "evaluated": evaluated,
    }
    lines = [line for restoration in findings.restored for line in restoration.lines]
    _, damaged = read_log(run)
    findings.notes += [describe_damage(run, damaged)] if damaged else []
    before = _figures(run)
    if not findings.results and not findings.restored and before:
        raise RunError(f"{' '.join(findings.notes)} So {run.where(REPORT)}, which has {before}, is left as it is")
    document = summary | {
        "results": [asdict(r) | {"verdict": r.verdict} for r in findings.results],
        "restored": [restoration.document() for restoration in findings.restored],
        "notes": findings.notes,
        "report": run.where(REPORT),
        "provenance": provenance | {"ended": format_time()},
    }
    run.put(EVALUATION, json.dumps(document, sort_keys=True, indent=1).encode())
    write_galleries(run, PICTURES, findings.shown)
    if findings.of_checkpoints:
        of_checkpoints = build_document(findings.of_checkpoints, baselines)
        write_checkpoint_results(run, of_checkpoints)
        document["checkpoints"] = of_checkpoints["results"]
        lines += format_checkpoint_results(findings.of_checkpoints)
    facts = read_facts(run, time.time(), identity)
    figures = list_figures(findings.results, findings.restored)
    publish_figures(run, config.document(), step, figures, findings.of_checkpoints, describe_verdict(facts), findings.shown)
    run.put(CARD, build_card(facts))
    run.put(REPORT, build_page(facts))
    replaced = [f"these replace the {before} of the report"] * bool(before)
    return document, "\n".join(
        [*map(_line, findings.results), *lines, *findings.notes, *replaced, f"report: {run.where(REPORT)}"]
    )


def _describe_version(dataset: PublishedDataset, subject: _Subject) -> str:
    """A note if another version of a dataset is evaluated than the run was trained on; empty if it is the same, or another."""
    manifest = dataset.manifest
    if not subject.is_trained_on(manifest) or any(manifest.digest == one["manifest"] for one in subject.datasets):
        return ""
    number = find_version_number(dataset.bucket, manifest)
    return f"{dataset.name}: version {number} is evaluated; the run was trained on another one (--data-version chooses one)."


def _describe_left_out(dataset: PublishedDataset) -> str:
    """A note if classes are left out because they have a single patient; empty if there are none."""
    labels, (_, single) = dataset.column("label"), classes(dataset)
    if not single:
        return ""
    lost, labelled = (sum(label in names for label in labels) for names in (single, {*labels} - {None}))
    samples = f"{lost} of {count(labelled, 'labelled sample')}"
    shown = ", ".join(single[:SHOWN_CLASSES]) + f" and {len(single) - SHOWN_CLASSES} more" * (len(single) > SHOWN_CLASSES)
    return f"{dataset.name}: classes with a single patient were left out, {samples}: {shown}."


def _describe_trained(data: Labelled, subject: _Subject, manifest: Manifest) -> str:
    """A note if the encoder was trained on samples that are probed; empty if it was not."""
    if not data.num_trained or not subject.is_trained_on(manifest):
        return ""
    labelled = ", and on their labels" if subject.uses_labels else ""
    held_out = f"; --split {Split.TEST} probes the other samples only" if data.num_trained < len(data.labels) else ""
    return f"{data.name}: the encoder was trained on {data.num_trained} of the {len(data.labels)} samples{labelled}{held_out}."


def _describe_unprobed(dataset: PublishedDataset, split: Split | None, subject: _Subject) -> str:
    """Why a dataset was not probed, and what would change that."""
    name = dataset.name
    if split is not None and subject.split == AUTO:
        return (
            f"{name} was not probed: the encoder was trained with its labels, and too few samples were held out "
            f"(prepare --test-fraction); --split {ALL} probes all, which shows what it has learned by heart."
        )
    if split is not None and not len(dataset):
        return f"{name} holds no sample of split {split} and was not probed; --split {ALL} probes all."
    if split is not None and any(dataset.column("label")):
        return f"{name} has no two classes of at least two patients in split {split}; --split {ALL} probes all."
    if any(dataset.column("label")):
        return f"{name} has no two classes of at least two patients and was not probed."
    remedy = "prepare it again with --label folder, or with --labels FILE.csv --label-column NAME, to another --out"
    return f"{name} has no labels and was not probed; {remedy}."


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
