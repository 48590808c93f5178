"""Labels and patients that came with the data: a CSV beside it, or the names of its folders."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from foundation.bucket import Bucket
from pipelines.sources.listing import as_folder
from storage_schema.errors import UsageError, unknown_name

PATH_COLUMN = "path"


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known of one input."""

    label: str | None = None
    patient_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What is known of inputs, by path. With ``by_folder``, a label is the name of the folder that holds the file."""

    rows: Mapping[str, Known] = field(default_factory=dict)
    by_folder: bool = False

    def of(self, path: str, folder: str) -> Known:
        """What is known of the file at ``path`` in a source whose folder is called ``folder``.

        Rows may name the file, or the folder of a series, relative to the source or to the folder that holds the source.
        """
        if self.by_folder:
            return Known(label=f"{folder}/{path}".split("/")[-2])
        for place in (path, path.rpartition("/")[0]):
            for name in (place, f"{folder}/{place}".rstrip("/")):
                if name and name in self.rows:
                    return self.rows[name]
        return Known()


def read_labels(table: Bucket, label_column: str | None, patient_column: str | None) -> Labels:
    """Read a CSV with a column ``path``.

    Args:
        table: the CSV object.
        label_column: column of labels, if any.
        patient_column: column of patients, if any.

    Raises:
        UsageError: for a table without the columns named.
        StorageError: if there is no such table.
    """
    folder, name = as_folder(table)
    try:
        rows = list(csv.DictReader(io.StringIO(folder.read(name).decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{table.url} is no CSV in UTF-8: {error}") from error
    known = [column for column in (rows[0] if rows else {}) if isinstance(column, str)]
    for column in (PATH_COLUMN, label_column, patient_column):
        if column and column not in known:
            raise UsageError(f"{table.url}: {unknown_name('column', column, known)}")
    return Labels(rows={row[PATH_COLUMN].strip("/"): _known(row, label_column, patient_column) for row in rows})


def _known(row: Mapping[str, str], label_column: str | None, patient_column: str | None) -> Known:
    return Known(
        label=(row[label_column] or None) if label_column else None,
        patient_id=(row[patient_column] or None) if patient_column else None,
    )


def check_matched(labels: Labels, found: Sequence[Known], table: str) -> None:
    """Refuse a table that speaks of other files.

    Raises:
        UsageError: if no input is named in it.
    """
    if labels.rows and not any(known.label or known.patient_id for known in found):
        example = next(iter(labels.rows))
        raise UsageError(
            f"{table} names none of the inputs; its paths, such as {example!r}, must be relative to SRC or to SRC's parent"
        )
