"""Reasons are published and digested: they must not tell one process, machine or run from another."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.pipelines.quarantine import build_quarantine_row
from crossdim.pipelines.readers.probe import probe
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.reasons import MAX_CHARACTERS, format_foreign_text, format_warning, remove_addresses
from crossdim.storage_schema.errors import SampleError

REPOSITORY = Path(__file__).resolve().parents[2]
_WORDS = st.text(alphabet="abcdefghij ", max_size=20)


class Thing:
    """Its repr holds an address."""

    def __init__(self, inside: object = None) -> None:
        self.inside = inside

    def __repr__(self) -> str:
        return f"<Thing of {self.inside!r} at {hex(id(self))}>"


_OF_THIS_MACHINE = st.one_of(
    st.builds(lambda: repr(object())),
    st.builds(lambda: repr(Thing(Thing(object())))),
    st.integers(2**28, 2**48).map(hex),
    st.lists(st.text(alphabet="abcXYZ09_-", min_size=1, max_size=8), min_size=1, max_size=5).map(
        lambda parts: "/" + "/".join(parts)
    ),
    st.just(r"C:\Users\somebody\scan.dcm"),
    st.just("tmpab12cd_9"),
    st.datetimes().map(lambda when: when.isoformat()),
    st.integers(1, 2**22).map(lambda number: f"pid {number}"),
    st.uuids().map(str),
)
_FORBIDDEN = re.compile(r"0x[0-9a-f]{7}|somebody|tmpab|pid \d|\d{4}-\d\d-\d\d|[0-9a-f]{8}-[0-9a-f]{4}-| /\w|:\d\d:")


@given(_WORDS, _OF_THIS_MACHINE, _WORDS)
def test_nothing_of_this_process_or_machine_survives_in_the_text_of_a_library(before, of_here, after):
    text = format_foreign_text(ValueError(f"{before} {of_here} {after}"))

    assert not _FORBIDDEN.search(text), text
    assert " ".join(before.split()) in text


@given(st.text())
def test_a_text_is_one_printable_line_of_bounded_length_and_is_stable(said):
    text = format_foreign_text(ValueError(said))

    assert text.isprintable()
    assert len(text) <= MAX_CHARACTERS + 3


@given(_WORDS, st.builds(lambda: repr(Thing(object()))))
def test_a_sentence_of_ours_loses_its_addresses_and_nothing_else(words, of_here):
    assert "0x" not in remove_addresses(f"{words} {of_here}")
    assert remove_addresses(words) == words


def test_values_quoted_from_a_file_are_left_out():
    """Such a value may be a name or a birth date."""
    for error in (ValueError("could not convert string to float: 'Muster^Max'"), ValueError(f"magic {b'Muster'!r} is wrong")):
        assert "Muster" not in format_foreign_text(error)


def test_an_error_of_ours_keeps_what_it_says():
    reason = "chunk b'IDAT' at byte 41 of the PNG does not match its checksum"

    assert build_quarantine_row("a", "decode", SampleError("checksum", reason)).reason == reason


def test_an_error_that_was_not_foreseen_tells_its_kind_and_function_and_none_of_its_text():
    """No text at all: a library may write a value of the file without quotes around it."""

    def parse(text: str) -> None:
        raise ValueError(f"cannot parse {text}")

    try:
        parse("Muster^Max born 19530817")
    except ValueError as error:
        raised = build_quarantine_row("a", "decode", error)

    assert (raised.rule, raised.reason) == ("ValueError", "an error that was not foreseen: ValueError in parse")
    assert build_quarantine_row("a", "decode", KeyError("Muster^Max")).reason.endswith("KeyError in a function that is not known")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0", b"\xff\xd8\xff\xe0ab", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_damaged_header_is_refused_in_a_sentence_of_ours(name, content):
    with pytest.raises(SampleError) as caught:
        probe(name, len(content), lambda _: content, ReadRules())

    assert caught.value.rule == "damaged"
    assert not _FORBIDDEN.search(caught.value.reason)
    assert "BytesIO" not in caught.value.reason


_PLAN_OF = """
import sys
from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.jobs.items import Naming
from crossdim.pipelines.jobs.plan import make_plan
from crossdim.pipelines.jobs.scan import scan_file
from crossdim.pipelines.recipes import resolve
from crossdim.pipelines.sources.labels import Known
from crossdim.pipelines.sources.listing import list_sources
from crossdim.storage_schema.vocabulary import Modality

sources, files = list_sources([Bucket(sys.argv[1])])
results = [scan_file(file, sources, ReadRules()) for file in files]
naming = Naming(known=lambda _: Known(), modality=lambda _: Modality.OT)
print(make_plan(results, resolve(sys.argv[2]), naming, {"name": "t"}).digest)
"""


@pytest.mark.parametrize("recipe", ["xray-pseudo3d:tiny", "mixed-superpatches:tiny"])
@pytest.mark.integration
def test_two_processes_make_one_plan_of_broken_headers(recipe, tmp_path):
    """Addresses and the order of sets differ between processes; a digest over them would refuse its own dataset."""
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0ab")
    (tmp_path / "cut.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\0\0ZZ\xff\xff")
    (tmp_path / "cut.nii").write_bytes(b"\x5c\x01\0\0" + b"\0" * 340 + b"n+1\0")
    (tmp_path / "cut.nii.gz").write_bytes(b"\x1f\x8b\x08\0abcd")
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", _PLAN_OF, str(tmp_path), recipe], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout)

    assert len(digests) == 1


def test_a_warning_of_a_library_gives_neither_its_file_nor_its_line_nor_its_source():
    message = format_warning(UserWarning("Corrupt EXIF data"), UserWarning, "/usr/lib/python3/PIL/TiffImagePlugin.py", 876)
    assert format_foreign_text(UserWarning(message)) == "UserWarning: Corrupt EXIF data"

    text = format_foreign_text(ValueError("/usr/lib/PIL/Image.py:3575: error in line 12 of x.py, line 7"))
    assert not re.search(r"\d|Image.py", text), text
