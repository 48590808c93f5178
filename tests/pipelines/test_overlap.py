"""Inputs and output never meet, whatever links lead where; and scratch is removed without what is not ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import crossdim.pipelines.cli
from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.markers import marker_path, remove_scratch
from crossdim.pipelines.scratch import WORK
from crossdim.pipelines.sources.overlap import check_apart, check_links_apart
from crossdim.storage_schema.errors import UsageError


@pytest.fixture
def source(tmp_path) -> Path:
    """A source with one file, one linked folder beside it and a link to the source itself."""
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "deep" / "a.png").write_bytes(b"1")
    (tmp_path / "far" / "more").mkdir(parents=True)
    (tmp_path / "far" / "more" / "b.png").write_bytes(b"2")
    (tmp_path / "src" / "linked").symlink_to(tmp_path / "far")
    (tmp_path / "link").symlink_to(tmp_path / "src")
    return tmp_path


@pytest.mark.parametrize(
    "out", ["src", "src/out", "link/out", "link", "src/deep/../out", "link//out/", "src/linked/../src/out", ""]
)
def test_an_output_that_meets_its_source_is_refused(source, out):
    """Inside it, as it, or around it; by the link as well."""
    for name in ("src", "link"):
        with pytest.raises(UsageError, match="lies inside"):
            check_apart(Bucket(f"{source}/{out}"), [Bucket(f"{source}/{name}")])


def test_nothing_is_written_where_an_output_is_refused(source, capsys):
    """By the command, which ends with code 1 before anything is read."""
    before = sorted(os.walk(source))
    for out in ("link/out", "src/new"):
        arguments = ["prepare", f"{source}/src", "--recipe", "xray-pseudo3d:tiny", "--out", f"{source}/{out}"]
        assert crossdim.pipelines.cli.main(arguments) == 1
        assert "lies inside the source" in capsys.readouterr().err
    assert sorted(os.walk(source)) == before


@pytest.mark.parametrize("out", ["far", "far/out", "far/more/out"])
def test_an_output_behind_a_link_of_the_source_is_refused(source, out):
    """The next run would list it under the link."""
    with pytest.raises(UsageError, match=r"can be read through the link \S+/src/linked of a source"):
        check_links_apart(Bucket(f"{source}/{out}"), [Bucket(f"{source}/src")])


@pytest.mark.parametrize("out", ["src/empty_link/out", "src/empty_link", "link/empty_link/out", "src/linked/more/out"])
def test_an_output_is_refused_by_the_name_that_it_is_given(source, out):
    """A folder that is named inside the source lies there, wherever its links lead."""
    (source / "empty").mkdir()
    (source / "src" / "empty_link").symlink_to("../empty")
    for name in ("src", "link"):
        with pytest.raises(UsageError, match="lies inside the source"):
            check_apart(Bucket(f"{source}/{out}"), [Bucket(f"{source}/{name}")])


@pytest.mark.parametrize("out", ["empty/out", "empty", "hop/out"])
def test_an_output_behind_a_link_to_an_empty_folder_is_refused(source, out):
    """No listing shows such a link before the output is there; a link to the link leads there too."""
    (source / "empty").mkdir()
    (source / "src" / "deep" / "empty_link").symlink_to("../../empty")
    (source / "src" / "deep" / "loop").symlink_to("loop")
    (source / "hop").symlink_to("src/deep/empty_link")
    with pytest.raises(UsageError, match=r"can be read through the link \S+/src/deep/empty_link of a source"):
        check_links_apart(Bucket(f"{source}/{out}"), [Bucket(f"{source}/src")])


def test_an_output_beside_its_source_is_not_refused(source):
    """Also one whose name begins alike."""
    sources = [Bucket(f"{source}/src"), Bucket(f"{source}/src/deep/a.png")]
    for out in ("src2", "out", "farther", "s", "src[1]"):
        check_apart(Bucket(f"{source}/{out}"), sources)
        check_links_apart(Bucket(f"{source}/{out}"), sources)
    check_links_apart(Bucket("s3://lab/far"), sources)


def test_scratch_of_others_stays(tmp_path):
    """Markers of any plan are ours; a file that somebody else put there is not, nor is what a link leads to."""
    out, far = Bucket(str(tmp_path / "set")), tmp_path / "far"
    far.mkdir()
    (far / "precious").write_bytes(b"1")
    for digest in ("0" * 64, "1" * 64):
        out.put(marker_path(digest, 3), b"{}")
    remove_scratch(out)
    assert not out.exists(WORK)

    out.put(marker_path("0" * 64, 3), b"{}")
    out.put(f"{WORK}/notes.txt", b"mine")
    out.put(f"{WORK}/0123/4.json", b"mine")
    (tmp_path / "set" / WORK / "link").symlink_to(far)
    remove_scratch(out)

    assert [found.path for found in out.list_objects(WORK)] == [
        f"{WORK}/0123/4.json",
        f"{WORK}/link/precious",
        f"{WORK}/notes.txt",
    ]
    remove_scratch(Bucket(str(tmp_path / "nothing")))
