"""Listings follow links: everything that can be read is listed, everything else is told by name, and no loop is walked twice."""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.object_store import PROBLEMS
from crossdim.storage_schema.errors import StorageError


def listed(folder: Path | str) -> dict[str, str]:
    """What is listed, with its problem."""
    return {one.path: one.problem for one in Bucket(str(folder)).list_objects(problems=True)}


@pytest.fixture
def tree(tmp_path) -> Path:
    """A folder with a file, and a store of files outside of it, as dataset managers keep them."""
    (tmp_path / "src" / "sub").mkdir(parents=True)
    (tmp_path / "store" / "d").mkdir(parents=True)
    (tmp_path / "src" / "real").write_bytes(b"1")
    (tmp_path / "store" / "d" / "in").write_bytes(b"23")
    return tmp_path


def test_linked_files_and_folders_are_listed_under_the_names_of_the_links(tree):
    """With the size of what is read, and also through links to links and relative ones."""
    (tree / "src" / "file").symlink_to(tree / "store" / "d" / "in")
    (tree / "src" / "sub" / "twice").symlink_to("../file")
    (tree / "src" / "folder").symlink_to("../store")
    bucket = Bucket(str(tree / "src"))

    assert listed(tree / "src") == dict.fromkeys(["file", "folder/d/in", "real", "sub/twice"], "")
    assert {one.path: one.size for one in bucket.list_objects()} == {"file": 2, "folder/d/in": 2, "real": 1, "sub/twice": 2}
    assert [bucket.read(one.path) for one in bucket.list_objects()] == [b"23", b"23", b"1", b"23"]


def test_a_source_that_is_a_link_is_listed(tree):
    """As itself, with any slashes after it."""
    (tree / "link").symlink_to(tree / "src")
    assert listed(tree / "link") == listed(f"{tree}/link//") == {"real": ""}


def test_what_cannot_be_read_is_told_by_name(tree):
    """And only where problems are asked for: a run's folder is listed for its objects."""
    src = tree / "src"
    (src / "dangling").symlink_to(src / "nowhere")
    (src / "behind_a_file").symlink_to(src / "real" / "x")
    (src / "self").symlink_to("self")
    (src / "ping").symlink_to("pong")
    (src / "pong").symlink_to("ping")
    (src / "loop").symlink_to(src)
    (src / "sub" / "up").symlink_to("../..")
    os.mkfifo(src / "pipe")
    (src / "null").symlink_to("/dev/null")
    expected = {
        "behind_a_file": "dangling_link",
        "dangling": "dangling_link",
        "loop": "link_loop",
        "null": "special_file",
        "ping": "link_loop",
        "pipe": "special_file",
        "pong": "link_loop",
        "real": "",
        "self": "link_loop",
        "sub/up/src": "repeated_link",
        "sub/up/store/d/in": "",
    }

    assert listed(src) == expected
    assert set(expected.values()) - {""} <= set(PROBLEMS)
    assert [one.path for one in Bucket(str(src)).list_objects()] == ["real", "sub/up/store/d/in"]


def test_a_folder_is_listed_once_and_by_its_own_name_first(tree):
    """Two links to one folder would give every sample twice; the second is told."""
    src = tree / "src"
    (src / "a").symlink_to(src / "sub")
    (src / "sub" / "x").write_bytes(b"1")
    (src / "b").symlink_to(tree / "store")
    (src / "c").symlink_to(tree / "store" / "d")

    assert listed(src) == {"a": "repeated_link", "b/d/in": "", "c": "repeated_link", "real": "", "sub/x": ""}


def test_a_folder_that_may_not_be_read_is_told(ordinary_user):
    """Its files would otherwise be missing without a word."""
    closed = ordinary_user / "closed"
    closed.mkdir()
    (closed / "x").write_bytes(b"1")
    (ordinary_user / "real").write_bytes(b"1")
    closed.chmod(0)

    assert listed(ordinary_user) == {"closed": "unreadable", "real": ""}
    with pytest.raises(StorageError, match="not allowed"):
        Bucket(str(closed)).list_objects()


def test_links_among_folders_do_not_multiply(tmp_path):
    """Twelve folders that all link to each other have a billion paths; each is listed once, in a moment."""
    for one in range(12):
        (tmp_path / f"{one}").mkdir()
        (tmp_path / f"{one}" / "file").write_bytes(b"1")
        for other in range(12):
            (tmp_path / f"{one}" / f"to{other}").symlink_to(tmp_path / f"{other}")
    start = time.monotonic()
    found = listed(tmp_path)

    assert time.monotonic() - start < 5
    assert sorted(path for path, problem in found.items() if not problem) == sorted(f"{one}/file" for one in range(12))
    assert len(found) == 12 + 144


def test_a_deep_tree_is_listed(tmp_path):
    """Deeper than Python would call itself."""
    place = tmp_path
    for _ in range(60):
        place = place / "d"
    place.mkdir(parents=True)
    (place / "file").write_bytes(b"1")
    assert len(listed(tmp_path)) == 1


@given(seed=st.integers(0, 10**6))
def test_every_file_that_links_lead_to_is_listed(seed):
    """Held to os.walk, which follows links without a guard: in trees without loops both reach the same files."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, "src")]
        folders[0].mkdir()
        for number in range(draw.randint(1, 8)):
            folder = draw.choice([*folders, Path(name)]) / f"f{number}"
            folder.mkdir()
            folders.append(folder)
            (folder / "file").write_bytes(str(number).encode())
        for number in range(draw.randint(0, 6)):  # from older folders to younger ones: no loops
            low, high = sorted(draw.sample(range(len(folders)), 2)) if len(folders) > 2 else (0, 1)
            target = folders[high] if draw.random() < 0.6 else folders[high] / "file"
            (folders[low] / f"l{number}").symlink_to(target)
        walked = [Path(where, file) for where, _, names in os.walk(folders[0], followlinks=True) for file in names]
        reached = {os.path.realpath(place) for place in walked}
        found = Bucket(str(folders[0])).list_objects(problems=True)
        read = [one for one in found if not one.problem]

        assert {os.path.realpath(folders[0] / one.path) for one in read} == reached
        assert {folders[0] / one.path for one in read} <= set(walked)
        assert len({one.path for one in found}) == len(found)


def test_a_delete_removes_links_and_not_what_they_lead_to(tree):
    """Of a folder with links in it, of a link itself, and of a folder reached by one."""
    (tree / "src" / "folder").symlink_to(tree / "store")
    (tree / "src" / "sub" / "file").symlink_to(tree / "store" / "d" / "in")
    Bucket(str(tree)).delete("src")
    assert not (tree / "src").exists()
    (tree / "link").symlink_to(tree / "store")
    Bucket(str(tree)).delete("link")

    assert not (tree / "link").is_symlink()
    assert (tree / "store" / "d" / "in").read_bytes() == b"23"
