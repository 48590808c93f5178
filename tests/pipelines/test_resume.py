"""What a preparation begins with, what it leaves, and what it trusts of that when it goes on; none of it needs Ray."""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs.inputs import check_inputs, record_inputs
from crossdim.pipelines.jobs.output import check_free
from crossdim.pipelines.jobs.plan import PLAN_VERSION
from crossdim.pipelines.jobs.request import RequestDigests
from crossdim.pipelines.markers import FileRead, Marker, find_finished_rows, marker_path, parse_marker, read_markers
from crossdim.pipelines.publish import count_files
from crossdim.pipelines.quarantine import Ignored, Quarantined
from crossdim.pipelines.scratch import INPUTS, WORK, parse_checked, to_checked_bytes
from crossdim.pipelines.sources.listing import list_sources
from crossdim.pipelines.sources.reading import read_head, read_whole
from crossdim.storage_schema.digest import canonical_json, digest
from crossdim.storage_schema.errors import CrossdimError, SampleError, StorageError, UsageError
from crossdim.storage_schema.manifest import ObjectEntry
from crossdim.storage_schema.pseudonym import PseudonymKey
from tests.pipelines.corpora import write_images

PLAN = "0123456789abcdef" * 4
SETTINGS = {"recipe": {"side": 4}, "name": "x"}


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Bucket, Bucket]:
    """A source with three files, and a dataset begun from it whose first row has read a.png."""
    source, out = Bucket(str(tmp_path / "src")), Bucket(str(tmp_path / "out"))
    for name in ("a.png", "b.png", "c.png"):
        source.put(name, name.encode() * 5)
    hold(source, out)
    listed = source.list_objects()[0]
    sha256 = hashlib.sha256(source.read("a.png")).hexdigest()
    read = FileRead(source=0, path="a.png", size=listed.size, version=listed.version, sha256=sha256)
    out.put("images/x-000000.tar", b"12345")
    entry = ObjectEntry(path="images/x-000000.tar", size=5, sha256="0" * 64, role="shard")
    marker = Marker(plan=PLAN, row=0, objects=(entry,), catalog=(), quarantine=(), files=(read,))
    out.put(marker_path(PLAN, 0), marker.to_bytes())
    return source, out


def hold(source: Bucket, out: Bucket, settings: dict[str, object] | None = None) -> None:
    sources, files = list_sources([source])
    check_inputs(out, settings or SETTINGS, sources, files)
    record_inputs(out, settings or SETTINGS, files)


def write_anew(source: Bucket, path: str, data: bytes) -> None:
    """Written a second later, whatever the resolution of the file system's clock."""
    source.put(path, data)
    later = os.stat(source.full(path)).st_mtime_ns + 10**9
    os.utime(source.full(path), ns=(later, later))


def test_nothing_has_changed_and_it_goes_on(begun):
    source, out = begun
    before = out.read(INPUTS)
    hold(source, out)

    assert out.read(INPUTS) == before
    assert list(find_finished_rows(out, PLAN)) == [0]


@pytest.mark.parametrize("path", ["a.png", "b.png"])
@pytest.mark.parametrize("data", [b"other", b"a.pngXXXXXXXXXXXXXXXXXXXX"])
def test_a_source_that_was_written_anew_is_refused_by_its_name(begun, path, data):
    """Of another size or of the same, read by a finished row or not."""
    source, out = begun
    write_anew(source, path, data)

    with pytest.raises(
        StorageError, match=rf"1 changed, 0 gone, 0 new, such as {path} \(25 bytes, modified 20.*; now "
    ) as caught:
        hold(source, out)
    assert "to go on, put back the files as they were, modification times too" in str(caught.value)


def test_sources_that_are_gone_or_new_are_refused_by_their_names(begun):
    source, out = begun
    source.delete("b.png")
    source.put("d.png", b"d")

    with pytest.raises(StorageError, match=r"0 changed, 1 gone, 1 new, such as b.png \(gone\), d.png \(new\)"):
        hold(source, out)


def test_equal_bytes_written_anew_are_the_same_input_where_a_finished_row_knows_their_hash(begun):
    source, out = begun
    write_anew(source, "a.png", source.read("a.png"))
    hold(source, out)
    hold(source, out)  # and the new version is recorded

    write_anew(source, "b.png", source.read("b.png"))
    with pytest.raises(StorageError, match=r"such as b\.png"):
        hold(source, out)


def test_other_settings_are_refused_by_their_names(begun):
    source, out = begun

    with pytest.raises(StorageError, match="begun with another name and another recipe"):
        hold(source, out, {"recipe": {"side": 8}, "name": "y"})


def test_as_long_as_no_row_is_finished_other_inputs_begin_anew(begun):
    source, out = begun
    out.delete(marker_path(PLAN, 0))
    write_anew(source, "a.png", b"other")
    hold(source, out)

    assert b'"size":5' in out.read(INPUTS)


def test_a_changed_object_of_a_store_is_refused_by_its_etag(s3_bucket, tmp_path):
    source, out = s3_bucket.at("raw"), Bucket(str(tmp_path / "out"))
    source.put("a.png", b"12345")
    version = source.list_objects()[0].version
    hold(source, out)
    out.put(marker_path(PLAN, 0), b"{}")
    assert read_whole(source, "a.png", 5, version=version) == b"12345"
    source.put("a.png", b"54321")

    with pytest.raises(StorageError, match=f"a.png .5 bytes, {version}; now 5 bytes, "):
        hold(source, out)
    with pytest.raises(SampleError, match="written anew"):
        read_whole(source, "a.png", 5, version=version)


def test_a_file_that_changes_while_it_is_prepared_is_told(begun):
    source, _ = begun
    listed = source.list_objects()[0]
    assert read_whole(source, "a.png", listed.size, version=listed.version) == b"a.png" * 5
    write_anew(source, "a.png", b"b.png" * 5)

    with pytest.raises(SampleError, match="written anew") as caught:
        read_whole(source, "a.png", listed.size, version=listed.version)
    assert caught.value.rule == "changed"
    write_anew(source, "a.png", b"cut")
    with pytest.raises(SampleError, match="written anew"):  # a header that is longer than what is left
        read_head(source, "a.png", listed.size, version=listed.version)


def test_a_file_that_ends_before_its_listed_size_is_refused_alone(tmp_path):
    """As files of /sys do, which a link may lead to: the other files go on."""
    (tmp_path / "a.png").write_bytes(b"short")
    with pytest.raises(SampleError, match="fewer bytes than it is listed with") as refused:
        read_head(Bucket(str(tmp_path)), "a.png", 4096)
    assert refused.value.rule == "unreadable"


@given(st.data())
def test_a_marker_with_any_changed_or_missing_byte_is_not_read(data):
    """Flipped, cut, or with something behind it."""
    marker = Marker(plan=PLAN, row=7, objects=(), catalog=(), quarantine=(), files=())
    good = marker.to_bytes()
    assert parse_marker(good) == marker
    place = data.draw(st.integers(0, len(good) - 1))
    flipped = bytearray(good)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))

    for bad in (bytes(flipped), good[:place], good + b"\n", b""):
        with pytest.raises(ValueError, match=r"checksum"):
            parse_marker(bad)


@given(st.recursive(st.none() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])), lambda inner: st.lists(inner)))
def test_checked_documents_come_back(document):
    assert parse_checked(to_checked_bytes(document)) == document


def _flip(out: Bucket) -> None:
    data = bytearray(out.read(marker_path(PLAN, 0)))
    data[40] ^= 1
    out.put(marker_path(PLAN, 0), bytes(data))


def _of_another_row(out: Bucket) -> None:
    marker = parse_marker(out.read(marker_path(PLAN, 0)))
    out.put(marker_path(PLAN, 0), replace(marker, row=3).to_bytes())


DAMAGES: dict[str, Callable[[Bucket], None]] = {
    "does not match the checksum": _flip,
    "belongs to another row": _of_another_row,
    "which is gone": lambda out: out.delete("images/x-000000.tar"),
    "which has 4": lambda out: out.put("images/x-000000.tar", b"1234"),
}


@pytest.mark.parametrize(("message", "damage"), DAMAGES.items())
def test_a_marker_that_cannot_be_trusted_is_told_and_its_row_done_again(begun, message, damage, caplog):
    _, out = begun
    damage(out)

    assert find_finished_rows(out, PLAN) == {}
    assert message in caplog.text
    with pytest.raises(StorageError, match="nothing is published"):
        read_markers(out, PLAN, [0])


def test_a_damaged_record_of_inputs_is_refused(begun):
    source, out = begun
    out.put(INPUTS, out.read(INPUTS)[:-9])

    with pytest.raises(StorageError, match="is damaged"):
        hold(source, out)


def test_markers_without_a_record_are_another_plan(begun):
    source, out = begun
    out.delete(INPUTS)

    with pytest.raises(StorageError, match="another plan"):
        hold(source, out)


@pytest.mark.parametrize(
    ("path", "free"),
    [
        (None, True),
        (".DS_Store", True),
        (f"{WORK}/inputs.json", True),
        ("images/1.png", False),
        ("config.json", False),
        (f"{WORK}/a", False),
    ],
)
def test_a_place_with_other_files_is_not_written_to(path, free, tmp_path):
    """Somebody's images, a run, or anything else that no preparation has left."""
    out = Bucket(str(tmp_path / "out"))
    if path:
        out.put(path, b"x")
    if free:
        check_free(out)
    else:
        with pytest.raises(UsageError, match="no dataset of crossdim, such as"):
            check_free(out)


def test_an_output_that_is_a_file_or_holds_other_files_is_told_before_anything_is_scanned(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    write_images(tmp_path / "src", count=2)
    (tmp_path / "file").write_text("x")
    for out, message in ((tmp_path / "file", "is a file"), (tmp_path, "lies inside")):
        assert main(["prepare", str(tmp_path / "src"), "--recipe", "xray-pseudo3d:tiny", "--out", str(out)]) == 1
        assert message in capsys.readouterr().err


def test_the_digest_of_a_request_is_that_of_its_document(begun):
    """It is put together of parts, so that other settings are tried in no time however many files there are."""
    source, _ = begun
    _, files = list_sources([source])
    named = sorted([file.uri, file.size, file.problem] for file in files)
    document = {"version": PLAN_VERSION, "settings": SETTINGS, "files": named}
    key = PseudonymKey(b"1" * 16)

    assert RequestDigests(files, None).digest_of(SETTINGS) == digest(document)
    keyed = hmac.new(key.secret, b"document:" + canonical_json(document), "sha256")
    assert RequestDigests(files, key).digest_of(SETTINGS) == keyed.hexdigest()


def test_a_request_is_its_settings_names_and_sizes_and_the_key_hides_them(begun):
    source, _ = begun
    _, files = list_sources([source])
    moved = [replace(file, version="another") for file in files]
    keys = [PseudonymKey(b"1" * 16), PseudonymKey(b"2" * 16)]
    digests = [RequestDigests(files, key).digest_of(SETTINGS) for key in (None, *keys)]

    assert RequestDigests(moved, None).digest_of(SETTINGS) == digests[0]
    others = [RequestDigests(files, None).digest_of({}), RequestDigests(files[:-1], None).digest_of(SETTINGS)]
    others.append(RequestDigests([replace(files[0], size=1), *files[1:]], None).digest_of(SETTINGS))
    assert len({*digests, *others}) == 6
    assert all(len(one) == 64 for one in digests)


def test_files_that_do_not_add_up_are_never_published():
    quarantined = [Quarantined(uri="a", stage="scan", rule="r", reason="r", num_files=3)]
    ignored = [Ignored(uri="b", format="csv", rule="r", reason="r")]

    assert count_files(6, [2], quarantined, ignored).used == 2
    for total in (5, 7):
        with pytest.raises(CrossdimError, match="Nothing is published"):
            count_files(total, [2], quarantined, ignored)
