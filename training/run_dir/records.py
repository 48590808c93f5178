"""Reads and writes records: JSON objects in a run's folder, each with its own crc32c.

A damaged record is left out and counted.

A record is one line of JSON whose last member is ``"crc32c"``, of the line without that member. Lines without it, which older
releases wrote, are read as they are.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import google_crc32c

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError

#: Largest count that is believed: integers up to here are exact in every JSON reader.
MAX_COUNT = 2**53
#: Longest duration or time in seconds that is believed: the year 9999, the last that calendars know.
MAX_SECONDS = 253_402_300_799.0
_SEALED = re.compile(r'(\{.*), "crc32c": "([0-9a-f]{8})"\}\Z')
_MEMBER = '"crc32c"'

Record = dict[str, Any]


def record_text(values: Mapping[str, Any]) -> str:
    """Write a record of at least one value as one line of JSON, without the line's end."""
    text = json.dumps(values, sort_keys=True)
    return f'{text[:-1]}, {_MEMBER}: "{google_crc32c.value(text.encode()):08x}"}}'


def parse_record(text: str) -> Record | None:
    """Read the values of a record; None if the text is no record, or not what was written."""
    if (sealed := _SEALED.fullmatch(text)) and google_crc32c.value(f"{sealed[1]}}}".encode()) == int(sealed[2], 16):
        text = f"{sealed[1]}}}"
    elif _MEMBER in text:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
        return found if isinstance(found, dict) else None
    return None


def read_lines(run: Bucket, path: str) -> list[str]:
    """Read the lines of an object.

    Args:
        run: folder of the run.
        path: of the object.

    Returns:
        The lines that are not empty; none if the object is gone or cannot be read.
    """
    with contextlib.suppress(StorageError):
        return [line for line in run.read(path).decode(errors="replace").split("\n") if line]
    return []


def read_records(run: Bucket, path: str) -> list[Record]:
    """Read the records of an object.

    Args:
        run: folder of the run.
        path: of the object.

    Returns:
        The records without half-written and damaged lines; none if the object is gone.
    """
    return [record for line in read_lines(run, path) if (record := parse_record(line)) is not None]


Check = Callable[[Any], bool]


def is_count(value: Any) -> bool:
    """Whether a value counts something."""
    return type(value) is int and 0 <= value <= MAX_COUNT


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max


def is_seconds(value: Any) -> bool:
    """Whether a value is a time since 1970 or a duration."""
    return is_finite(value) and 0 <= value <= MAX_SECONDS


def is_text(value: Any) -> bool:
    """Whether a value is a text."""
    return isinstance(value, str)


def is_table(of: Check) -> Check:
    """Make the check whether a value is an object all of whose values pass a check."""
    return lambda value: isinstance(value, dict) and all(map(of, value.values()))


def keep_valid(record: Mapping[str, Any], checks: Mapping[str, Check]) -> Record:
    """Keep the members of a record that are known and pass their check.

    Args:
        record: what was read.
        checks: by name of the member.

    Returns:
        These members.
    """
    return {name: value for name, value in record.items() if name in checks and checks[name](value)}
