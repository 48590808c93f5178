"""The kinds of values in volumes and images, which decide where names and layouts do not tell label maps from images."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.progress import show_progress
from crossdim.foundation.settings import to_document
from crossdim.pipelines import decoder_process
from crossdim.pipelines.jobs.engine import run_each, runs_here
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.quarantine import Quarantined, apply_steps
from crossdim.pipelines.readers.gray_pictures import is_gray_picture
from crossdim.pipelines.readers.label_kinds import Values
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.reader import Reader
from crossdim.pipelines.readers.registry import reader_of_format
from crossdim.pipelines.sources.listing import SourceFile
from crossdim.pipelines.sources.reading import read_whole

#: Volumes per task, read one after the other; ours.
GROUP = 8


def read_values(
    candidates: Sequence[ScanResult],
    sources: Sequence[Bucket],
    rules: ReadRules,
    *,
    gray: bool = False,
    concurrency: int | None = None,
    quiet: bool = False,
) -> dict[str, Values]:
    """Read what the voxels of volumes are.

    Args:
        candidates: volumes; with ``gray``, images too.
        sources: as folders.
        rules: size guards.
        gray: only tell ``Values.GRAY`` from ``Values.OTHER``, reading the files to their ends.
        concurrency: largest number of tasks at a time.
        quiet: whether to show no progress bar.

    Returns:
        The kind of values by uri; a volume that cannot be read has no entry.
    """
    files = [
        (one.header, SourceFile(source=one.source, path=one.path, uri=one.uri, size=one.size)) for one in candidates if one.header
    ]
    groups = [files[start : start + GROUP] for start in range(0, len(files), GROUP)]
    documents = [
        json.dumps([[info.format, math.prod(info.shape), to_document(file)] for info, file in group]) for group in groups
    ]
    found: dict[str, Values] = {}
    if not documents:
        return found
    work = partial(_read_group, sources=tuple(sources), rules=rules, gray=gray)
    with show_progress("label maps", "file", len(files), quiet=quiet) as progress:
        progress.stage("reading the first files", is_first_unit=runs_here())
        for answer in run_each(documents, work, concurrency=concurrency):
            answered = json.loads(answer)
            found |= {uri: Values(values) for uri, values in answered.items() if values}
            progress.advance(len(answered))
    return found


def _read_group(group: str, sources: Sequence[Bucket], rules: ReadRules, *, gray: bool) -> str:
    answers = {}
    for name, num_values, document in json.loads(group):
        file, reader = SourceFile(**document), reader_of_format(name)
        read = partial(_values_of_file, sources=sources, rules=rules, reader=reader)
        if gray:
            read = partial(_shows_gray, sources=sources, rules=rules, reader=reader, num_values=num_values)
        values = apply_steps(file.uri, file, [("label_map", read)])
        answers[file.uri] = None if isinstance(values, Quarantined) else str(values)
    return json.dumps(answers)


def _values_of_file(file: SourceFile, sources: Sequence[Bucket], rules: ReadRules, reader: Reader) -> Values:
    assert reader.label_values is not None
    return reader.label_values(read_whole(sources[file.source], file.path, file.size), rules)


def _shows_gray(file: SourceFile, sources: Sequence[Bucket], rules: ReadRules, reader: Reader, num_values: int) -> Values:
    data = read_whole(sources[file.source], file.path, file.size)
    if reader.kind == "image":
        item = RawItem(uri=file.uri, files=(data,), rules=rules, num_values=num_values)
        is_gray = is_gray_picture(decoder_process.decode(reader.name, item).array)
    else:
        assert reader.shows_gray is not None
        is_gray = reader.shows_gray(data, rules)
    return Values.GRAY if is_gray else Values.OTHER
