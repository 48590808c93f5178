"""The result of ``prepare``, for people and for programs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict

from crossdim.foundation.counts import count
from crossdim.foundation.location import format_location
from crossdim.pipelines.jobs.preparation import PrepareResult
from crossdim.pipelines.jobs.unread import describe_unread
from crossdim.pipelines.show.page import PAGE
from crossdim.storage_schema.names import printable


def build_document(outcome: PrepareResult, seconds: float) -> dict[str, object]:
    """Build the result as JSON values.

    Args:
        outcome: of the preparation.
        seconds: that the command took.

    Returns:
        The document.
    """
    files = outcome.manifest.files
    return {
        "samples": outcome.manifest.num_samples,
        "files": asdict(files) if files else None,
        "quarantined": outcome.manifest.num_quarantined,
        "quarantined_inputs": outcome.manifest.num_quarantined,
        "quarantined_files": files.quarantined if files else None,
        "quarantined_by_rule": outcome.quarantined,
        "ignored": outcome.ignored,
        "ignored_by_format": outcome.ignored_formats,
        "images_not_read": {name: one.num_files for name, one in outcome.unread.items()},
        "parts": {name: part.samples for name, part in outcome.parts.items()},
        "patients": {name: part.patients for name, part in outcome.parts.items()},
        "notes": list(outcome.notes),
        "objects": len(outcome.manifest.objects),
        "bytes": outcome.num_bytes,
        "seconds": round(seconds, 2),
        "already_published": outcome.already_published,
        "version": outcome.version,
        "changes": outcome.changes,
        "samples_reused": outcome.num_reused,
        "manifest_digest": outcome.manifest.digest,
    }


def format_result(outcome: PrepareResult, out: str, seconds: float, *, described: bool) -> str:
    """Format the result as sentences.

    Args:
        outcome: of the preparation.
        out: the dataset, as it was named on the command line.
        seconds: that the command took.
        described: whether its page is there.

    Returns:
        Lines of text, with the next command.
    """
    manifest, out = outcome.manifest, format_location(out)
    size = f"{count(manifest.num_samples, 'sample')}, {count(len(manifest.objects), 'object')}, {outcome.num_bytes / 1e6:.1f} MB"
    quarantined = count(manifest.num_quarantined, "input")
    version = f", version {outcome.version}" if outcome.version > 1 else ""
    if outcome.already_published:
        lines = [f"{out}{version} is already published: {size}, {quarantined} quarantined"]
    else:
        lines = [f"published {out}{version}: {size}, in {seconds:.1f} s"]
    if outcome.changes:
        lines.append(f"{outcome.changes}; {count(outcome.num_reused, 'sample')} of version {outcome.version - 1} taken over")
    if files := manifest.files:
        outcomes = f"{files.used} used, {files.quarantined} quarantined, {files.ignored} ignored"
        lines.append(f"files: {files.total} = {outcomes}")
    if outcome.quarantined:
        of_files = f" ({count(files.quarantined, 'file')})" if files else ""
        lines.append(
            f"quarantined {quarantined}{of_files}: {_format_counts(outcome.quarantined)}; reasons are in {out}/quarantine"
        )
    if outcome.ignored:
        formats = _format_counts(outcome.ignored_formats)
        lines.append(f"ignored by rule: {_format_counts(outcome.ignored)}; by format: {formats}; each is listed in {out}/ignored")
    lines += map(printable, outcome.notes)
    if outcome.unread:
        lines.append(describe_unread(outcome.unread))
    if not outcome.already_published:
        lines.append(f"next: crossdim verify {shlex.quote(out)}")
    if described:
        lines.append(f"look at it: {out}/{PAGE}")
    return "\n".join(lines)


def _format_counts(counts: Mapping[str, int]) -> str:
    """Counts by name, the largest first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])))
