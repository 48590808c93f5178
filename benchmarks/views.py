"""Views of cdssl-p3d: of one sample in one thread, and of one pair of crops against PCRLv2's way of preparing it.

Limit of the first tables: one copy of the stored sample and of the views. Beside it the parts that no order of work avoids: the
sample in unit range, an image folded back, every view's voxels interpolated once. The second kind of table takes a chest phantom,
and every CT given as an argument:

    python -m benchmarks.views [CT.nii.gz ...]
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.stopwatch import Times, in_turns, show
from crossdim.storage_schema.pseudo3d import Pseudo3D, unroll
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Modality, Presentation
from crossdim.training.data.collate import collate
from crossdim.training.data.views import Floats, image_of
from crossdim.training.data.views.boxes import Side3
from crossdim.training.data.views.resize import resize_box
from crossdim.training.data.views.views_3d import Plan3D, make_views_3d, place_views
from crossdim.training.methods.cdssl_p3d import CdsslP3D
from crossdim.training.methods.cdssl_views import GLOBAL_SIDE_3D, LOCAL_SIDE_3D, NUM_LOCAL, Views3D
from crossdim.training.recipes import recipe
from tests.oracles.pcrlv2_crops import MARGIN, crop_pair
from tests.training.published import images, superpatches

SPEC = Pseudo3D()
COPY = "one copy of sample and views"
KEY = "ab" * 16
BATCH = 8
DEVICES = {f"all views, {name}, batch of {BATCH}": name for name in ("cpu", "cuda")}


def measure(title: str, config: CdsslP3D, sample: Sample, repeat: int) -> None:
    """Print the table of one method and sample; every run draws the same chances."""
    flat = sample.presentation is not Presentation.SUPERPATCH
    spec = SPEC if flat else None
    made = list(config.draw(sample, spec, np.random.default_rng(0)).values())
    cases: dict[str, Callable[[], object]] = {
        COPY: lambda: (sample.array.copy(), *(view.copy() for view in made)),
        "sample in unit range": sample.unit,
    }
    if flat:
        cases["image folded back (with unit range)"] = lambda: image_of(sample, SPEC)
    else:
        cases["every view's box resized, no chance"] = lambda: interpolate_all(config, sample.unit()[0])

    def draws() -> None:
        for seed in range(repeat):
            config.draw(sample, spec, np.random.default_rng(seed))

    batches = {name: rendering(config, sample, spec, device) for name, device in DEVICES.items() if has(device)}
    device = replace(config, render="device")
    times = (
        in_turns(cases | {"plans alone": lambda: device.draw(sample, spec, np.random.default_rng(0))}, runs=7, repeat=repeat)
        | divide_times(in_turns({"all views, workers": draws}, runs=7), repeat)
        | divide_times(in_turns(batches, runs=7), BATCH)
    )
    size = sum(view.nbytes for view in made) / 2**20
    show(f"{title}: {sample.array.nbytes / 2**20:.2f} MiB in, {size:.2f} MiB of views out", times, limit=COPY, digits=3)


def divide_times(times: Times, count: int) -> Times:
    """The time of one of ``count``."""
    return {name: [s / count for s in seconds] for name, seconds in times.items()}


def has(device: str) -> bool:
    """Whether this machine has such a device."""
    return device == "cpu" or torch.cuda.is_available()


def rendering(config: CdsslP3D, sample: Sample, spec: Pseudo3D | None, device: str) -> Callable[[], None]:
    """What brings a batch to a device and makes its views there, and waits for them."""
    config = replace(config, render="device")
    drawn = [config.draw(sample, spec, np.random.default_rng(seed)) for seed in range(BATCH)]
    batch = collate(drawn, [KEY] * BATCH, str(sample.presentation), BATCH)

    def run() -> None:
        config.render_views(batch.to(torch.device(device)))
        if device != "cpu":
            torch.cuda.synchronize()

    return run


def interpolate_all(config: CdsslP3D, volume_DHW: Floats) -> None:
    """Two global and all local views, each resized once from a box at the origin."""
    solid = config.solid
    for side, box, count in (
        (solid.global_side, solid.global_boxes[0], 2),
        (solid.local_side, solid.local_boxes[0], NUM_LOCAL),
    ):
        for _ in range(count):
            resize_box(volume_DHW, (0, 0, 0), box, side)


def radiograph(side: int) -> Sample:
    """A pseudo-3D sample of a square side."""
    image = np.random.default_rng(0).integers(0, 256, (1, side, side), np.uint8)
    return replace(images(1)[0], array=unroll(image, SPEC), extra={"image_height": side, "image_width": side})


def pairs(title: str, volume_DHW: Floats) -> None:
    """Print the table of one pair of crops from a whole volume: two global views and six local ones.

    Pairs differ in size, and the transcription draws some again; so a run makes 5 pairs, each run others.
    """
    views, old, new = Views3D(), random.Random(0), itertools.count()
    volume_XYZ = np.ascontiguousarray(volume_DHW.transpose(2, 1, 0))
    inside = volume_DHW[tuple(slice(m, n - m) for m, n in zip(MARGIN[::-1], volume_DHW.shape, strict=True))]
    shape = (inside.shape[0], inside.shape[1], inside.shape[2])

    def made(of: Callable[[Plan3D, Side3, Side3], object]) -> None:
        wide, near = views.plans(shape, KEY, np.random.default_rng(next(new)))
        of(wide, views.global_side, GLOBAL_SIDE_3D)
        of(near, views.local_side, LOCAL_SIDE_3D)

    cases: dict[str, Callable[[], object]] = {
        "transcription": lambda: crop_pair(volume_XYZ, old),
        "transcription, no tissue score": lambda: crop_pair(volume_XYZ, old, scored=False),
        "ours, turned and flipped, no distortions": lambda: made(lambda plan, side, _: place_views(inside, plan.placement, side)),
        "ours, all of it": lambda: made(lambda plan, side, published: make_views_3d(inside, plan, side, published)),
    }
    times = in_turns(cases, runs=7, repeat=5)
    show(f"{title}: a pair of crops from {volume_DHW.shape}", times, limit="ours, all of it", digits=1)


def chest(shape_DHW: tuple[int, int, int] = (240, 320, 340)) -> Floats:
    """A body with two lungs in air, unit range for -1000 .. 1000 HU, noisy: about what a CT of a chest is made of."""
    axes = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape_DHW)
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    body = (y / 0.8) ** 2 + (x / 0.95) ** 2 < 1
    lungs = (z / 0.85) ** 2 + (y / 0.6) ** 2 + ((np.abs(x) - 0.45) / 0.35) ** 2 < 1
    clean = np.where(lungs, 0.08, np.where(body, 0.52, 0.0))
    return np.clip(clean + np.random.default_rng(0).normal(0, 0.01, shape_DHW), 0, 1).astype(np.float32)


def read_ct(path: Path) -> Floats:
    """A CT as the pipeline prepares it for PCRLv2: RAS+, 1 mm, -1000 .. 1000 HU in unit range."""
    # Imported here: a machine with a GPU has torch, and need not have the readers.
    from crossdim.pipelines.readers.raw import RawItem
    from crossdim.pipelines.readers.registry import READERS
    from crossdim.pipelines.stages.intensity import Intensity, store
    from crossdim.pipelines.stages.orient import orient
    from crossdim.pipelines.stages.resample import Resample, resample

    item = RawItem(uri=path.name, files=(path.read_bytes(),), modality=Modality.CT)
    volume = resample(orient(READERS["nifti"].decode(item)), Resample(spacing_mm=1.0))
    return store(volume, Intensity(window_hu=(-1000, 1000))).unit()[0]


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    print(f"load {os.getloadavg()[0]:.1f}")
    for name, side, cube in (("cdssl-p3d:tiny", 192, 64), ("cdssl-p3d:paper", 1024, 128)):
        config = recipe(name).method
        assert isinstance(config, CdsslP3D)
        measure(f"{name}, image of {side} x {side}", config, radiograph(side), repeat=10)
        measure(f"{name}, superpatch of {cube}", config, superpatches(1, cube)[0], repeat=5)
    pairs("chest phantom", chest())
    for argument in sys.argv[1:]:
        pairs(Path(argument).name, read_ct(Path(argument)))


if __name__ == "__main__":
    main()
