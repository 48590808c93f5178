"""The summary of a dataset as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from crossdim.foundation.counts import count, count_patients
from crossdim.pipelines.show.summary import DatasetSummary, RuleCount
from crossdim.storage_schema.names import printable

#: Values of one kind that are shown, the most frequent first.
SHOWN = 5


def format_summary(summary: DatasetSummary, where: str) -> str:
    """Format a summary for people.

    Args:
        summary: of a dataset.
        where: the dataset lies.

    Returns:
        Lines of text; control characters of names are escaped.
    """
    version = f", version {summary.dataset_version}" if summary.dataset_version > 1 else ""
    first = f"{where}{version}: {summary.name}, {summary.presentation}, format version {summary.version}"
    return "\n".join([first, *_format_content(summary)])


def format_refusals(summary: DatasetSummary, where: str) -> str:
    """Format what a dataset does not hold, and why.

    Args:
        summary: of a dataset.
        where: the dataset lies.

    Returns:
        Lines of text.
    """
    lines = [*_format_rules("quarantined", summary.quarantined), *_format_rules("ignored", summary.ignored)]
    return "\n".join([f"{where}: {summary.name}", *(lines or ["  every file of the sources was used"])])


def _format_content(summary: DatasetSummary) -> Iterator[str]:
    size = f"{format_bytes(summary.num_bytes)} in {count(summary.num_objects, 'object')}"
    yield _line("samples", f"{count(summary.num_samples, 'sample')} of {count(summary.num_inputs, 'input')}, {size}")
    if summary.files:
        used, quarantined, ignored = (summary.files[name] for name in ("used", "quarantined", "ignored"))
        yield _line("files", f"{summary.files['total']} = {used} used, {quarantined} quarantined, {ignored} ignored")
    yield _line("modality", _format_counts(summary.modalities))
    yield _line("stored as", _format_counts(summary.shapes))
    yield _line("size", _format_counts(summary.sizes))
    yield _line("spacing", _format_counts(summary.spacings))
    yield _line("patients", describe_patients(summary))
    for label, parts in list(summary.labels.items())[: 4 * SHOWN]:
        yield _line("label", f"{printable(label)}: {', '.join(f'{part} {number}' for part, number in parts.items())}")
    if len(summary.labels) > 4 * SHOWN:
        yield _line("label", f"and {len(summary.labels) - 4 * SHOWN} more")
    for split, numbers in summary.splits.items():
        yield _line("split", f"{split}: {describe_split(numbers)}")
    if summary.shared_patients or summary.shared_inputs:
        shared = f"{count(summary.shared_patients, 'patient')} and {count(summary.shared_inputs, 'input')}"
        yield _line("warning", f"{shared} are in more than one split")
    for note, number in list(summary.notes.items())[:SHOWN]:
        yield _line("note", f"{printable(note)} ({count(number, 'input')})")
    if len(summary.notes) > SHOWN:
        yield _line("note", f"and {len(summary.notes) - SHOWN} more")
    yield from _format_rules("quarantined", summary.quarantined)
    yield from _format_rules("ignored", summary.ignored)


def describe_patients(summary: DatasetSummary) -> str:
    """How many patients there are, and how many inputs whose patient nobody named."""
    unknown, inputs = summary.num_unknown_patients, summary.num_inputs
    if unknown == inputs:
        both = ", and a patient may be in both splits" if len(summary.splits) > 1 else ""
        return f"not known; each of {count(inputs, 'input')} counts as one{both}"
    known = f"{summary.num_patients - unknown}; the largest has {count(summary.largest_patient, 'sample')}"
    both = ", and may be in both splits" if len(summary.splits) > 1 else ""
    return f"{known}; of {count(unknown, 'input')} the patient is not known{both}" if unknown else known


def describe_split(numbers: Mapping[str, int]) -> str:
    """Samples, inputs and patients of a split, such as ``8 samples of 5 inputs: 3 patients and 1 input of unknown patients``."""
    patients = count_patients(numbers["patients"], numbers["unknown_patients"])
    return f"{count(numbers['samples'], 'sample')} of {count(numbers['inputs'], 'input')}: {patients}"


def format_bytes(number: int) -> str:
    """A number of bytes with a unit."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"


def _line(name: str, text: str) -> str:
    return f"  {name:<10}{text}"


def _format_counts(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{printable(name)} ({number})" for name, number in list(counts.items())[:SHOWN])
    return f"{shown}, and {len(counts) - SHOWN} more" if len(counts) > SHOWN else shown


def _format_rules(outcome: str, rules: Sequence[RuleCount]) -> Iterator[str]:
    if not rules:
        return
    inputs, files = sum(rule.num_inputs for rule in rules), sum(rule.num_files for rule in rules)
    yield (
        f"{outcome}: {count(files, 'file')}"
        if inputs == files
        else f"{outcome}: {count(inputs, 'input')} ({count(files, 'file')})"
    )
    for rule in rules:
        yield f"  {rule.rule} {rule.num_inputs}"
        for uri, reason in rule.examples:
            yield f"    {printable(uri)}: {printable(reason)}"
        if rule.num_inputs > len(rule.examples):
            yield f"    and {rule.num_inputs - len(rule.examples)} more"
