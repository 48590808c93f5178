"""What can be taken over when files are added to a published dataset: the samples of inputs that are as they were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossdim.foundation.manifest_file import find_version_number
from crossdim.pipelines.duplicates import Duplicate, tells_more
from crossdim.pipelines.jobs.input_changes import InputChanges
from crossdim.pipelines.jobs.items import Item
from crossdim.pipelines.jobs.output import read_rows
from crossdim.pipelines.jobs.published import Published
from crossdim.pipelines.jobs.published_inputs import PublishedInputs
from crossdim.pipelines.jobs.recipe import Recipe, VolumeRecipe
from crossdim.pipelines.markers import Used
from crossdim.pipelines.quarantine import Quarantined
from crossdim.pipelines.reused import Reused
from crossdim.pipelines.sources.listing import SourceFile
from crossdim.storage_schema.catalog import CATALOG_SCHEMA, QUARANTINE_SCHEMA
from crossdim.storage_schema.manifest import Manifest
from crossdim.storage_schema.patient import known_patient

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """The version of a dataset that is added to.

    Attributes:
        version: its number.
        published: the dataset.
        record: of what it was made from.
        changes: of its inputs.
        rows: of its catalog, by input.
        refused: rows of its quarantine, by input or file.
    """

    version: int
    published: Published
    record: PublishedInputs
    changes: InputChanges
    rows: Mapping[str, Sequence[Row]]
    refused: Mapping[str, Sequence[Row]]

    @property
    def manifest(self) -> Manifest:
        """Of that version."""
        return self.published.manifest

    def identity(self) -> dict[str, object]:
        """What a plan that adds to this version has in its digest besides."""
        return {"added_to": self.manifest.digest}

    def find_first_shard(self, recipe: Recipe) -> int:
        """Number of the first bank shard whose positions no sample of this version has."""
        if not isinstance(recipe, VolumeRecipe):
            return 0
        positions = [int(row["position"]) for rows in self.rows.values() for row in rows]
        return max(positions, default=-1) // recipe.patches_per_shard + 1

    def choose(self, items: Sequence[Item]) -> set[str]:
        """Names of the items whose samples are taken over, and of those that repeat one of them and were refused for it.

        An item is taken over if its files, label, patient and note are what they were. All others are decoded: new ones, changed
        ones, and those that were refused for another reason.
        """
        members = self.record.members_by_input()
        same = [item for item in items if self._names_of(item) == members.get(item.uri)]
        taken = {item.uri for item in same if item.uri in self.rows and self._tells_the_same(item)}
        owners = {str(self.rows[uri][0]["source_sha256"]): self.rows[uri][0] for uri in taken}
        repeats = {item.uri for item in same if item.uri not in self.rows and self._repeats(item, owners)}
        return taken | repeats

    def reuse(self, items: Iterable[Item]) -> Reused:
        """Collect what is taken over.

        Args:
            items: that :meth:`choose` named.
        """
        chosen = list(items)
        taken = {item.uri: item for item in chosen if item.uri in self.rows}
        left_out = {uri: self._find_left_out(item) for uri, item in taken.items()}
        return Reused(
            version=self.version + 1,
            previous=self.manifest,
            catalog=tuple(row for uri, rows in self.rows.items() if uri in taken for row in rows),
            quarantine=tuple(one for rows in left_out.values() for one in rows),
            used=tuple(Used(uri=uri, num_files=len(item.files) - len(left_out[uri])) for uri, item in taken.items()),
            repeats=tuple(self._build_repeat(item) for item in chosen if item.uri not in taken),
        )

    def count_reused(self, catalog: Iterable[Mapping[str, object]]) -> int:
        """Count the rows of a catalog that this version has too."""
        before = {(row["object"], row["key"]) for rows in self.rows.values() for row in rows}
        return sum((row["object"], row["key"]) in before for row in catalog)

    def find_hashes(self, files: Iterable[SourceFile]) -> dict[str, str]:
        """The hashes of files that are as they were, as far as the table of names knows them, by their names in the listing."""
        known = {one.path: one.sha256 for one in self.published.named}
        return {file.uri: known.get(file.uri, "") for file in files if (file.source, file.path) in self.changes.names}

    def _names_of(self, item: Item) -> frozenset[str] | None:
        """Names of an item's files; None if one of them is new or changed."""
        names = [self.changes.names.get((file.source, file.path)) for file in item.files]
        return frozenset(name for name in names if name is not None) if None not in names else None

    def _tells_the_same(self, item: Item) -> bool:
        row = self.rows[item.uri][0]
        told = (row["label"], known_patient(row), self.record.notes.get(item.uri))
        return told == (item.label, item.patient, item.note)

    def _repeats(self, item: Item, owners: Mapping[str, Row]) -> bool:
        owner = owners.get(self.record.duplicates.get(item.uri, ""))
        return owner is not None and tells_more(item.label, item.patient) <= tells_more(owner["label"], known_patient(owner))

    def _build_repeat(self, item: Item) -> Duplicate:
        sha256 = self.record.duplicates[item.uri]
        return Duplicate(uri=item.uri, sha256=sha256, label=item.label, patient=item.patient, num_files=len(item.files))

    def _find_left_out(self, item: Item) -> list[Quarantined]:
        """Rows of the files of an item that are not used, as a slice that is stored twice."""
        return [Quarantined(**row) for file in item.files if file.uri != item.uri for row in self.refused.get(file.uri, ())]


def read_earlier(published: Published, changes: InputChanges) -> Earlier:
    """Read the tables of the version that is added to.

    Args:
        published: the dataset, with a record of its inputs.
        changes: of its inputs.

    Returns:
        The version.
    """
    assert published.record is not None
    rows, refused = defaultdict[str, list[Row]](list), defaultdict[str, list[Row]](list)
    for row in read_rows(published.out, published.manifest, "catalog", CATALOG_SCHEMA.names):
        rows[row["source_uri"]].append(row)
    for row in read_rows(published.out, published.manifest, "quarantine", QUARANTINE_SCHEMA.names):
        refused[row["uri"]].append(row)
    return Earlier(
        version=find_version_number(published.out, published.manifest),
        published=published,
        record=published.record,
        changes=changes,
        rows=rows,
        refused=refused,
    )
