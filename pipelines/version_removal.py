"""Removes earlier versions of a dataset: objects that no kept version names, and only such as preparations write."""

from __future__ import annotations

from dataclasses import dataclass

from crossdim.foundation.bucket import Bucket, StoredObject
from crossdim.foundation.counts import count
from crossdim.foundation.location import format_location
from crossdim.foundation.manifest_file import find_version_number, list_versions, read_manifest
from crossdim.foundation.rates import format_size
from crossdim.foundation.removal import check_links
from crossdim.pipelines.scratch import WORK
from crossdim.storage_schema.errors import StorageError, UsageError
from crossdim.storage_schema.manifest import MANIFEST_PATH
from crossdim.storage_schema.versions import inputs_path, is_dataset_object, version_path


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionRemoval:
    """Versions of a dataset that may be removed, as they were found.

    Attributes:
        dataset: where it is published.
        kept: numbers of the versions that stay, in order.
        removed: numbers of those that go.
        objects: that no kept version names; also what preparations left that were never published.
        manifest: of the newest version, as it is stored.
    """

    dataset: Bucket
    kept: tuple[int, ...]
    removed: tuple[int, ...]
    objects: tuple[StoredObject, ...]
    manifest: StoredObject

    @property
    def num_bytes(self) -> int:
        """Size of what goes."""
        return sum(one.size for one in self.objects)

    def describe(self, *, done: bool = False) -> str:
        """What goes and what stays, in one sentence.

        Args:
            done: whether it is gone.

        Returns:
            The sentence.
        """
        where, kept = format_location(self.dataset.url), _format_versions(self.kept)
        if not self.objects:
            return f"{where} holds nothing that {kept} does not use"
        what = (
            f"{count(len(self.objects), 'object')} of {_format_versions(self.removed)}"
            if self.removed
            else (f"{count(len(self.objects), 'object')} that no version names")
        )
        verb = "removed" if done else "would be removed"
        return f"{where}: {what}, {format_size(self.num_bytes)}, {verb}; {kept} stays"

    def paths(self) -> tuple[list[str], list[str]]:
        """Manifests that go, and everything else that does."""
        manifests = [version_path(number) for number in self.removed]
        return manifests, [one.path for one in self.objects if one.path not in manifests]


def _format_versions(numbers: tuple[int, ...]) -> str:
    return f"version{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"


def check_version_removal(dataset: Bucket, keep: int) -> VersionRemoval:
    """Find what may be removed from a dataset.

    Args:
        dataset: where it is published.
        keep: how many of the newest versions stay, at least 1.

    Returns:
        What would be removed.

    Raises:
        UsageError: if a version is in preparation, or the folder is a link or holds links.
        StorageError: if nothing is published there, or a kept version lacks objects.
    """
    newest = read_manifest(dataset)
    if dataset.exists(WORK):
        raise UsageError(
            f"a version of {dataset.where('')} is in preparation: see crossdim status, and let it finish; if nobody goes on with "
            f"it, delete {dataset.where(WORK)}"
        )
    check_links(dataset)
    current, numbers = find_version_number(dataset, newest), list_versions(dataset)
    if numbers and current != numbers[-1]:
        raise UsageError(f"version {numbers[-1]} of {dataset.where('')} is being published; repeat the prepare command first")
    kept = tuple(numbers[-keep:]) or (current,)
    manifests = {number: read_manifest(dataset, number) for number in kept}
    used = {MANIFEST_PATH, *(version_path(number) for number in kept)}
    for manifest in manifests.values():
        used |= {inputs_path(manifest.plan_digest), *(entry.path for entry in manifest.objects)}
    stored = {one.path: one for one in dataset.list_objects(problems=True)}
    if lost := sorted({entry.path for one in manifests.values() for entry in one.objects} - stored.keys()):
        raise StorageError(
            f"{dataset.where(lost[0])} of a version that stays is missing, so nothing is removed; run crossdim verify"
        )
    return VersionRemoval(
        dataset=dataset,
        kept=kept,
        removed=tuple(number for number in numbers if number not in kept),
        objects=tuple(one for path, one in stored.items() if path not in used and is_dataset_object(path) and not one.problem),
        manifest=stored[MANIFEST_PATH],
    )


def remove_versions(found: VersionRemoval, keep: int) -> None:
    """Remove what was found: each object by its exact name, and folders that are left empty.

    Manifests go first, so that no version is named of which objects are missing; what is left after a failure is found again.

    Args:
        found: the versions as they were checked.
        keep: as in :func:`check_version_removal`.

    Raises:
        UsageError: as :func:`check_version_removal`.
        StorageError: if the dataset is not as it was checked any more, whereupon nothing is removed; or if something cannot be.
    """
    dataset = found.dataset
    if check_version_removal(dataset, keep) != found:
        raise StorageError(f"{dataset.where('')} has changed since it was checked, so nothing was removed; repeat the command")
    for paths in found.paths():
        dataset.delete_exactly(paths)
    for folder in sorted({one.path.partition("/")[0] for one in found.objects}):
        dataset.at(folder).delete_empty_folders()
