"""Images to their pseudo-3D view."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from crossdim.storage_schema.pseudo3d import Pseudo3D, unroll
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation

#: ``stored`` publishes the view; ``virtual`` publishes the image that a reader unrolls, under the same key.
Mode = Literal["stored", "virtual"]


def present(sample: Sample, spec: Pseudo3D, mode: Mode) -> Sample:
    """The sample as it is published: (C, D, H', W') as view, or (C, H, W) as image. Unrolling the one gives the other."""
    if mode == "virtual":
        return sample
    return replace(sample, presentation=Presentation.PSEUDO3D, array=unroll(sample.array, spec))
