"""Inputs and tasks of a plan: what is read, decoded and published together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from crossdim.pipelines.jobs.names import SourceNames
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.sources.labels import Known
from crossdim.pipelines.sources.npz_paths import PARTS, parse_path
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.vocabulary import Modality, Split


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemFile:
    """One file of an item: where it is read, its name in the dataset, and its version in the listing."""

    source: int
    path: str
    uri: str
    size: int
    version: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One input: a file or a series, how it is decoded, the values that headers promise, the boxes reserved for it.

    Attributes:
        uri: its name in the dataset.
        patient: hashed with the dataset's key.
        burned_in_annotation: whether a header says that text is burned into the pixels.
        note: what the plan has to say of it in the catalog.
        split: that its source states; None where it is drawn.
    """

    uri: str
    files: tuple[ItemFile, ...]
    decoder: str
    modality: Modality
    label: str | None = None
    patient: str | None = None
    num_values: int = 0
    boxes: int = 0
    burned_in_annotation: bool = False
    note: str | None = None
    split: Split | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What one task does: items, and the first bank shard that is theirs."""

    number: int
    items: tuple[Item, ...]
    first_shard: int = 0
    num_shards: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Naming:
    """Label and patient of an input, its modality where no header states one, and its name in the dataset."""

    names: SourceNames = field(default_factory=SourceNames)
    known: Callable[[Sequence[ScanResult]], Known]
    modality: Callable[[ScanResult], Modality]

    def build_item(self, uri: str, files: Sequence[ScanResult], decoder: str) -> Item:
        """Build the item of these files; the modality is that of the first.

        Args:
            uri: name of the input in the dataset.
            files: of the input.
            decoder: name of the reader.

        Returns:
            The item, with label and hashed patient.

        Raises:
            SampleError: if the files do not agree on their label or patient.
        """
        first, known = files[0], self.known(files)
        image = parse_path(first.path)
        patient = known.patient_id or (first.header.patient_id if first.header else None)
        return Item(
            uri=uri,
            files=tuple(ItemFile(source=f.source, path=f.path, uri=f.uri, size=f.size, version=f.version) for f in files),
            decoder=decoder,
            modality=self.modality(first),
            label=known.label,
            patient=self.names.patient(patient) if patient else None,
            burned_in_annotation=any(f.header is not None and f.header.burned_in_annotation for f in files),
            num_values=sum(math.prod(f.header.shape) for f in files if f.header),
            note=f"official part {image.part}" if image and image.part not in list(Split) else None,
            split=PARTS[image.part] if image else None,
        )


def check_annotation(files: Sequence[ScanResult], rules: ReadRules) -> Sequence[ScanResult]:
    """Refuse an input with text burned into its pixels, if the recipe does.

    Args:
        files: of the input.
        rules: of the recipe.

    Returns:
        ``files``.

    Raises:
        SampleError: rule ``burned_in``.
    """
    annotated = sum(file.header is not None and bool(file.header.burned_in_annotation) for file in files)
    if annotated and rules.burned_in == "refuse":
        raise SampleError("burned_in", f"BurnedInAnnotation is YES in {annotated} of {len(files)} files; --burned-in refuse")
    return files
