"""The settings of ``prepare``, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.settings import to_document
from crossdim.pipelines.jobs.pseudonyms import PseudonymOptions
from crossdim.pipelines.jobs.recipe import Recipe
from crossdim.pipelines.jobs.request import table_document
from crossdim.pipelines.jobs.source_inputs import SourceInputs
from crossdim.pipelines.jobs.splits import Part
from crossdim.pipelines.jobs.unread import UnreadFormat
from crossdim.pipelines.sources.labels import LabelTable
from crossdim.storage_schema.manifest import Manifest
from crossdim.storage_schema.split import SplitRule
from crossdim.storage_schema.vocabulary import Modality

#: Fields that change no byte of the dataset, or that ``settings`` states in another form.
_NO_SETTINGS = frozenset({"sources", "out", "concurrency", "quiet", "pseudonyms", "label_table", "append"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """What a user asks for.

    Attributes:
        modality: is used where neither header nor folder names one.
        append: whether a published dataset with other inputs gets another version.
    """

    sources: tuple[Bucket, ...]
    out: Bucket
    recipe: Recipe
    name: str
    split: SplitRule = field(default_factory=SplitRule)
    pseudonyms: PseudonymOptions = field(default_factory=PseudonymOptions)
    modality: Modality | None = None
    label_table: LabelTable | None = None
    label_by_folder: bool = False
    include_label_maps: bool = False
    append: bool = False
    concurrency: int | None = None
    quiet: bool = False

    def settings(self) -> dict[str, Any]:
        """Everything that decides the bytes besides the input files, as JSON: all fields but those on where and how fast."""
        plain = {one.name: to_document(getattr(self, one.name)) for one in fields(self) if one.name not in _NO_SETTINGS}
        return plain | {"source_names": self.pseudonyms.names, "labels": table_document(self.label_table)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareResult:
    """The result of a preparation.

    Attributes:
        quarantined: number of inputs by rule.
        ignored: number of files by rule.
        ignored_formats: number of ignored files by format.
        unread: ignored files that look like images, by format.
        parts: what the parts of the split hold, by name.
        notes: sentences that the user should read.
        inputs: of what was published by this command; None for a dataset that was there.
        version: of the dataset.
        changes: how its inputs differ from those of the version before; empty for the first version.
        num_reused: samples that were taken over from the version before.
    """

    manifest: Manifest
    quarantined: dict[str, int]
    ignored: dict[str, int]
    ignored_formats: dict[str, int] = field(default_factory=dict)
    unread: dict[str, UnreadFormat] = field(default_factory=dict)
    already_published: bool = False
    parts: dict[str, Part] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inputs: SourceInputs | None = None
    version: int = 1
    changes: str = ""
    num_reused: int = 0

    @property
    def num_bytes(self) -> int:
        """Size of all objects."""
        return sum(entry.size for entry in self.manifest.objects)
