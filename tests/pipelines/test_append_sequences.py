"""Any sequence of files that come, change, move and go, with appends that are killed in between, gives what is there at last."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.manifest_file import list_versions, read_manifest
from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs import prepare
from crossdim.storage_schema.errors import StorageError
from crossdim.storage_schema.patient import patient_or_content
from crossdim.storage_schema.split import SplitRule
from crossdim.storage_schema.vocabulary import Split
from tests.pipelines.test_append import read_samples, write_picture

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::ResourceWarning")]
RECIPE = ("--recipe", "xray-pseudo3d:tiny", "--set", "shard.max_samples=2", "--test-fraction", "0.5", "--split-by", "file")
RULE = SplitRule(test_fraction=0.5, by="file")
NUM_FILES = 5
FILES = st.integers(0, NUM_FILES - 1)
#: What happens to one file: other content, gone, moved, a copy of another, not an image any more; or an append that is killed.
STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "remove", "move", "copy", "break", "killed", "append"]), FILES, FILES), max_size=8
)


def draw(path: Path) -> Split:
    """The part that a file is drawn for."""
    return RULE.draw(patient_or_content(None, hashlib.sha256(path.read_bytes()).hexdigest()))


class Sources:
    """Five files that may be there, in a folder with two that always are: one in each part of the split."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seed = folder / "raw", 0
        for part in Split:
            always = self.folder / f"{part}.png"
            while not always.exists() or draw(always) is not part:
                self.write_next(always)
        for number in range(3):
            self.write_next(self.path(number))

    def path(self, number: int) -> Path:
        """A file."""
        return self.folder / f"f{number}.png"

    def write_next(self, path: Path) -> None:
        """A picture that was not there before, written a moment later."""
        self.seed += 1
        write_picture(path, self.seed)
        later = os.stat(path).st_mtime_ns + self.seed * 10**9
        os.utime(path, ns=(later, later))

    def change(self, kind: str, one: int, other: int) -> None:
        """What happens to a file, if it is there."""
        path, to = self.path(one), self.path(other)
        if kind == "write":
            self.write_next(path)
        elif path.exists() and path != to:
            acts: dict[str, Callable[[], object]] = {
                "remove": path.unlink,
                "move": lambda: path.rename(to),
                "copy": lambda: shutil.copyfile(path, to),
                "break": lambda: path.write_bytes(path.read_bytes()[:100]),
            }
            acts[kind]()


def prepare_all(folder: Path, out: str, *more: str) -> int:
    return main(["prepare", str(folder / "raw"), *RECIPE, "--out", str(folder / out), *more, "--json"])


def append_killed(folder: Path, after: int) -> None:
    """An append that ends after some tasks; then what it left is given up, as other files may follow."""

    def cut(documents: list[str], work: Any, **_: object) -> Any:
        yield from map(work, documents[:after])
        raise StorageError("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "run_each", cut)
        prepare_all(folder, "out", "--append")
    shutil.rmtree(folder / "out" / "_work", ignore_errors=True)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_a_dataset_that_is_added_to_again_and_again_holds_what_one_from_scratch_does(steps: list[tuple[str, int, int]]) -> None:
    """Of copies, which of the names is kept is the order in which they came; all else is equal."""
    with (
        tempfile.TemporaryDirectory() as name,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        folder = Path(name)
        sources, out = Sources(folder), Bucket(str(folder / "out"))
        versions = []
        for kind, one, other in [("append", 0, 0), *steps, ("append", 0, 0)]:
            if kind == "killed":
                append_killed(folder, one)
            elif kind != "append":
                sources.change(kind, one, other)
            elif prepare_all(folder, "out", "--append") in (0, 3):
                samples = read_samples(out, without=("source_uri",))
                if not versions or samples != versions[-1][1]:
                    versions.append((max(list_versions(out), default=1), samples))
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        code = prepare_all(folder, "scratch")
        assert code in (0, 3)
        anew = Bucket(str(folder / "scratch"))
        assert read_samples(out, without=("source_uri",)) == read_samples(anew, without=("source_uri",))
        assert read_manifest(out).files == read_manifest(anew).files
        for number, samples in versions:
            assert read_samples(out, number, without=("source_uri",)) == samples
