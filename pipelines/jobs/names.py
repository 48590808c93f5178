"""Names of inputs in the dataset: their relative paths, or keyed hashes of them where paths may name a patient."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.readers.dicom_header import DICOM
from crossdim.pipelines.readers.registry import known_ending, promised_family
from crossdim.storage_schema.pseudonym import PseudonymKey

#: ``by_format``: hashed in every source that holds DICOM, whose folders and files are often named after patients.
NameRule = Literal["by_format", "hashed", "relative"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesId:
    """What the files of one DICOM series have in common. ``place`` (source and folder) is used where there is no series UID.

    Anonymised data may give one UID to several patients, so the patient is part of it.
    """

    study: str
    series: str
    patient: str
    place: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceNames:
    """Names of inputs in the dataset.

    Attributes:
        key: the secret key; None where nothing needs one.
        hashed: numbers of the sources whose inputs are called by hashes.
    """

    key: PseudonymKey | None = None
    hashed: frozenset[int] = frozenset()

    @property
    def key_id(self) -> str:
        """The id of the key in the manifest; empty where none is used."""
        return self.key.key_id if self.key else ""

    def _key(self) -> PseudonymKey:
        if self.key is None:
            raise ValueError("patients and DICOM series are hashed, which takes a key")
        return self.key

    def patient(self, identifier: str) -> str:
        """The hash of a patient."""
        return self._key().patient(identifier)

    def name_file(self, result: ScanResult) -> str:
        """The name of one file."""
        if result.source not in self.hashed:
            return result.uri
        return self._key().name(result.uri, known_ending(result.path))

    def name_series(self, series: SeriesId, files: Sequence[ScanResult]) -> str:
        """Name a series: the folder of its first file and a hash of its UIDs, or a hash alone.

        Args:
            series: the series.
            files: of the series.

        Returns:
            The name, without any UID.
        """
        identity = json.dumps([series.study, series.series, series.patient, series.place])
        if any(file.source in self.hashed for file in files):
            return self._key().name(identity)
        return f"{files[0].uri.rpartition('/')[0]}#{self._key().uid(identity)}"

    def publish(self, results: Iterable[ScanResult]) -> list[ScanResult]:
        """Give scan results their names in the dataset, sorted by these: the order of hashes reveals nothing about paths."""
        return sorted((replace(one, uri=self.name_file(one)) for one in results), key=lambda one: one.uri)


def holds_dicom(result: ScanResult) -> bool:
    """Whether a file is DICOM by its content or its name, used or not: reports, indexes and damaged files too."""
    is_index = result.path.rpartition("/")[2].upper() == "DICOMDIR"
    is_usable = result.header is not None and result.header.format == DICOM
    return result.is_dicom or is_usable or is_index or promised_family(result.path) == DICOM


def choose_names(
    results: Sequence[ScanResult], rule: NameRule, *, has_patients: bool, load_key: Callable[[], PseudonymKey]
) -> SourceNames:
    """Choose how the inputs of a preparation are named.

    Args:
        results: of all files.
        rule: what is hashed.
        has_patients: whether a table names patients, which are hashed too.
        load_key: gives the secret key; called only if something is hashed.

    Returns:
        The names of all sources, with the key if one is needed.
    """
    with_dicom = frozenset(result.source for result in results if holds_dicom(result))
    every = frozenset(result.source for result in results)
    hashed = {"by_format": with_dicom, "hashed": every, "relative": frozenset[int]()}[rule]
    identified = any(result.header and (result.header.patient_id or result.header.series) for result in results)
    return SourceNames(key=load_key() if hashed or with_dicom or has_patients or identified else None, hashed=hashed)


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedFile:
    """One file of the sources as the table of names holds it.

    Attributes:
        path: its path.
        name: its name in the dataset.
        series: the name of the series that it belongs to.
        version: that was listed (see ``StoredObject``).
        sha256: of its content; empty if it was not read whole.
    """

    path: str
    name: str
    series: str = ""
    version: str = ""
    sha256: str = ""


#: Of the table of names.
_COLUMNS = tuple(one.name for one in fields(NamedFile))


def serialise_name_table(files: Iterable[NamedFile]) -> bytes:
    """Serialise the table that leads from names in the dataset back to files, as CSV; it is not published."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([getattr(file, column) for column in _COLUMNS] for file in sorted(files, key=lambda file: file.path))
    return text.getvalue().encode("utf-8", "surrogateescape")


def parse_name_table(data: bytes) -> list[NamedFile]:
    """Parse a table of names; empty for a file that is not such a table."""
    reader = csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline=""), restval="")
    if not {"path", "name"} <= set(reader.fieldnames or ()):
        return []
    return [NamedFile(**{column: row[column] for column in _COLUMNS if column in row}) for row in reader]


def make_readable(sentence: str, files: Iterable[NamedFile]) -> str:
    """Replace names by paths in a sentence for the owner of the sources, and names of series by their folders.

    Args:
        sentence: that may hold names of the dataset.
        files: the table of names.

    Returns:
        The sentence; it must not be published.
    """
    for file in files:
        sentence = sentence.replace(file.name, file.path)
        if file.series:
            sentence = sentence.replace(file.series, f"the series in {file.path.rpartition('/')[0] or 'the source'}")
    return sentence
