"""Rows of a table are matched with the listing before anything is scanned: which files they name, and what to report about it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from crossdim.foundation.counts import count
from crossdim.pipelines.sources.label_table import MAX_NAMED, TableRow
from crossdim.pipelines.sources.labels import FileKey, Known, Labels, LabelTable
from crossdim.pipelines.sources.listing import SourceFile
from crossdim.storage_schema.errors import Problem, UsageError

#: What a SeriesInstanceUID looks like; such rows wait for the scan if they name no file.
_UID = re.compile(r"[0-9]+(\.[0-9]+){3,}")
#: Unicode's default ignorable characters, the blank Braille pattern, and control characters that are no blanks.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)


def simplify(path: str) -> str:
    """Reduce all spellings of a path to one: NFC, slashes, no blanks at the ends, no ``.``, no needless slash."""
    parts = unicodedata.normalize("NFC", path.strip()).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


class _Places:
    """Files and folders of all sources by name: as spelled, else by their simplified spelling."""

    def __init__(self, files: Sequence[SourceFile], folders: Sequence[str], roots: Sequence[Sequence[str]]) -> None:
        found: dict[FileKey, None] = {}
        for file in files:
            found.update(dict.fromkeys(_upwards((file.source, file.path))))
        self._inside: dict[str, list[FileKey]] = {}
        self._beside: dict[str, list[FileKey]] = {}
        for source, path in found:
            if path:
                self._inside.setdefault(path, []).append((source, path))
            self._beside.setdefault(f"{folders[source]}/{path}".rstrip("/"), []).append((source, path))
        self._roots = roots
        self._plain: list[dict[str, list[FileKey]]] = []

    def _plain_names(self) -> list[dict[str, list[FileKey]]]:
        if not self._plain:
            for names in (self._inside, self._beside):
                by_plain: dict[str, list[FileKey]] = {}
                for name, places in names.items():
                    by_plain.setdefault(simplify(name), []).extend(places)
                self._plain.append(by_plain)
        return self._plain

    def find_named(self, path: str) -> list[FileKey]:
        """What ``path`` names, relative to a source or to the folder that holds it; several if it is ambiguous."""
        if found := _list_all((self._inside, self._beside), path.rstrip("/")):
            return found
        for source, roots in enumerate(self._roots):
            for root in roots:
                if path.startswith(root + "/"):
                    return [one for one in self._find_inside(path[len(root) + 1 :]) if one[0] == source]
        return _list_all(self._plain_names(), simplify(path))

    def _find_inside(self, path: str) -> list[FileKey]:
        return self._inside.get(path.rstrip("/")) or self._plain_names()[0].get(simplify(path), [])


def _list_all(names: Sequence[Mapping[str, list[FileKey]]], name: str) -> list[FileKey]:
    """Everything that a name means in any of these, each once."""
    return list(dict.fromkeys(place for one in names for place in one.get(name, ())))


def _upwards(place: FileKey) -> Iterator[FileKey]:
    """A file and the folders above it, the nearest first, down to the source itself."""
    source, path = place
    while path:
        yield source, path
        path = path.rpartition("/")[0]
    yield source, ""


def match_table(
    table: LabelTable,
    files: Sequence[SourceFile],
    needing: Sequence[SourceFile],
    folders: Sequence[str],
    roots: Sequence[Sequence[str]] = (),
) -> tuple[Labels, list[str]]:
    """Find the files that a table names: a row is about a file, or about all files in a folder; the nearest row counts.

    Args:
        table: the table.
        files: all files of all sources.
        needing: those that may be inputs; of the others only those that are named are counted.
        folders: name of each source's own folder.
        roots: absolute names of each source.

    Returns:
        What is known of the files, and sentences that say how well table and files fit.

    Raises:
        UsageError: with all that is wrong with the table at once, or if it names none of the files.
    """
    places = _Places(files, folders, roots)
    by_place: dict[FileKey, list[TableRow]] = {}
    strangers: dict[str, list[TableRow]] = {}
    problems = list(table.parsed.problems)
    for row in table.parsed.rows:
        found = places.find_named(row.path)
        if len(found) == 1:
            by_place.setdefault(found[0], []).append(row)
        elif found:
            names = " and ".join(repr(f"{folders[source]}/{path}") for source, path in found[:3])
            problems.append(Problem(loc=f"line {row.line}", message=f"{row.path!r} names {len(found)} inputs: {names}"))
        else:
            strangers.setdefault(simplify(row.path), []).append(row)
    known: dict[FileKey, Known] = {place: _one_of(rows, table, problems) for place, rows in by_place.items()}
    unmatched = {path: _one_of(rows, table, problems) for path, rows in strangers.items()}
    _refuse(table.where, problems)
    by_series = {path: one for path, one in unmatched.items() if _UID.fullmatch(path)}
    by_file = {}
    for file in files:
        key = next((place for place in _upwards((file.source, file.path)) if place in known), None)
        if key is not None:
            by_file[file.source, file.path] = known[key]
    if not by_series:
        check_found(table, by_file.values())
    counted = {(file.source, file.path): file for file in needing}
    counted |= {(file.source, file.path): file for file in files if (file.source, file.path) in by_file}
    lines = [
        *_describe_files(list(counted.values()), by_file),
        *_describe_rows(table, strangers, by_series),
        *_describe_missing(table),
        *_describe_alike(table),
    ]
    return Labels(by_file=by_file, by_series=by_series), lines


def _one_of(rows: Sequence[TableRow], table: LabelTable, problems: list[Problem]) -> Known:
    """What rows of one input say; a problem for each column on which they do not agree."""
    found: dict[str, str | None] = {}
    for name in ("label", "patient_id"):
        said = {row.line: value for row in rows if (value := getattr(table.known(row.cells), name)) is not None}
        values = list(dict.fromkeys(said.values()))
        found[name] = values[0] if values else None
        if len(values) > 1:
            column = table.label_column if name == "label" else table.patient_column
            lines = ", ".join(f"{value!r} in line {line}" for line, value in said.items())
            problems.append(Problem(loc=repr(rows[0].path), message=f"stands there with several values of {column}: {lines}"))
    return Known(**found)


def _refuse(where: str, problems: Sequence[Problem]) -> None:
    if problems:
        more = len(problems) - MAX_NAMED
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        named = [*map(str, problems[:MAX_NAMED]), *([f"and {more} more"] if more > 0 else [])]
        raise UsageError("\n  ".join([f"{where} ({count}); correct the table", *named]))


def check_found(table: LabelTable, found: Iterable[Known]) -> None:
    """Refuse a table that is about other files, or has no value for any of these.

    Args:
        table: the table.
        found: what it says of each input that it names.

    Raises:
        UsageError: if no input is named in it, or none has a value in a column asked for.
    """
    found = list(found)
    if not found:
        example = table.parsed.rows[0].path
        raise UsageError(
            f"{table.where} names none of the inputs; its paths, such as {example!r}, must be relative to SRC or to SRC's parent"
        )
    for column, values in (
        (table.label_column, [known.label for known in found]),
        (table.patient_column, [known.patient_id for known in found]),
    ):
        if column and not any(value is not None for value in values):
            raise UsageError(
                f"{table.where} names {count(len(found), 'input')}, but has no value for any of them in column {column!r}"
            )


def _describe_files(files: Sequence[SourceFile], by_file: dict[FileKey, Known]) -> list[str]:
    without = [file for file in files if (file.source, file.path) not in by_file]
    named = f"{len(files) - len(without)} of {len(files)} files named"
    return [f"{named}; {len(without)} without, such as {without[0].uri!r}" if without else named]


def _describe_rows(table: LabelTable, strangers: dict[str, list[TableRow]], by_series: dict[str, Known]) -> list[str]:
    rows = [row for path, found in strangers.items() if path not in by_series for row in found]
    lines = []
    if rows:
        first = min(rows, key=lambda row: row.line)
        lines.append(f"{len(rows)} of {len(table.parsed.rows)} rows name no file, such as {first.path!r} in line {first.line}")
    if by_series:
        lines.append(f"{len(by_series)} rows name no file, but look like series UIDs, and wait for the scan")
    return lines


def _describe_missing(table: LabelTable) -> list[str]:
    lines = []
    for column in table.columns:
        kept = table.label_column == column
        counts = Counter(
            row.cells[column] or "blank"
            for row in table.parsed.rows
            if (table.known(row.cells).label if kept else table.known(row.cells).patient_id) is None
        )
        if counts:
            spelled = ", ".join(f"{word} {count}" for word, count in sorted(counts.items()))
            lines.append(f"{counts.total()} of {len(table.parsed.rows)} rows have no {column} ({spelled}; see --missing-values)")
    return lines


def _describe_alike(table: LabelTable) -> list[str]:
    """Describe values that differ in spelling and perhaps not in meaning, such as 1 and 1.0."""
    lines = []
    for column in table.columns:
        spellings: dict[object, dict[str, None]] = {}
        for row in table.parsed.rows:
            spellings.setdefault(_find_meaning(row.cells[column]), {})[row.cells[column]] = None
        alike = [tuple(one) for one in spellings.values() if len(one) > 1]
        if alike:
            lines.append(f"{column} has {' and '.join(map(repr, alike[0][:3]))}, which are kept apart; spell one value one way")
    return lines


def _find_meaning(value: str) -> object:
    """The value without case, repeated blanks and invisible characters, such as U+200B and the soft hyphen."""
    value = unicodedata.normalize("NFKC", _INVISIBLE.sub("", value))
    if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", value):
        return float(value)
    return " ".join(value.split()).casefold()


def match_series(table: LabelTable, labels: Labels, series: Collection[str]) -> list[str]:
    """Match the rows that look like UIDs of series with the series that the scan found.

    Args:
        table: the table.
        labels: what it says.
        series: SeriesInstanceUID of each series; one that several studies or patients share stands there as often.

    Returns:
        A sentence, if there are such rows.

    Raises:
        UsageError: if a row names several series, or the whole table names none of the inputs.
    """
    if not labels.by_series:
        return []
    num_series = Counter(series)
    problems = [
        Problem(
            loc=f"line {row.line}", message=f"{row.path!r} names {num_series[uid]} inputs: series of several studies or patients"
        )
        for row in table.parsed.rows
        if (uid := simplify(row.path)) in labels.by_series and num_series[uid] > 1
    ]
    _refuse(table.where, problems)
    found = [known for uid, known in labels.by_series.items() if uid in series]
    check_found(table, [*found, *labels.by_file.values()])
    return [f"{len(found)} of {len(labels.by_series)} rows with a series UID name one of the {len(series)} series"]
