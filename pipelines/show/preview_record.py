"""What ``prepare`` saw in the sources and the dataset does not hold: pictures of refused files, and values before any stage.

It lies beside the manifest, which does not name it: format, digests and readers of the dataset do not change, and a page can be
made again where the sources are not at hand.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.settings import from_document, to_document
from crossdim.pipelines.readers.source_values import SourceValues
from crossdim.pipelines.scratch import parse_checked, to_checked_bytes
from crossdim.storage_schema.errors import DocumentError
from crossdim.storage_schema.manifest import Manifest

_LOG = logging.getLogger(__name__)
#: Where it lies in a dataset.
PREVIEWS = "previews.json"
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenInput:
    """One input that was refused or ignored: technical header fields by name, and a data URI of its picture, or nothing."""

    uri: str
    fields: tuple[tuple[str, str], ...]
    picture: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenValues:
    """One input that was used, and its values before any stage."""

    uri: str
    values: SourceValues


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewRecord:
    """What was seen of the inputs of one dataset.

    Attributes:
        manifest: digest of the dataset that it belongs to; a record of another one is not shown.
        inputs: that were refused or ignored.
        values: of inputs that were used.
        left_out: inputs that were not looked at, because files or time would have been too much.
    """

    manifest: str
    version: int = VERSION
    inputs: tuple[SeenInput, ...] = ()
    values: tuple[SeenValues, ...] = ()
    left_out: int = 0


def write_previews(dataset: Bucket, record: PreviewRecord) -> None:
    """Write the record of a dataset.

    Args:
        dataset: where it is published.
        record: of the dataset.
    """
    dataset.put(PREVIEWS, to_checked_bytes(to_document(record)))


def read_previews(dataset: Bucket, manifest: Manifest) -> PreviewRecord:
    """Read the record of a dataset.

    Args:
        dataset: where it is published.
        manifest: of the dataset.

    Returns:
        The record; an empty one if there is none, as of datasets that were made before there were any, or if it is damaged or
        belongs to another dataset.

    Raises:
        StorageError: if the store does not answer.
    """
    nothing = PreviewRecord(manifest=manifest.digest)
    if not dataset.exists(PREVIEWS):
        return nothing
    try:
        found = from_document(PreviewRecord, parse_checked(dataset.read(PREVIEWS)), subject=PREVIEWS)
    except (ValueError, DocumentError):
        _LOG.warning("%s is damaged, so pictures of what was refused are not shown", dataset.where(PREVIEWS))
        return nothing
    return found if (found.manifest, found.version) == (manifest.digest, VERSION) else nothing
