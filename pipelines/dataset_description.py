"""What lies beside the manifest of a dataset for people: page, card, provenance and previews."""

from __future__ import annotations

import json
import logging
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.provenance import format_time
from crossdim.pipelines.jobs.source_inputs import SourceInputs
from crossdim.pipelines.show.card import CARD, PROVENANCE, build_card
from crossdim.pipelines.show.page import PAGE, build_page
from crossdim.pipelines.show.preview_record import write_previews
from crossdim.pipelines.show.previews import look_at_sources
from crossdim.pipelines.show.summary import Tables, read_tables
from crossdim.storage_schema.errors import CrossdimError

_LOG = logging.getLogger(__name__)


def describe_dataset(out: Bucket, provenance: dict[str, Any] | None, inputs: SourceInputs | None) -> bool:
    """Write page, card, provenance and previews beside the manifest of a dataset, which is published without them, too.

    Args:
        out: the dataset.
        provenance: of one that has just been published; None for one that was there, whose page is written if it has none.
        inputs: of one that has just been published, for previews; None for none.

    Returns:
        Whether the page is there.
    """
    try:
        if provenance is None and out.exists(PAGE):
            return True
        tables = read_tables(out)
        ended = provenance and provenance | {"ended": format_time()}
        if ended:
            out.put(PROVENANCE, json.dumps(ended, indent=1, sort_keys=True).encode())
            out.put(CARD, build_card(tables, ended))
        if inputs:
            _write_previews(out, tables, inputs)
        out.put(PAGE, build_page(out, tables))
    except CrossdimError as error:
        _LOG.warning("%s has no page: %s; crossdim show --html makes one", out.where(""), error)
        return False
    return True


def _write_previews(out: Bucket, tables: Tables, inputs: SourceInputs) -> None:
    """Write what is seen of refused files and of values before any stage; the page is made without it, too."""
    try:
        write_previews(out, look_at_sources(tables, inputs))
    except (CrossdimError, MemoryError) as error:  # of a decoder that the system ended: the dataset is published all the same
        _LOG.warning("the page has no pictures of what was refused, and no values before clipping: %s", error)
