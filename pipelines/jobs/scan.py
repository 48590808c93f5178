"""Scan: find out what every file is, by its header."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.object_store import NOTHING_HIDDEN, PROBLEMS
from crossdim.foundation.progress import show_progress
from crossdim.foundation.settings import from_document, to_document
from crossdim.pipelines.decoder_process import probe
from crossdim.pipelines.jobs.engine import run_each, runs_here
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.quarantine import Quarantined, apply_steps
from crossdim.pipelines.readers.dicom_header import looks_like_dicom
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.readers.registry import promised_family
from crossdim.pipelines.readers.signatures import WHOLE_SLIDES, Unread
from crossdim.pipelines.sources import ignored_names
from crossdim.pipelines.sources.listing import SourceFile
from crossdim.pipelines.sources.reading import read_head
from crossdim.storage_schema.digest import canonical_json

#: Files per task: enough to outweigh the cost of a task, few enough to distribute.
GROUP = 64


#: Why a file is ignored once it was looked at, by rule.
REASONS = {
    "format_not_read": "looks like images of a format that is not read; convert it to PNG, DICOM or NIfTI to have it read",
    "whole_slide": "a whole-slide image; cut it into tiles (OpenSlide reads it), and prepare these as PNG or TIFF",
    "not_an_image": "neither name nor content is of a format that holds images",
}


def scan_file(file: SourceFile, sources: Sequence[Bucket], rules: ReadRules) -> ScanResult:
    """Find out what one file is: usable, ignored or refused.

    Args:
        file: as listed.
        sources: as folders; the number of the file's own is in ``file``.
        rules: size guards.

    Returns:
        The result, with the header of a usable file, or the reason.
    """
    result = partial(ScanResult, source=file.source, path=file.path, uri=file.uri, size=file.size, version=file.version)
    named = ignored_names.match_ignored_name(file.path)
    if named:
        return result(status="ignored", format=named, rule=named, reason=ignored_names.REASONS[named])
    refused = partial(result, status="refused", format=promised_family(file.path) or "unknown")
    if file.problem in NOTHING_HIDDEN:
        return result(status="ignored", format="link", rule=file.problem, reason=PROBLEMS[file.problem])
    if file.problem:
        return refused(rule=file.problem, reason=file.reason or PROBLEMS[file.problem])
    is_dicom = False

    def read(num_bytes: int) -> bytes:
        nonlocal is_dicom
        head = read_head(sources[file.source], file.path, num_bytes, version=file.version)
        is_dicom = looks_like_dicom(head)
        return head

    found = apply_steps(file.uri, file, [("scan", lambda one: probe(one.path, one.size, read, rules))])
    result, refused = partial(result, is_dicom=is_dicom), partial(refused, is_dicom=is_dicom)
    if isinstance(found, Quarantined):
        return refused(rule=found.rule, reason=found.reason)
    if isinstance(found, Unread):
        rule = "not_an_image"
        if found.is_image:
            rule = "whole_slide" if found.format in WHOLE_SLIDES else "format_not_read"
        return result(status="ignored", format=found.format, is_image=found.is_image, rule=rule, reason=REASONS[rule])
    return result(status="ok", format=str(found.format), header=found)


def _scan_group(group: str, sources: Sequence[Bucket], rules: ReadRules) -> str:
    files = [SourceFile(**file) for file in json.loads(group)]
    return canonical_json([to_document(scan_file(file, sources, rules)) for file in files]).decode()


def _read_results(answers: Iterable[str]) -> Iterable[list[ScanResult]]:
    for answer in answers:
        yield [from_document(ScanResult, document, subject="scan result") for document in json.loads(answer)]


def scan(
    files: Sequence[SourceFile],
    sources: Sequence[Bucket],
    rules: ReadRules,
    *,
    concurrency: int | None = None,
    quiet: bool = False,
) -> list[ScanResult]:
    """Scan all files.

    Args:
        files: as listed.
        sources: as folders.
        rules: size guards.
        concurrency: largest number of tasks at a time; None leaves it to the cluster.
        quiet: no progress bar.

    Returns:
        One result for each file, sorted by name.
    """
    groups = [files[start : start + GROUP] for start in range(0, len(files), GROUP)]
    documents = [canonical_json([to_document(file) for file in group]).decode() for group in groups]
    results: list[ScanResult] = []
    with show_progress("scan", "file", len(files), quiet=quiet) as progress:
        progress.stage("reading the first files", is_first_unit=runs_here())
        for answered in _read_results(
            run_each(documents, partial(_scan_group, sources=tuple(sources), rules=rules), concurrency=concurrency)
        ):
            results += answered
            progress.advance(len(answered))
    return sorted(results, key=lambda result: result.uri)
