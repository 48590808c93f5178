"""What a storage argument means, held to what the operating system makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.foundation.location import contains, parse_location, split_weight
from crossdim.storage_schema.errors import UsageError


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working folder beside a home folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~", "home"),
        ("~/x", "home/x"),
        ("~/x//y/", "home/x/y"),
        ("x", "work/x"),
        ("./x/", "work/x"),
        ("x//y///z", "work/x/y/z"),
        (".", "work"),
        ("../home", "home"),
        ("x [1] #2 %20 ?*", "work/x [1] #2 %20 ?*"),
        (" x ", "work/ x "),
        ("a:b", "work/a:b"),
        ("x/~", "work/x/~"),
    ],
)
def test_a_folder_is_one_absolute_path(here, text, path):
    """However it is written; a shell leaves ``--out=~/x`` to us."""
    assert parse_location(text) == str(here / path)


def test_a_file_url_is_its_path(here):
    """Without decoding: ``%20`` may stand in a name."""
    assert parse_location(f"file://{here}/a%20b//c/") == f"{here}/a%20b/c"
    assert parse_location(f"FILE://localhost{here}") == str(here)
    assert parse_location(f"//{here}") == str(here)


def test_the_parent_of_a_linked_folder_is_where_the_link_leads(here):
    """As the operating system has it; a path cut as text would name another folder."""
    (here / "far" / "deep").mkdir(parents=True)
    (here / "work" / "link").symlink_to(here / "far" / "deep")

    assert parse_location("link/../x") == str(here / "far" / "x")
    assert os.path.realpath("link/../x") == str(here / "far" / "x")


def test_a_folder_whose_name_begins_with_a_tilde_is_found_or_asked_for(here):
    """No folder called ``~nobody`` may appear by mistake."""
    with pytest.raises(UsageError, match=r"no home folder ~nobody-here; .* write \./~nobody-here"):
        parse_location("~nobody-here/x")
    (here / "work" / "~tilde.png").write_bytes(b"")

    assert parse_location("~tilde.png") == str(here / "work" / "~tilde.png")
    assert parse_location("./~nobody-here/x") == str(here / "work" / "~nobody-here" / "x")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://lab/a", "s3://lab/a"),
        ("s3://lab/a/", "s3://lab/a"),
        ("S3://lab//a//b/", "s3://lab//a//b"),
        ("s3://lab/exp[7]*?#%20 ~", "s3://lab/exp[7]*?#%20 ~"),
        ("memory://x/", "memory://x"),
    ],
)
def test_a_url_keeps_its_keys_exactly(text, url):
    """Empty names within a key are names to an object store."""
    assert parse_location(text) == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty text"),
        ("  ", "empty text"),
        ("s3:/lab/x", r"did you mean s3://lab/x\?"),
        ("s3:lab", r"did you mean s3://lab\?"),
        ("S3:/lab", r"did you mean s3://lab\?"),
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("s3://lab/x?versionId=7", "versions of objects"),
        ("file://host/x", "file:///FOLDER"),
        ("file://x", "file:///FOLDER"),
        ("a\0b", "NUL"),
    ],
)
def test_what_names_nothing_is_refused_in_a_sentence(here, text, said):
    """A typing error would otherwise become a folder."""
    with pytest.raises(UsageError, match=said):
        parse_location(text)
    assert os.listdir() == []


def _split(text: str, *there: str) -> tuple[str, float]:
    return split_weight(text, lambda location: location in there)


@pytest.mark.parametrize(
    ("text", "there", "read"),
    [
        ("s3://a/b", (), ("s3://a/b", 1.0)),
        ("s3://a/b:0.6", ("s3://a/b",), ("s3://a/b", 0.6)),
        ("s3://a/b:2", ("s3://a/b:2",), ("s3://a/b:2", 1.0)),
        ("s3://a/b:2/", ("s3://a/b", "s3://a/b:2"), ("s3://a/b:2", 1.0)),
        ("s3://a/b/:2", ("s3://a/b", "s3://a/b:2"), ("s3://a/b", 2.0)),
        ("s3://a/b:2:1", ("s3://a/b", "s3://a/b:2"), ("s3://a/b:2", 1.0)),
        ("s3://a/b:2:3", ("s3://a/b:2:3",), ("s3://a/b:2:3", 1.0)),
        ("/d/2026-05-01T10:30", ("/d/2026-05-01T10:30",), ("/d/2026-05-01T10:30", 1.0)),
        ("/d/x:y", ("/d/x:y",), ("/d/x:y", 1.0)),
        ("/d/typo:2", (), ("/d/typo", 2.0)),
        ("/d/x:1e-3", ("/d/x",), ("/d/x", 1e-3)),
    ],
)
def test_what_exists_decides_between_a_name_and_a_weight(text, there, read):
    """A folder may be called ``set:2``; a slash says which is meant without a look."""
    assert _split(text, *there) == read


def test_two_datasets_that_one_argument_may_mean_are_both_named():
    """With a spelling for each, and both spellings are understood."""
    there = ("/d/set", "/d/set:2")
    with pytest.raises(UsageError) as caught:
        _split("/d/set:2", *there)
    assert "the dataset /d/set:2, or the dataset /d/set with weight 2" in str(caught.value)
    assert "Write /d/set:2:1 for the first, /d/set/:2 for the second" in str(caught.value)
    assert _split("/d/set:2:1", *there) == ("/d/set:2", 1.0)
    assert _split("/d/set/:2", *there) == ("/d/set", 2.0)


def test_neither_a_weight_nor_a_dataset_is_said():
    """With what was typed."""
    with pytest.raises(UsageError, match=r"/d/x:much does not exist, and 'much' is no weight"):
        _split("/d/x:much", "/d/x")


@given(st.text(alphabet="ab:/.0~", max_size=12).filter(lambda text: "//" not in text))
def test_an_existing_folder_is_never_read_as_another(text):
    """Whatever its name: with only that folder there, it is the one that is read."""
    place = f"/d/{text.replace('..', '').strip('/')}x"
    assert _split(place, parse_location(place))[0] == parse_location(place)
    assert _split(f"{place}:0", parse_location(f"{place}:0")) == (parse_location(f"{place}:0"), 1.0)


def test_a_folder_contains_what_lies_in_it_whatever_leads_there(here):
    """Links on either side, names that do not exist yet, and spellings."""
    (here / "src" / "deep").mkdir(parents=True)
    (here / "link").symlink_to(here / "src")
    (here / "inner").symlink_to(here / "src" / "deep")
    (here / "srcs").mkdir()
    source = str(here / "src")
    inside = ["src", "src/new/out", "link", "link/out", "inner/out", "src//out/", "srcs/../src/out", "link/../src/deep"]

    assert [name for name in inside if not contains(source, f"{here}/{name}")] == []
    assert [name for name in inside if not contains(f"{here}/link", f"{here}/{name}")] == []
    assert [name for name in ("srcs", "sr", "", "srcs/src", "work") if contains(source, f"{here}/{name}")] == []


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("s3://lab/raw", "s3://lab/raw/out", True),
        ("s3://lab/raw", "s3a://lab/raw/out", True),
        ("s3://lab", "s3://lab/raw", True),
        ("s3://lab/raw", "s3://lab/raw2", False),
        ("s3://lab/raw", "s3://lab/raw[1]", False),
        ("s3://lab/raw", "/lab/raw/out", False),
    ],
)
def test_a_prefix_contains_the_keys_below_it(outer, inner, expected):
    """Not those that only begin alike."""
    assert contains(outer, inner) is expected
