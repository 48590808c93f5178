"""Damaged files through the code of every task: each ends as a sample or a quarantine row, the others are published."""

from __future__ import annotations

import os
import random
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.decoder_process import client
from crossdim.pipelines.decoder_process.limits import BASE_MEMORY
from crossdim.pipelines.jobs import prepare as job
from crossdim.pipelines.jobs import scan, voxel_kinds
from crossdim.pipelines.recipes import resolve
from tests.pipelines.code_streams import compressed, frame_of, with_frame
from tests.pipelines.corpora import blob, nifti_bytes
from tests.pipelines.damage import damaged, sound_images, sound_volumes
from tests.pipelines.test_decoder_process import left_of, processes_of

ROUND = 60
#: What interpreter, libraries and supervisor hold.
STARTED = 300 << 20
#: Of images, and of volumes.
RECIPES = ("xray-pseudo3d:tiny", "mixed-superpatches:tiny")
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Tasks run here, one after the other, instead of on Ray."""

    def each(documents, work, **_: object):
        return map(work, documents)

    monkeypatch.setattr(scan, "run_each", each)
    monkeypatch.setattr(voxel_kinds, "run_each", each)
    monkeypatch.setattr(job, "run_each", each)


@contextmanager
def memory_watched() -> Iterator[list[int]]:
    """Largest memory of the decoder process and its supervisor together, in bytes."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            running = client._running
            held = sum(map(_anonymous_bytes, processes_of(running[1]._process.pid))) if running else 0
            peak[0] = max(peak[0], held)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon")), 0)


def prepared(folder: Path, recipe: str) -> tuple[job.PrepareResult, Counter[str]]:
    """Prepare a folder: the outcome, and how many rows each rule has."""
    out = folder.with_name(folder.name + "-out")
    order = job.Preparation(sources=(Bucket(str(folder)),), out=Bucket(str(out)), recipe=resolve(recipe), name="x", quiet=True)
    outcome = job.prepare(order, lambda **_: nullcontext())
    rules = Counter(pq.read_table(out / "quarantine").column("rule").to_pylist())
    return outcome, rules


def damage_for(seconds: float, folder: Path, seed: int) -> tuple[Counter[str], int]:
    """Rounds of damaged files beside sound ones, until the time is up.

    Returns:
        What became of the files: published, or by which rule refused; and the largest memory of the decoder process.
    """
    rng, found, deadline = random.Random(seed), Counter[str](), time.monotonic() + seconds
    number = 0
    with memory_watched() as peak:
        while time.monotonic() < deadline:
            number += 1
            images = number % 4 != 0
            sound = sound_images() if images else sound_volumes()
            here = folder / str(number)
            here.mkdir()
            for name, data in sound.items():
                (here / f"sound-{name}").write_bytes(data)
            for count in range(ROUND):
                name = rng.choice(list(sound))
                (here / f"{count:03d}-{name}").write_bytes(damaged(name, sound[name], rng))
            outcome, rules = prepared(here, RECIPES[not images])
            files = outcome.manifest.files
            assert files is not None, (seed, number)
            assert files.total == len(sound) + ROUND == files.used + files.quarantined + files.ignored, (seed, number)
            assert files.used >= len(sound), (seed, number)
            found.update(rules)
            found["published"] += files.used
    return found, peak[0]


def check_nothing_left(peak: int) -> None:
    assert client._running is not None
    group = client._running[1]._process.pid
    client.discard()

    assert peak < BASE_MEMORY + STARTED
    assert left_of(group) == []


@pytest.mark.integration
def test_damaged_files_end_as_samples_or_rows_and_the_sound_ones_are_published(tmp_path):
    found, peak = damage_for(20, tmp_path, seed=int(os.environ.get("CROSSDIM_DAMAGE_SEED", "0")))

    assert found["published"] > 0
    check_nothing_left(peak)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_minutes_of_damaged_files(tmp_path, capsys):
    """No traceback, no death of the job, no memory above the limit; what became of the files is printed."""
    found, peak = damage_for(600, tmp_path, seed=time.time_ns())
    with capsys.disabled():
        sys.stdout.write(f"\n{found.total()} files, at most {peak >> 20} MiB: {dict(found.most_common())}\n")

    check_nothing_left(peak)


def hostile_files() -> dict[str, bytes]:
    """One file for each way that a codec was seen to take a job down."""
    lossless = frame_of(compressed(JPEGLosslessSV1))
    jls, j2k = bytearray(frame_of(compressed(JPEGLSLossless))), bytearray(frame_of(compressed(JPEG2000Lossless)))
    at = jls.index(b"\xff\xf7")
    jls[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    large, wide = bytearray(j2k), bytearray(j2k)
    large[8:16] = struct.pack(">II", 20000, 20000)
    wide[9] ^= 0x40
    rle = bytearray(frame_of(compressed(RLELossless)))
    rle[70:400] = b"\x81\0" * 165
    return {
        "lossless.dcm": with_frame(compressed(JPEGLosslessSV1), lossless[:200] + b"\xff\xc4\0\x04" * 9 + lossless[200:]),
        "sof.dcm": with_frame(compressed(JPEGLSLossless), bytes(jls)),
        "siz.dcm": with_frame(compressed(JPEG2000Lossless), bytes(large)),
        "bit.dcm": with_frame(compressed(JPEG2000Lossless), bytes(wide)),
        "rle.dcm": with_frame(compressed(RLELossless), bytes(rle)),
        "header.png": b"\x89PNG\r\n\x1a\n\0\0",
        "voxels.nii": nifti_bytes(blob((10, 10, 10), 1), (150.0, 150.0, 150.0)),
    }


SOUND_VOLUME = nifti_bytes(blob((110, 100, 90), 2), (1.0, 1.0, 1.0))


def check_refused_alone(files: dict[str, bytes], folder: Path) -> dict[str, str]:
    """Prepare each file beside sound ones: one row for it, all others published. Returns each file's rule."""
    rules = {}
    for name, data in files.items():
        volume = name.endswith(".nii")
        sound = {"sound.nii": SOUND_VOLUME} if volume else {n: d for n, d in sound_images().items() if not n.endswith("jpg")}
        here = folder / name
        here.mkdir()
        for other, content in {**sound, name: data}.items():
            (here / other).write_bytes(content)
        begun = time.monotonic()
        outcome, found = prepared(here, "mixed-superpatches" if volume else "xray-pseudo3d:tiny")
        assert time.monotonic() - begun < 60, name
        assert outcome.manifest.num_quarantined == 1, (name, found)
        assert outcome.manifest.files is not None
        assert outcome.manifest.files.used == len(sound), name
        rules[name] = found.most_common(1)[0][0]
    return rules


@pytest.mark.integration
def test_each_hostile_file_is_one_row_and_all_others_are_published(tmp_path):
    with memory_watched() as peak:
        rules = check_refused_alone(hostile_files(), tmp_path)

    assert rules == {
        "lossless.dcm": "damaged",
        "sof.dcm": "code_stream",
        "siz.dcm": "code_stream",
        "bit.dcm": "code_stream",
        "rle.dcm": "code_stream",
        "header.png": "damaged",
        "voxels.nii": "too_large",
    }
    check_nothing_left(peak[0])


@pytest.mark.integration
def test_the_shared_hostile_files_are_one_row_each(tmp_path):
    folder = REPOSITORY.parent / "shared" / "cases" / "files"
    if not folder.is_dir():
        pytest.skip(f"hostile files are not here: {folder}")
    with memory_watched() as peak:
        check_refused_alone({path.name: path.read_bytes() for path in sorted(folder.iterdir())}, tmp_path)

    check_nothing_left(peak[0])
