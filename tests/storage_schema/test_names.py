"""Names that are written down lead back to one file, and names that are shown cannot move a cursor."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crossdim.storage_schema.names import escape_name, printable, unescape_name

names = st.binary(max_size=12).map(os.fsdecode) | st.text(alphabet="\\x5cf8a\udcfcé", max_size=10)


@given(name=names)
@example(name="\\x5c")
@example(name="\\\udcfc")
@example(name="\\\\xfc")
def test_a_written_name_leads_back_to_its_file(name):
    """Whatever the bytes; and what is written is UTF-8, which JSON and Arrow can hold."""
    written = escape_name(name)

    assert written.encode().decode() == written
    assert unescape_name(written) == name


@given(one=names, other=names)
def test_two_files_are_never_written_alike(one, other):
    """A plan would read one of them twice."""
    assert (escape_name(one) == escape_name(other)) == (one == other)


@pytest.mark.parametrize("name", ["Größe #1.dcm", "back\\slash.png", "new\nline.png", "a\\x41.png", "cafe\u0301.png", "a\\xFC"])
def test_other_names_are_written_as_they_are(name):
    """The catalog speaks as the disk does."""
    assert escape_name(name) == name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\nerror: forged", r"a\x0aerror: forged"),
        ("gnp.\u202edcm", r"gnp.\u202edcm"),
        ("M\udcfcller", r"M\xfcller"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u2028b", r"a\u2028b"),
        ("\U000e0001", r"\U000e0001"),
        ("Größe 肺 é.png", "Größe 肺 é.png"),
    ],
)
def test_what_is_shown_holds_no_control(text, shown):
    """Escape sequences, reversed writing, forged lines: all are shown and none is obeyed."""
    assert printable(text) == shown


@given(text=st.text())
def test_what_is_shown_is_printable_throughout(text):
    """No control character of either kind is left; lines stay where they are wanted."""
    assert all(ord(c) >= 0x20 and ord(c) != 0x7F and not 0x80 <= ord(c) < 0xA0 for c in printable(text))
    assert printable(text, keep="\n").count("\n") == text.count("\n")
