"""Labels and patients that came with the data: a table beside it, or the names of its folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.sources.label_table import ParsedTable, is_missing, parse_table
from crossdim.pipelines.sources.listing import as_folder
from crossdim.storage_schema.errors import SampleError, UsageError

#: Of a table of labels, in bytes; ours: some ten million rows.
MAX_TABLE_BYTES = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known of one input."""

    label: str | None = None
    patient_id: str | None = None


#: A file: the number of its source, and its path in it.
FileKey = tuple[int, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelTable:
    """A table of labels, as read.

    Attributes:
        where: its name in messages.
        missing: spellings that mean "no value"; None for the usual ones.
    """

    parsed: ParsedTable
    where: str
    label_column: str | None = None
    patient_column: str | None = None
    missing: frozenset[str] | None = None

    @property
    def columns(self) -> list[str]:
        """The columns that are read, without the path."""
        return [column for column in (self.label_column, self.patient_column) if column]

    def known(self, cells: Mapping[str, str]) -> Known:
        """What one row says."""

        def value(column: str | None) -> str | None:
            return cells[column] if column and not is_missing(cells[column], self.missing) else None

        return Known(label=value(self.label_column), patient_id=value(self.patient_column))


def read_labels(
    table: Bucket, label_column: str | None, patient_column: str | None, missing: frozenset[str] | None = None
) -> LabelTable:
    """Read a CSV with a column ``path``.

    Args:
        table: the CSV object.
        label_column: column of labels, if any.
        patient_column: column of patients, if any.
        missing: spellings that mean "no value"; None for the usual ones.

    Raises:
        UsageError: for a table that cannot be read, or without the columns named.
        StorageError: if there is no such table.
    """
    folder, name = as_folder(table)
    found = table.list_objects()
    if [one.path for one in found] != [""]:
        raise UsageError(f"{table.where('')} is a folder, or no file; --labels takes a CSV file")
    if found[0].size > MAX_TABLE_BYTES:
        raise UsageError(f"{table.where('')} has {found[0].size:,} bytes; a table of labels has at most {MAX_TABLE_BYTES:,}")
    columns = [column for column in (label_column, patient_column) if column]
    parsed = parse_table(folder.read(name), columns, table.where(""))
    return LabelTable(
        parsed=parsed, where=table.where(""), label_column=label_column, patient_column=patient_column, missing=missing
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What is known of the files of a preparation.

    Attributes:
        by_file: of each file that a row or a folder speaks of.
        by_series: of each SeriesInstanceUID that a row names.
    """

    by_file: Mapping[FileKey, Known] = field(default_factory=dict)
    by_series: Mapping[str, Known] = field(default_factory=dict)

    @property
    def names_patients(self) -> bool:
        """Whether a patient is named of any input."""
        return any(known.patient_id for known in (*self.by_file.values(), *self.by_series.values()))

    def with_folders(self, names: Mapping[FileKey, str | None]) -> Labels:
        """The same, with names of folders as labels."""
        patients = {file: known.patient_id for file, known in self.by_file.items()}
        by_file = {file: Known(label=label, patient_id=patients.get(file)) for file, label in names.items()}
        return Labels(by_file=by_file, by_series=self.by_series)

    def of(self, files: Iterable[FileKey], series: str | None = None) -> Known:
        """What is known of one input: a file, or all files of a series.

        A series is named by a row with its UID, by rows of its folders, or by rows of any of its files; all must agree.

        Raises:
            SampleError: rule ``label_conflict`` or ``patient_conflict``.
        """
        found = [self.by_file[file] for file in files if file in self.by_file]
        found += [self.by_series[series]] if series and series in self.by_series else []
        return Known(
            label=_agree([known.label for known in found], "label"),
            patient_id=_agree([known.patient_id for known in found], "patient"),
        )


def _agree(values: Iterable[str | None], what: str) -> str | None:
    counts = Counter(value for value in values if value is not None)
    if len(counts) > 1:
        told = (
            f"{len(counts)} values of {what}"
            if what == "patient"
            else ", ".join(f"{value!r} ({count})" for value, count in sorted(counts.items()))
        )
        raise SampleError(f"{what}_conflict", f"files of one series do not agree on their {what}: {told}")
    return next(iter(counts), None)
