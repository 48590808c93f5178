"""Views of cdssl-p3d for one sample, in one thread.

Limit: one copy of the stored sample and of the views. Beside it the parts that no order of work avoids: the sample in
unit range, an image folded back, every view's voxels interpolated once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.stopwatch import in_turns, show
from storage_schema.pseudo3d import Pseudo3D, unroll
from storage_schema.sample import Sample
from storage_schema.vocabulary import Presentation
from tests.training.published import images, superpatches
from training.data.views import Floats, image_of
from training.data.views.solid import box_resampled
from training.methods.cdssl_p3d import NUM_LOCAL, CdsslP3D
from training.recipes import recipe

SPEC = Pseudo3D()
COPY = "one copy of sample and views"


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
        cases["interpolation of every view's voxels, no chance"] = lambda: interpolated(config, sample.unit()[0])

    def draws() -> None:
        for seed in range(repeat):
            config.draw(sample, spec, np.random.default_rng(seed))

    times = in_turns(cases, runs=7, repeat=repeat) | {
        name: [s / repeat for s in seconds] for name, seconds in in_turns({"draw": draws}, runs=7).items()
    }
    size = sum(view.nbytes for view in made) / 2**20
    show(f"{title}: {sample.array.nbytes / 2**20:.2f} MiB in, {size:.2f} MiB of views out", times, limit=COPY, digits=3)


def interpolated(config: CdsslP3D, volume_DHW: Floats) -> None:
    """Two global and all local views, each resampled once from a box at the origin."""
    solid = config.solid
    for side, box, count in (
        (solid.global_side, solid.global_boxes[0], 2),
        (solid.local_side, solid.local_boxes[0], NUM_LOCAL),
    ):
        for _ in range(count):
            box_resampled(volume_DHW, (0, 0, 0), box, side)


def radiograph(side: int) -> Sample:
    """A pseudo-3D sample of a square side."""
    image = np.random.default_rng(0).integers(0, 256, (1, side, side), np.uint8)
    return replace(images(1)[0], array=unroll(image, SPEC), extra={"image_height": side, "image_width": side})


def main() -> None:
    """Print the tables."""
    for name, side, cube in (("cdssl-p3d:tiny", 192, 64), ("cdssl-p3d:paper", 1024, 128)):
        config = recipe(name).method
        assert isinstance(config, CdsslP3D)
        measure(f"{name}, image of {side} x {side}", config, radiograph(side), repeat=10)
        measure(f"{name}, superpatch of {cube}", config, superpatches(1, cube)[0], repeat=5)


if __name__ == "__main__":
    main()
