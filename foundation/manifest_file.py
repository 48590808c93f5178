"""Reads the manifest of a dataset where it is published."""

from __future__ import annotations

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError
from crossdim.storage_schema.manifest import MANIFEST_PATH, Manifest, parse_manifest


def find_manifest(dataset: Bucket) -> Manifest | None:
    """Find the manifest of a dataset that is published there; None if there is none."""
    if not dataset.exists(MANIFEST_PATH):
        return None
    return parse_manifest(dataset.read_document(MANIFEST_PATH), dataset.where(MANIFEST_PATH))


def read_manifest(dataset: Bucket) -> Manifest:
    """Read the manifest of a dataset.

    Raises:
        StorageError: if there is none, so that nothing is published there.
        DocumentError: if it is not a manifest.
    """
    if (manifest := find_manifest(dataset)) is None:
        raise StorageError(
            f"{dataset.where('')} is not a published dataset: no {MANIFEST_PATH}. Prepare it, or let prepare finish"
        )
    return manifest
