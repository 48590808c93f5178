"""Labels and patients that come with the data: from a table, or from the names of folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.sources.label_table import ParsedTable, is_missing, parse_table
from crossdim.pipelines.sources.listing import split_folder
from crossdim.storage_schema.errors import SampleError, UsageError

#: Of a table of labels, in bytes; our choice: about ten million rows.
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
        label_column: name of the column of labels; None if there is none.
        patient_column: name of the column of patients; None if there is none.
        missing: spellings that mean "no value"; None for the usual ones.

    Returns:
        The table, with what it says of each file or series.

    Raises:
        UsageError: for a table that cannot be read, or without the columns named.
        StorageError: if there is no such table.
    """
    folder, name = split_folder(table)
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
        by_file: of each file that a row or a folder is about.
        by_series: of each SeriesInstanceUID that a row names.
    """

    by_file: Mapping[FileKey, Known] = field(default_factory=dict)
    by_series: Mapping[str, Known] = field(default_factory=dict)

    @property
    def names_patients(self) -> bool:
        """Whether any patient is named."""
        return any(known.patient_id for known in (*self.by_file.values(), *self.by_series.values()))

    def with_stated(self, labels: Mapping[FileKey, str]) -> Labels:
        """A copy with the labels that files state themselves, where no row names one."""
        by_file = {**self.by_file}
        for file, label in labels.items():
            known = by_file.get(file, Known())
            by_file[file] = replace(known, label=known.label or label)
        return replace(self, by_file=by_file)

    def with_folders(self, names: Mapping[FileKey, str | None]) -> Labels:
        """A copy with names of folders as labels."""
        patients = {file: known.patient_id for file, known in self.by_file.items()}
        by_file = {file: Known(label=label, patient_id=patients.get(file)) for file, label in names.items()}
        return Labels(by_file=by_file, by_series=self.by_series)

    def of(self, files: Sequence[FileKey], series: str | None = None, places: Sequence[object] = ()) -> Known:
        """What is known of one input: a file, or all files of a series.

        A series is named by a row with its UID, or by rows of its folders or files: then of all its slices, since what is known
        of one slice need not hold for the others. All rows must agree.

        Args:
            files: of the input.
            series: its SeriesInstanceUID.
            places: of each file, where it lies in the series; of files of one place, which are copies, one row is enough. By
                default each lies at its own.

        Returns:
            Label and patient; None each where nothing is known.

        Raises:
            SampleError: rule ``label_conflict`` or ``patient_conflict``, ``partial_label`` or ``partial_patient``.
        """
        by_place: dict[object, list[Known]] = {}
        for file, place in zip(files, places or range(len(files)), strict=True):
            by_place.setdefault(place, []).append(self.by_file.get(file, Known()))
        own = self.by_series.get(series or "", Known())
        slices = list(by_place.values())
        return Known(
            label=_check_agreement([[known.label for known in copies] for copies in slices], own.label, "label"),
            patient_id=_check_agreement([[known.patient_id for known in copies] for copies in slices], own.patient_id, "patient"),
        )


def _check_agreement(slices: Sequence[Sequence[str | None]], own: str | None, what: str) -> str | None:
    """The one value that the rows of a series agree on, from its own row or from those of its slices.

    Raises:
        SampleError: as :meth:`Labels.of`; the values of labels are named, those of patients are not.
    """
    counts = Counter(value for copies in (*slices, [own]) for value in copies if value is not None)
    if len(counts) > 1:
        listed = (
            f"{len(counts)} values of {what}"
            if what == "patient"
            else ", ".join(f"{value!r} ({count})" for value, count in sorted(counts.items()))
        )
        raise SampleError(f"{what}_conflict", f"files of one series do not agree on their {what}: {listed}")
    named = sum(any(value is not None for value in copies) for copies in slices)
    if own is None and 0 < named < len(slices):
        raise SampleError(
            f"partial_{what}",
            f"the table names a {what} for {named} of {len(slices)} slices of this series, which need not hold for the others; "
            "name its folder, its SeriesInstanceUID or every slice",
        )
    return next(iter(counts), None)
