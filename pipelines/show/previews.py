"""Looks at some source files at the end of ``prepare``: refused and ignored ones, and the values of some that were used.

This is done while the sources are at hand, by the decoder process, and for a bounded number of files and bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.counts import count
from crossdim.foundation.page.pictures import encode_pixels
from crossdim.pipelines.decoder_process import count_values, preview
from crossdim.pipelines.jobs.items import Item, ItemFile
from crossdim.pipelines.jobs.source_inputs import PER_RULE, SourceInput, SourceInputs
from crossdim.pipelines.quarantine import Quarantined, apply_steps
from crossdim.pipelines.readers.preview import Preview
from crossdim.pipelines.readers.raw import RawItem
from crossdim.pipelines.readers.source_values import SourceValues
from crossdim.pipelines.show.galleries import choose_inputs
from crossdim.pipelines.show.histograms import spread
from crossdim.pipelines.show.preview_record import PreviewRecord, SeenInput, SeenValues
from crossdim.pipelines.show.summary import Tables
from crossdim.pipelines.sources.reading import read_head, read_whole

#: Inputs of a dataset that are looked at for what was refused or ignored. Ours; a picture takes 5 to 35 kB of the page.
MAX_INPUTS = 120
#: Bytes that are read: of one file for its picture, of one input for its values, and of each of the two in all. Ours.
MAX_FILE_BYTES, MAX_INPUT_BYTES, MAX_BYTES = 64 << 20, 256 << 20, 512 << 20
#: Seconds after which nothing more is looked at: slow stores and slow codecs do not hold a finished preparation up. Ours.
MAX_SECONDS = 60.0
#: Nothing can be read of these, or reading them has ended a decoder process before.
NOT_READ = frozenset(
    (
        *("empty", "missing", "unreadable", "changed", "dangling_link", "special_file", "link_loop", "repeated_link"),
        *("litter", "hidden", "decoder_died", "decoder_memory", "decoder_slow"),
    )
)


@dataclass(kw_only=True, slots=True)
class _Budget:
    """Bytes and seconds that are left, and how many inputs went without."""

    end: float
    left_bytes: int
    left_out: int = 0

    def allow(self, num_bytes: int, most: int) -> bool:
        """Whether so many bytes may be read; they are subtracted."""
        if num_bytes > min(most, self.left_bytes) or time.monotonic() > self.end:
            self.left_out += 1
            return False
        self.left_bytes -= num_bytes
        return True


def look_at_sources(tables: Tables, inputs: SourceInputs) -> PreviewRecord:
    """Look at some inputs of a dataset that has just been published.

    Args:
        tables: of the dataset.
        inputs: where they lie.

    Returns:
        What was seen. Two preparations of the same files see the same, unless the time is used up.

    Raises:
        StorageError: if a store of the sources does not answer.
    """
    end = time.monotonic() + MAX_SECONDS
    for_pictures, for_values = (_Budget(end=end, left_bytes=MAX_BYTES) for _ in range(2))
    seen = tuple(_see_refused(tables, inputs, for_pictures))
    values = tuple(_see_values(tables, inputs, for_values))
    return PreviewRecord(manifest=tables.manifest.digest, inputs=seen, values=values, left_out=for_pictures.left_out)


def _see_refused(tables: Tables, inputs: SourceInputs, budget: _Budget) -> Iterator[SeenInput]:
    reasons = dict(_choose_rows(tables.quarantine, MAX_INPUTS))
    reasons |= dict(_choose_rows(tables.ignored, MAX_INPUTS - len(reasons)))
    found = inputs.find(reasons)
    for uri, reason in reasons.items():
        if uri in found:
            yield _see_input(uri, found[uri], reason, inputs.sources, budget)


def _choose_rows(table: pa.Table, most: int) -> list[tuple[str, str]]:
    """Name and reason of the first rows of each rule, at most so many: first one of each rule, then a second, and so on."""
    ranked = []
    for rule in sorted(set(table["rule"].to_pylist()) - NOT_READ):
        rows = table.filter(pc.equal(table["rule"], rule)).slice(0, PER_RULE).select(["uri", "reason"]).to_pylist()
        ranked += [(place, rule, row["uri"], row["reason"]) for place, row in enumerate(rows)]
    return [(uri, reason) for _, _, uri, reason in sorted(ranked)[:most]]


def _see_input(uri: str, found: SourceInput, reason: str, sources: tuple[Bucket, ...], budget: _Budget) -> SeenInput:
    """Fields of the headers, and the picture of the file that the reason names, else of the middle one."""
    file = next((one for one in found.files if one.uri in reason), found.files[len(found.files) // 2])
    size, picture = sum(one.size for one in found.files), ""
    fields = found.facts | {"bytes": f"{size:,} in {count(len(found.files), 'file')}" if len(found.files) > 1 else f"{size:,}"}
    num_bytes = min(file.size, MAX_FILE_BYTES)
    if file.size and budget.allow(num_bytes, MAX_FILE_BYTES):
        looked = apply_steps(file.uri, file, [("look", partial(_preview, sources=sources, num_bytes=num_bytes))])
        if not isinstance(looked, Quarantined):  # else it ends the decoder, too: what is known of it has to do
            fields = found.facts | looked.fields | fields
            picture = "" if looked.picture is None else encode_pixels(looked.picture)
    return SeenInput(uri=uri, fields=tuple(fields.items()), picture=picture)


def _preview(file: ItemFile, sources: tuple[Bucket, ...], num_bytes: int) -> Preview:
    return preview(read_head(sources[file.source], file.path, num_bytes, version=file.version))


def _see_values(tables: Tables, inputs: SourceInputs, budget: _Budget) -> Iterator[SeenValues]:
    """Values of some inputs of each modality, of those that the page shows."""
    modalities = sorted(set(tables.catalog["modality"].unique().to_pylist()))
    uris = [row["source_uri"] for modality in modalities for row in spread(choose_inputs(tables.catalog, modality))]
    found = inputs.find(uris)
    for uri in uris:
        item = found[uri].item if uri in found else None
        if item and budget.allow(sum(file.size for file in item.files), MAX_INPUT_BYTES):
            counted = apply_steps(uri, item, [("look", partial(_count_values, inputs=inputs))])
            if isinstance(counted, SourceValues):
                yield SeenValues(uri=uri, values=counted)


def _count_values(item: Item, inputs: SourceInputs) -> SourceValues:
    files = tuple(read_whole(inputs.sources[file.source], file.path, file.size, version=file.version) for file in item.files)
    raw = RawItem(uri=item.uri, files=files, modality=item.modality, rules=inputs.rules, num_values=item.num_values)
    return count_values(item.decoder, raw)
