"""Radiographs decoded in the worker itself, as before, and in the decoder process: one after the other, in one run.

Limit: the same function called in the worker. Beside pixels alone stands the whole task of one file (decode, fit, pseudo-3D),
which is what a preparation spends on it.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from benchmarks.stopwatch import in_turns, show
from crossdim.pipelines import decoder_process
from crossdim.pipelines.decoder_process import client
from crossdim.pipelines.quarantine import Quarantined, apply_steps
from crossdim.pipelines.readers.raw import RawItem
from crossdim.pipelines.readers.registry import READERS
from crossdim.pipelines.recipes import resolve
from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.sample import Sample
from tests.pipelines.dicom_files import dicom_dataset
from tests.pipelines.test_decoder_process import processes_of

RUNS = 15
#: Of another process: <linux/posix-timers.h>, CPUCLOCK_SCHED.
_CLOCK_OF_SCHEDULER = 2
BEFORE, AFTER = "decoded in the worker", "decoded in the decoder process"


def radiograph(height: int, width: int, dtype: str) -> np.ndarray:
    """Smooth structure, and noise of about the size that detectors have."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    depth = np.iinfo(dtype).max // 16 if dtype == "u2" else 250
    smooth = (np.cos(3 * x) * np.cos(2 * y) + 1) / 2 * 0.9 * depth
    noise = np.random.default_rng(0).normal(0, depth / 200, (height, width))
    return np.clip(smooth + noise, 0, depth).astype(dtype)


def picture(pixels: np.ndarray, kind: str) -> bytes:
    """A PNG or JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def dicom(pixels: np.ndarray, syntax: Any) -> bytes:
    """A DICOM file in a transfer syntax."""
    dataset = dicom_dataset(pixels)
    if syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def files() -> dict[str, tuple[str, bytes, int]]:
    """Decoder, content and pixels of each case."""
    small, large = radiograph(1024, 1024, "u1"), radiograph(2500, 2048, "u2")
    found = {
        "PNG 1 MP, 8 bits": ("png", picture(small, "PNG"), small.size),
        "PNG 5 MP, 16 bits": ("png", picture(large, "PNG"), large.size),
        "JPEG 5 MP, 8 bits": ("jpeg", picture((large >> 4).astype("u1"), "JPEG"), large.size),
    }
    syntaxes = {
        "uncompressed": ExplicitVRLittleEndian,
        "JPEG-LS": JPEGLSLossless,
        "JPEG 2000": JPEG2000Lossless,
        "RLE": RLELossless,
    }
    return found | {f"DX 5 MP, {name}": ("dicom", dicom(large, syntax), large.size) for name, syntax in syntaxes.items()}


RECIPE = resolve("xray-pseudo3d")


def whole(item: RawItem, decode: Callable[[RawItem], Any]) -> None:
    """All that a task does with an image before it is packed."""
    made = apply_steps("x", item, RECIPE.steps(decode))
    assert not isinstance(made, Quarantined), made


def in_the_worker(item: RawItem, decoder: str, stages: Sequence[Stage] = ()) -> Sample:
    """What :func:`crossdim.pipelines.decoder_process.decode` does, in this process."""
    return reduce(lambda sample, stage: stage(sample), stages, READERS[decoder].decode(item))


def processor_clock() -> Callable[[], float]:
    """A clock of the processor time of this process and of its decoder process, whatever else the machine does."""
    running = client._running
    assert running is not None
    clocks = [~pid << 3 | _CLOCK_OF_SCHEDULER for pid in (os.getpid(), *processes_of(running[1]._process.pid))]
    return lambda: sum(map(time.clock_gettime, clocks))


def main() -> None:
    """Print the tables."""
    for name, (decoder, data, num_values) in files().items():
        item = RawItem(uri="x", files=(data,), num_values=num_values)
        here, there = partial(in_the_worker, decoder=decoder), partial(decoder_process.decode, decoder)
        there(item)  # starts it
        cases = {BEFORE: partial(here, item), AFTER: partial(there, item)}
        tasks = {
            name: partial(whole, item, partial(decode, stages=RECIPE.decoder_stages))
            for name, decode in ((BEFORE, here), (AFTER, there))
        }
        for title, calls in (("pixels alone", cases), ("whole task of the file", tasks)):
            show(f"{name}, {len(data) / 1e6:.1f} MB: {title}", in_turns(calls, runs=RUNS, clock=processor_clock()), limit=BEFORE)


if __name__ == "__main__":
    main()
