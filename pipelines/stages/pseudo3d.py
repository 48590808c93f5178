"""Convert images to their pseudo-3D view."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import ClassVar, Literal

from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.pseudo3d import Pseudo3D, unroll
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation

#: ``stored`` publishes the view; ``virtual`` publishes the image that a reader unrolls, under the same key.
Mode = Literal["stored", "virtual"]


def present(sample: Sample, spec: Pseudo3D, mode: Mode) -> Sample:
    """Bring an image into the form in which it is published. Unrolling the image gives the view.

    Args:
        sample: (C, H, W), of a size that windows tile.
        spec: geometry of the view.
        mode: ``virtual`` publishes the image itself; other modes the view.

    Returns:
        (C, H, W), or the view (C, D, H', W').
    """
    if mode == "virtual":
        return sample
    return replace(sample, presentation=Presentation.PSEUDO3D, array=unroll(sample.array, spec))


@dataclass(frozen=True, kw_only=True, slots=True)
class Pseudo3DStage(Stage):
    """:func:`present` with its settings."""

    name: ClassVar[str] = "pseudo3d"

    spec: Pseudo3D
    mode: Mode

    def __call__(self, sample: Sample) -> Sample:
        """The sample as it is published."""
        return present(sample, self.spec, self.mode)

    def preprocessing(self) -> dict[str, object]:
        """Geometry of the view, and whether it is stored."""
        return {self.name: asdict(self.spec), "mode": self.mode}
