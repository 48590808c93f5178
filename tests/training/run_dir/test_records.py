"""Records: no bit of one changes unseen, and what is none is left out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir.records import is_count, is_finite, is_seconds, parse_record, read_records, record_text

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
VALUES = st.dictionaries(st.text(max_size=5), SCALARS, min_size=1, max_size=5).filter(lambda values: "crc32c" not in values)


@given(VALUES)
def test_a_record_comes_back_and_is_plain_json(values: dict[str, object]) -> None:
    """Others read it with any JSON reader, and see one member more."""
    text = record_text(values)
    assert "\n" not in text
    assert parse_record(text) == values
    assert {name: value for name, value in json.loads(text).items() if name != "crc32c"} == values


RECORD = {"step": 12, "loss": 0.25, "terms": {"image/a": -1e-05}, "text": 'a "crc32c": "00000000" in a text'}


def test_no_bit_of_a_record_changes_unseen() -> None:
    """All bits: it is left out, or has the values that were written beside a member that nobody knows."""
    data, left_out = record_text(RECORD).encode(), 0
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        found = parse_record(bytes(changed).decode(errors="replace"))
        left_out += found is None
        if found is not None:
            assert {name: value for name, value in found.items() if name in RECORD} == RECORD
            assert len(found.keys() - RECORD.keys()) == 1
    assert left_out > 0.9 * 8 * len(data)


@pytest.mark.parametrize(
    "text", ["", "{}x", "[]", "7", "null", "\0\0", '{"a": ', "[" * 100_000, '{"a": 1' + "0" * 5000 + "}", "{'a': 1}"]
)
def test_what_is_no_record_is_left_out(text: str) -> None:
    assert parse_record(text) is None


def test_older_records_without_a_checksum_are_read() -> None:
    assert parse_record('{"step": 3}') == {"step": 3}


def test_damaged_lines_are_left_out_and_the_others_read(tmp_path: Path) -> None:
    run = Bucket(str(tmp_path))
    lines = [record_text({"step": number}) for number in range(4)]
    run.put("a", "\n".join([lines[0], lines[1].replace("1", "2", 1), "", "\0", lines[2][:-5], lines[3]]).encode() + b"\n\xff")
    assert read_records(run, "a") == [{"step": 0}, {"step": 3}]
    assert read_records(run, "nothing") == []


@pytest.mark.parametrize("value", [None, True, "1", [], {}, math.nan, math.inf, -math.inf, 10**400, -(10**400)])
def test_what_is_no_number_that_can_be_computed_with_is_none(value: object) -> None:
    assert [check(value) for check in (is_count, is_finite, is_seconds)] == [False] * 3


def test_numbers_have_their_ranges() -> None:
    assert [is_count(value) for value in (-1, 0, 2**53, 2**53 + 1, 1.0)] == [False, True, True, False, False]
    assert [is_seconds(value) for value in (-0.1, 0, 1.8e9, 1e12)] == [False, True, True, False]
    assert is_finite(-1e308)
