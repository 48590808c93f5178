"""The plan of a preparation as text and as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossdim.foundation.counts import count
from crossdim.foundation.location import format_location
from crossdim.foundation.plan_table import (
    Figure,
    build_figure_document,
    format_bytes,
    format_figures,
    format_hours,
    format_money,
    format_number,
    make_figure,
)
from crossdim.foundation.rates import format_seconds
from crossdim.pipelines.estimate.arithmetic import RAY_S, Estimate
from crossdim.pipelines.estimate.job import PlannedJob
from crossdim.pipelines.jobs.names import make_readable
from crossdim.pipelines.jobs.recipe import VolumeRecipe
from crossdim.pipelines.jobs.unread import describe_unread
from crossdim.pipelines.quarantine import Ignored, Quarantined
from crossdim.storage_schema.names import printable


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleCount:
    """Inputs and files that one rule leaves out, and the first of them with its reason."""

    rule: str
    inputs: int
    files: int
    first: str
    reason: str


def count_rules(found: Sequence[Quarantined | Ignored]) -> list[RuleCount]:
    """Count what was left out by rule, the most frequent first."""
    by_rule: dict[str, list[Quarantined | Ignored]] = {}
    for one in found:
        by_rule.setdefault(one.rule, []).append(one)
    counts = [
        RuleCount(
            rule=rule,
            inputs=len(members),
            files=sum(getattr(one, "num_files", 1) for one in members),
            first=members[0].uri,
            reason=members[0].reason,
        )
        for rule, members in by_rule.items()
    ]
    return sorted(counts, key=lambda one: (-one.inputs, one.rule))


def build_figures(job: PlannedJob, estimate: Estimate, prices: Mapping[str, float]) -> tuple[list[str], list[Figure]]:
    """Build the table of a plan.

    Args:
        job: planned and sampled.
        estimate: of it.
        prices: by name; figures of money are shown for those that are given.

    Returns:
        The headings of its columns, and its lines.
    """
    sample, total = job.sample, job.planned.plan.num_items
    measured = f"measured on {sample.items} of {count(total, 'input')}"
    timed = f"timed on {sample.timed} of {count(total, 'input')}"
    objects = "by the plan" if estimate.objects_are_exact else "by the plan, at most"
    if job.has_trial_key:
        objects = "by the plan, about"
    money = []
    for key, name, amount, unit in (
        ("cpu_hour", "price of processors", estimate.cpu_s / 3600, "processor hours"),
        ("request", "price of requests", estimate.requests / 1000, "thousand requests"),
        ("gb_month", "price of a month", estimate.num_bytes / 1e9, "GB"),
    ):
        if key in prices:
            how = f"{amount:.3g} {unit} x {prices[key]:g}"
            money.append(make_figure(f"price_{key}", name, format_money, how, amount * prices[key]))
    requests = f"scan {job.scan_requests:,}; reading {measured}; the rest by the plan"
    cpu, wall = (f"{timed}; {seconds:.1f} s before the first" for seconds in (job.before.cpu_s, job.before.wall_s))
    memory = f"{measured}, and more for the largest; a process and its decoder for each core"
    figures = [
        make_figure("samples", "samples", format_number, measured, round(estimate.samples)),
        make_figure("bytes", "output", format_bytes, measured, round(estimate.num_bytes)),
        make_figure("objects", "objects", format_number, f"{objects}; tables included", estimate.objects),
        make_figure("requests", "store requests", format_number, requests, round(estimate.requests)),
        make_figure("cpu_hours", "processor time", format_hours, cpu, estimate.cpu_s / 3600),
        make_figure("wall_s", "wall time", format_seconds, wall, *estimate.wall_s),
        make_figure("peak_bytes", "peak memory", format_bytes, memory, *estimate.peak_bytes),
        *money,
    ]
    return [count(number, "core") for number in estimate.cores], figures


def build_document(job: PlannedJob, columns: Sequence[str], figures: Sequence[Figure]) -> dict[str, Any]:
    """Build the plan as JSON values.

    Args:
        job: planned and sampled.
        columns: headings of the table.
        figures: of the table.

    Returns:
        Counts of inputs and files, the sample, and the figures by key.
    """
    plan, sample = job.planned.plan, job.sample
    return {
        "inputs": {"kept": plan.num_items, "refused": len(plan.refused)},
        "files": _count_files(job),
        "tasks": len(plan.tasks),
        "tasks_done": job.done,
        "refused_by_rule": _rules_document(job, plan.refused),
        "ignored_by_rule": _rules_document(job, plan.ignored),
        "sample": {
            "inputs": sample.items,
            "refused": len(sample.refused),
            "refused_by_rule": _rules_document(job, sample.refused),
        },
        "figures": build_figure_document(columns, figures),
        "notes": list(job.planned.notes),
    }


def _count_files(job: PlannedJob) -> dict[str, int]:
    plan = job.planned.plan
    kept = sum(len(item.files) for task in plan.tasks for item in task.items)
    refused = sum(one.num_files for one in plan.refused)
    return {"total": job.num_files, "kept": kept, "refused": refused, "ignored": len(plan.ignored)}


def _rules_document(job: PlannedJob, found: Sequence[Quarantined | Ignored]) -> dict[str, Any]:
    return {
        one.rule: {"inputs": one.inputs, "files": one.files, "first": _name(job, one.first), "reason": one.reason}
        for one in count_rules(found)
    }


def _name(job: PlannedJob, text: str) -> str:
    """A name or reason with paths in place of hashed names: the plan is for the owner of the files."""
    return make_readable(text, job.planned.files)


def format_plan(job: PlannedJob, columns: Sequence[str], figures: Sequence[Figure]) -> str:
    """Format the plan for people.

    Args:
        job: planned and sampled.
        columns: headings of the table.
        figures: of the table.

    Returns:
        Lines: what is kept and what is not, the sample, the table, and what it leaves out.
    """
    plan, sample, files = job.planned.plan, job.sample, _count_files(job)
    lines = [
        f"plan of {format_location(job.preparation.out.url)}: {count(len(plan.tasks), 'task')}; nothing was written",
        f"files: {files['total']} = {files['kept']} kept, {files['refused']} refused, {files['ignored']} ignored, "
        "as far as names and headers tell",
        f"inputs: {plan.num_items} kept, {len(plan.refused)} refused",
    ]
    lines += [f"  refused, {line}" for line in _format_rules(job, plan.refused)]
    lines += [f"  ignored, {line}" for line in _format_rules(job, plan.ignored)]
    refused = f"{len(sample.refused)} refused once decoded ({len(sample.refused) / sample.items:.0%})"
    lines.append(f"sample: {sample.items} of {count(plan.num_items, 'input')} decoded, {refused}")
    lines += [f"  refused, {line}" for line in _format_rules(job, sample.refused)]
    if job.done:
        lines.append(f"{count(job.done, 'task')} of an earlier start are written and will not be done again; the table is of all")
    lines += map(printable, job.planned.notes)
    if job.planned.unread:
        lines.append(describe_unread(job.planned.unread))
    return "\n".join([*lines, "", *format_figures(columns, figures), "", *_list_limits(job, columns)])


def _list_limits(job: PlannedJob, columns: Sequence[str]) -> list[str]:
    """Sentences on what the table cannot know."""
    lines = ["Inputs of equal content are kept once; the sample shows only those within it."]
    if isinstance(job.preparation.recipe, VolumeRecipe):
        lines.append("A shard without a sample is not written, so there may be fewer objects.")
    if job.has_trial_key:
        lines.append(
            "A secret key is still to be made; it orders the inputs otherwise, so the number of objects may differ a little."
        )
    if job.is_local and len(columns) > 1:
        lines.append(
            f"1 core works in this process; more are Ray's (--no-local), about {RAY_S:.0f} s to start and stop it included."
        )
    if not job.is_local:
        lines.append("The scan is taken to last as long as here; what Ray itself needs is not in it.")
    if all(bucket.is_local for bucket in (*job.preparation.sources, job.preparation.out)):
        lines.append("Sources and output are files of this machine, whose requests cost nothing.")
    else:
        lines.append("The output was written to this machine; a remote store takes longer.")
    return lines


def _format_rules(job: PlannedJob, found: Sequence[Quarantined | Ignored]) -> list[str]:
    return [
        f"{one.rule} {one.inputs}: {printable(_name(job, one.first))}: {printable(_name(job, one.reason))}"
        for one in count_rules(found)
    ]
