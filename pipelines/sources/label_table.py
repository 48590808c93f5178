"""A table of labels or patients as it is written: bytes to named cells, and everything that is wrong with them."""

from __future__ import annotations

import codecs
import csv
import io
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crossdim.storage_schema.errors import Problem, UsageError, describe_unknown_name

PATH_COLUMN = "path"
#: Possible delimiters; the table's is the one by which the header holds the columns asked for.
DELIMITERS = (",", ";", "\t", "|")
#: Cells that mean "no value", whatever their case, as pandas, SQL and spreadsheets write them.
MISSING_WORDS = frozenset({"", "nan", "-nan", "null", "n/a", "#n/a", "#na", "#n/a n/a", "<na>", "nat", "1.#ind", "-1.#ind"})
#: Only in this spelling: in lower case they are words, and ``none`` is a common class.
MISSING_SPELLINGS = frozenset({"NA", "None", "NONE"})
#: Problems of one kind that are named before the rest is counted.
MAX_NAMED = 50
_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, ""),
    (codecs.BOM_UTF32_BE, ""),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One row: the line it starts on, the path as written, and the cells of the other columns asked for, by column."""

    line: int
    path: str
    cells: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedTable:
    """All rows of a table, and the rows that could not be parsed."""

    rows: tuple[TableRow, ...]
    problems: tuple[Problem, ...]


def is_missing(cell: str, words: frozenset[str] | None = None) -> bool:
    """Whether a cell means that there is no value.

    Args:
        cell: without blanks at its ends.
        words: the spellings that mean it besides the blank cell; by default those that pandas, SQL and spreadsheets write.

    Returns:
        True for a blank cell and for those spellings.
    """
    if words is not None:
        return not cell or cell in words
    return cell in MISSING_SPELLINGS or cell.lower() in MISSING_WORDS


def decode_table(data: bytes, where: str) -> str:
    """Decode the text of a table: UTF-8, or UTF-16 with its byte order mark.

    Args:
        data: all bytes of the file.
        where: the table's name in messages.

    Returns:
        The text, without byte order mark.

    Raises:
        UsageError: for any other encoding, naming the first byte that does not fit.
    """
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    remedy = "save it as CSV in UTF-8"
    if not encoding:
        raise UsageError(f"{where} is UTF-32; {remedy}")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02X} in line {line} is not {error.encoding.upper()}"
        raise UsageError(f"{where} is no table in UTF-8 or UTF-16: {found}; {remedy}") from error
    if "\0" in text:
        raise UsageError(f"{where} holds NUL characters: UTF-16 without a byte order mark, or no text; {remedy}")
    return text


def _read_records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Read records, with the line that each starts on. A quote that is never closed is an error."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    for record in reader:
        if any(cell.strip() for cell in record):
            yield line, record
        line = reader.line_num + 1


def _read_header(text: str, delimiter: str) -> list[str]:
    try:
        _, names = next(_read_records(text, delimiter), (0, []))
    except csv.Error:
        return []
    return [unicodedata.normalize("NFC", name.strip()) for name in names]


def _split_delimiter_line(text: str) -> tuple[str, str]:
    """Split off Excel's first line ``sep=;``: the delimiter, or none, and the rest of the text."""
    first, _, rest = text.partition("\n")
    hint = first.strip("\r ").strip('"')
    return (hint[4:], rest) if hint[:4].lower() == "sep=" and hint[4:] in DELIMITERS else ("", text)


def _find_delimiter(text: str, columns: Sequence[str], where: str) -> str:
    if not text.strip():
        raise UsageError(f"{where} is empty; it needs a header with {' and '.join(columns)}")
    headers = {delimiter: _read_header(text, delimiter) for delimiter in DELIMITERS}
    fitting = [delimiter for delimiter, header in headers.items() if set(columns) <= set(header)]
    if len(fitting) == 1:
        return fitting[0]
    best = max(headers.values(), key=len)
    missing = [describe_unknown_name("column", column, [n for n in best if n]) for column in columns if column not in best]
    message = "; ".join(missing) or "several delimiters fit its header"
    raise UsageError(f"{where}: {message}. Columns are told apart by a comma, semicolon, tab or |")


def parse_table(data: bytes, columns: Sequence[str], where: str) -> ParsedTable:
    """Parse a table with a header.

    Args:
        data: all bytes of the file.
        columns: those wanted besides ``path``.
        where: the table's name in messages.

    Returns:
        The rows of the wanted columns, each with its line in the file.

    Raises:
        UsageError: for another encoding, missing or doubled columns, broken quotes, and a table without rows.
    """
    delimiter, text = _split_delimiter_line(decode_table(data, where))
    wanted = list(dict.fromkeys([PATH_COLUMN, *columns]))
    skipped = 1 if delimiter else 0
    delimiter = delimiter or _find_delimiter(text, wanted, where)
    header = _read_header(text, delimiter)
    problems = [describe_unknown_name("column", name, [n for n in header if n]) for name in wanted if name not in header]
    problems += [f"column {name!r} stands {header.count(name)} times" for name in wanted if header.count(name) > 1]
    if problems:
        raise UsageError(f"{where}: {'; '.join(problems)}")
    try:
        records = [(line + skipped, record) for line, record in _read_records(text, delimiter)][1:]
    except csv.Error as error:
        raise UsageError(f"{where} is no table: {error}; a quote is not closed, or follows its cell") from error
    if not records:
        raise UsageError(f"{where} has a header and no rows")
    return _parse_rows(records, header, wanted)


def _parse_rows(records: Sequence[tuple[int, list[str]]], header: Sequence[str], wanted: Sequence[str]) -> ParsedTable:
    places = {name: header.index(name) for name in wanted}
    rows: list[TableRow] = []
    problems: list[Problem] = []
    for line, record in records:
        if len(record) != len(header):
            problems.append(Problem(loc=f"line {line}", message=f"has {len(record)} cells; the header has {len(header)}"))
        elif not record[places[PATH_COLUMN]].strip():
            problems.append(Problem(loc=f"line {line}", message=f"has no {PATH_COLUMN}"))
        elif any(record[places[name]] != (cell := record[places[name]].lstrip()) and cell.startswith('"') for name in wanted):
            problems.append(Problem(loc=f"line {line}", message="a blank stands before a quote; remove it"))
        else:
            cells = {name: unicodedata.normalize("NFC", record[places[name]].strip()) for name in wanted}
            rows.append(TableRow(line=line, path=record[places[PATH_COLUMN]], cells=cells))
    return ParsedTable(rows=tuple(rows), problems=tuple(problems))
