"""Reads the manifests of a dataset where it is published, and publishes another version of it."""

from __future__ import annotations

import contextlib

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import DocumentError, StorageError, UsageError
from crossdim.storage_schema.manifest import MANIFEST_PATH, Manifest, parse_manifest
from crossdim.storage_schema.versions import MANIFESTS, find_versions, version_path


def find_manifest(dataset: Bucket) -> Manifest | None:
    """Find the newest manifest of a dataset that is published there; None if there is none."""
    if not dataset.exists(MANIFEST_PATH):
        return None
    return _read(dataset, MANIFEST_PATH)


def holds_dataset(folder: Bucket) -> bool:
    """Whether a folder holds a published dataset; False if that cannot be told, or the manifest is another program's."""
    with contextlib.suppress(StorageError, DocumentError):
        return find_manifest(folder) is not None
    return False


def read_manifest(dataset: Bucket, version: int | None = None, *, prefer_digest: str | None = None) -> Manifest:
    """Read the manifest of a dataset.

    Args:
        dataset: where it is published.
        version: of the dataset; None for the newest.
        prefer_digest: of the version that is read where it is still there, as by a run that began with it.

    Returns:
        The manifest.

    Raises:
        StorageError: if there is none, so that nothing is published there.
        UsageError: if there is no such version.
        DocumentError: if it is not a manifest.
    """
    if (manifest := find_manifest(dataset)) is None:
        raise StorageError(
            f"{dataset.where('')} is not a published dataset: no {MANIFEST_PATH}. Prepare it, or let prepare finish"
        )
    if version is not None:
        return _read_version(dataset, manifest, version)
    if prefer_digest is None or manifest.digest == prefer_digest:
        return manifest
    earlier = (_read(dataset, version_path(number)) for number in reversed(list_versions(dataset)))
    return next((one for one in earlier if one.digest == prefer_digest), manifest)


def _read(dataset: Bucket, path: str) -> Manifest:
    return parse_manifest(dataset.read_document(path), dataset.where(path))


def _read_version(dataset: Bucket, newest: Manifest, version: int) -> Manifest:
    known = list_versions(dataset)
    if version in known:
        return _read(dataset, version_path(version))
    if not known and version == 1:
        return newest
    there = ", ".join(map(str, known)) or "1"
    raise UsageError(f"{dataset.where('')} has no version {version}; there is version {there}. crossdim gc removes earlier ones")


def list_versions(dataset: Bucket) -> list[int]:
    """List the versions whose manifests are kept by number, in order; none of a dataset to which nothing was ever added."""
    if not dataset.exists(MANIFESTS):
        return []
    return find_versions(one.path for one in dataset.list_objects(MANIFESTS))


def find_version_number(dataset: Bucket, manifest: Manifest) -> int:
    """Find the number of a version.

    Args:
        dataset: where it is published.
        manifest: of the version.

    Returns:
        Its number; 1 for a dataset to which nothing was ever added.

    Raises:
        StorageError: if it is none of the versions.
    """
    known = list_versions(dataset)
    if not known:
        return 1
    data = manifest.to_bytes()
    for number in reversed(known):
        if dataset.read(version_path(number)) == data:
            return number
    raise StorageError(f"{dataset.where(MANIFEST_PATH)} is none of the versions in {dataset.where(MANIFESTS)}; restore it")


def publish_next_version(dataset: Bucket, previous: Manifest, manifest: Manifest, version: int) -> None:
    """Publish the next version of a dataset: it is there once its numbered manifest is, which only one process can create.

    Args:
        dataset: where it is published.
        previous: the newest version.
        manifest: of the next version, all of whose objects are written.
        version: its number.

    Raises:
        StorageError: if another process has published this version meanwhile.
    """
    before, data = dataset.read(MANIFEST_PATH), manifest.to_bytes()
    is_next = before in (previous.to_bytes(), data)
    if is_next and before != data:
        is_next = _create(dataset, version_path(version - 1), before)
    if not is_next or not _create(dataset, version_path(version), data):
        raise StorageError(
            f"another process has published version {version} of {dataset.where('')} meanwhile; repeat the same command to add "
            "to that version what it lacks"
        )
    finish_publication(dataset)


def _create(dataset: Bucket, path: str, data: bytes) -> bool:
    """Whether an object of these bytes is there, now or already."""
    return dataset.create(path, data) or dataset.read(path) == data


def find_newest_manifest(dataset: Bucket) -> Manifest | None:
    """Find the manifest of the highest version, for those who write: if it is not the newest yet, it becomes that."""
    if not dataset.exists(MANIFEST_PATH):
        return None
    finish_publication(dataset)
    return find_manifest(dataset)


def finish_publication(dataset: Bucket) -> None:
    """Make the highest version the newest one, also where whoever published it was killed in between.

    Looks again afterwards: a slow process may not put an earlier version over a later one.
    """
    known = list_versions(dataset)
    while known:
        newest, data = known[-1], dataset.read(version_path(known[-1]))
        if dataset.read(MANIFEST_PATH) != data:
            dataset.put(MANIFEST_PATH, data)
        known = list_versions(dataset)
        if known[-1] == newest:
            return
