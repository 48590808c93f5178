"""What stands in the place of a file and is none: a pipe, a device or a folder is never waited for, and is said."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from crossdim import cli
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError
from crossdim.training.data.range_reader import open_range_reader


def _make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


#: What stands there, by name.
SPECIAL: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty device": lambda path: path.symlink_to("/dev/null"),
    "folder": Path.mkdir,
    "socket": _make_socket,
}


@pytest.mark.parametrize("make", SPECIAL.values(), ids=SPECIAL.keys())
def test_what_is_no_file_is_not_read(make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, in part, and as training reads."""
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    make(Path("x"))
    bucket = Bucket(str(tmp_path))
    for read in (bucket.read, lambda name: bucket.read_range(name, 0, 4), lambda name: open_range_reader(bucket).get(name, 0, 4)):
        with pytest.raises(StorageError, match=f"{tmp_path}/x"):
            read("x")


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
@pytest.mark.parametrize("kind", ["pipe", "endless device", "folder"])
def test_a_verb_says_so(name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one sentence that names the file."""
    SPECIAL[kind](tmp_path / name)
    assert cli.main(["status" if name == "config.json" else "verify", str(tmp_path)]) == 2
    assert f"{tmp_path}/{name}" in capsys.readouterr().err
