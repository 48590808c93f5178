"""Pictures of the same few samples of a run at any step: views as they are drawn, and how the network restores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from crossdim.foundation.page.pictures import Floats, Gallery, Picture, encode_png, shrink, stretch_to_unit
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.collate import Views
from crossdim.training.data.dataset import PublishedDataset, read_sample
from crossdim.training.data.range_reader import open_range_reader
from crossdim.training.layers.statistics import recompute_statistics
from crossdim.training.methods.base import Method
from crossdim.training.pictures.galleries import describe_sample, draw_slice, find_shown_depth, viewable
from crossdim.training.pictures.restorations import restore_view

#: Samples of each dataset.
SHOWN_SAMPLES = 2
#: Longest side of a picture, pixels.
LONGEST_SIDE = 160
#: Samples are left out beyond this, in bytes of one step; a picture of noise has about 35,000.
MAX_BYTES = 2_000_000
#: Part of the seed of views in pictures, so that they take no draw of the training.
_TAG = 0x91C7


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shown:
    """A sample that is shown, with the whole of it as the network takes it, and the geometry of its views."""

    sample: Sample
    whole: Views
    spec: Pseudo3D | None


class SamplePictures:
    """Draws the samples. They are read at the first drawing, and are the same ever after, whatever the number of ranks.

    Args:
        config: of the run.
        datasets: of the run.
    """

    def __init__(self, config: Pretraining, datasets: Sequence[PublishedDataset]) -> None:
        self._seed, self._datasets = config.seed, datasets
        self._method = config.method.rendered_by_workers()
        self._shown: list[list[_Shown]] = []

    def draw(self, step: int, network: Method | None) -> tuple[list[Gallery], int]:
        """Draw the pictures of a step.

        Args:
            step: number of steps done; views are drawn anew for each.
            network: with the weights of that step, on the CPU; None to draw views only.

        Returns:
            A gallery for each sample, and the number of samples that were left out because of ``MAX_BYTES``.
        """
        if not self._shown:
            self._shown = [self._read(dataset) for dataset in self._datasets]
        galleries: list[Gallery] = []
        size = left_out = 0
        for dataset, several in zip(self._datasets, self._shown, strict=True):
            fitted = network and _fit_statistics(network, several)
            for one in several:
                gallery = self._draw_sample(dataset, one, step, fitted)
                size += sum(len(picture.uri) for _, pictures in gallery.rows for picture in pictures)
                if galleries and size > MAX_BYTES:
                    left_out += 1
                else:
                    galleries.append(gallery)
        return galleries, left_out

    def _read(self, dataset: PublishedDataset) -> list[_Shown]:
        reader, shown = open_range_reader(dataset.bucket), []
        for index in np.unique(np.linspace(0, len(dataset) - 1, SHOWN_SAMPLES).astype(int)):
            sample = read_sample(dataset, int(index), reader)
            stored = dataset.pseudo3d or Pseudo3D()
            spec = self._method.encoder_geometry(stored) if sample.presentation is not Presentation.SUPERPATCH else None
            shown.append(_Shown(sample=sample, whole=self._method.whole(sample, dataset.pseudo3d), spec=spec))
        return shown

    def _draw_sample(self, dataset: PublishedDataset, shown: _Shown, step: int, network: Method | None) -> Gallery:
        rng = np.random.default_rng([self._seed, step, int(shown.sample.key, 16), _TAG])
        views = self._method.draw(shown.sample, dataset.pseudo3d, rng)
        pictures = [_picture(name, stretch_to_unit(draw_slice(view, shown.spec))) for name, view in viewable(views)]
        rows = [("views", pictures), ("restored", _draw_restoration(shown, network) if network else [])]
        return Gallery(title=describe_sample(dataset, shown.sample), rows=[row for row in rows if row[1]])


def _fit_statistics(network: Method, shown: Sequence[_Shown]) -> Method:
    """The network with batch-norm statistics of the samples that are shown, as one sample alone has none."""
    if len(shown) < 2:
        return network.eval()
    inputs = torch.from_numpy(np.stack([one.whole["x"] for one in shown]))
    return recompute_statistics(network, lambda copy: copy.reconstruct, [inputs])


def _draw_restoration(shown: _Shown, network: Method) -> list[Picture]:
    x, target = shown.whole["x"], shown.whole["target"]
    found = restore_view(network, x, str(shown.sample.presentation))
    if found is None:
        return []
    error = float(np.abs(found.restored - target).mean())
    depth = find_shown_depth(target)
    seen = [] if found.visible is None else [_picture("what the mask leaves", draw_slice(found.visible, shown.spec, depth))]
    return [
        _picture("input", stretch_to_unit(draw_slice(x, shown.spec, depth))),
        *seen,
        _picture(f"restored, mean error {error:.3f}", draw_slice(found.restored, shown.spec, depth)),
        _picture("target", draw_slice(target, shown.spec, depth)),
    ]


def _picture(caption: str, image_HW: Floats) -> Picture:
    return Picture(caption=caption, uri=encode_png(shrink(image_HW, LONGEST_SIDE)))
