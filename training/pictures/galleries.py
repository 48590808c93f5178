"""Pictures for the page of a run: inputs, views and reconstructions of the first samples of a dataset."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from crossdim.foundation.page.pictures import Floats, Gallery, Picture, encode_png, stretch_to_unit
from crossdim.storage_schema.pseudo3d import Pseudo3D, fold
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Modality, Presentation
from crossdim.training.data.collate import Views
from crossdim.training.data.dataset import PublishedDataset, read_sample
from crossdim.training.data.order import rng_at
from crossdim.training.data.range_reader import open_range_reader
from crossdim.training.data.views import image_of
from crossdim.training.layers.statistics import recompute_statistics
from crossdim.training.methods.base import Method, MethodConfig
from crossdim.training.methods.restoration import Restorer
from crossdim.training.pictures.restorations import panels

SHOWN_SAMPLES = 2
#: Samples from which the batch-norm statistics for reconstruction are computed.
STATISTICS_SAMPLES = 16
#: What views are, by the names that methods give them.
CAPTIONS = {
    "view1": "global view 1",
    "view2": "global view 2",
    "clean1": "global view 1, not corrupted",
    "local": "local view",
    "x": "input",
}


def find_shown_depth(view: Floats) -> int | None:
    """The slice of a volume that is shown: the middle one, unless nothing varies in it, as beyond the end of a thin volume.

    Args:
        view: (C, D, H, W), or an image, (C, H, W).

    Returns:
        Its number; None for an image.
    """
    if view.ndim == 3:
        return None
    deviations_D = view[0].std(axis=(1, 2))
    middle = len(deviations_D) // 2
    return middle if deviations_D[middle] > 0 or not deviations_D.any() else int(deviations_D.argmax())


def draw_slice(view: Floats, spec: Pseudo3D | None, depth: int | None = None) -> Floats:
    """One picture of a view: an image as it is, the image behind a pseudo-3D volume, a slice of a true one.

    Args:
        view: (C, H, W) or (C, D, H, W).
        spec: geometry of pseudo-3D; None for true volumes.
        depth: of the slice; None for that of :func:`find_shown_depth`.

    Returns:
        (H, W).
    """
    if view.ndim == 3:
        return np.asarray(view[0])
    if spec is None or not spec.reversible or view.shape[1] != spec.window**2:
        return np.asarray(view[0, find_shown_depth(view) if depth is None else depth])
    height, width = view.shape[2] * spec.window, view.shape[3] * spec.window
    return np.asarray(fold(view, spec, height, width)[0])


def build_galleries(dataset: PublishedDataset, config: MethodConfig, method: Method) -> list[Gallery]:
    """Build pictures of the first samples of a dataset: stored, as views of the method, and reconstructed.

    Args:
        dataset: every split.
        config: draws the views.
        method: reconstructs.

    Returns:
        One gallery for each shown sample.
    """
    reader = open_range_reader(dataset.bucket)
    first = [read_sample(dataset, index, reader) for index in range(min(STATISTICS_SAMPLES, len(dataset)))]
    wholes = [config.whole(sample, dataset.pseudo3d) for sample in first]
    inputs = torch.from_numpy(np.stack([whole["x"] for whole in wholes]))
    fitted = recompute_statistics(method, lambda copy: copy.reconstruct, [inputs]) if len(first) > 1 else method
    rendered = config.rendered_by_workers()
    return [
        _build_gallery(dataset, sample, rendered.draw(sample, dataset.pseudo3d, rng_at(0, index)), whole, config, fitted)
        for index, (sample, whole) in enumerate(zip(first[:SHOWN_SAMPLES], wholes, strict=False))
    ]


def _build_gallery(
    dataset: PublishedDataset, sample: Sample, views: Views, whole: Views, config: MethodConfig, method: Method
) -> Gallery:
    stored = dataset.pseudo3d or Pseudo3D()
    is_2d = sample.presentation is not Presentation.SUPERPATCH
    spec = config.encoder_geometry(stored) if is_2d else None
    source = image_of(sample, stored) if is_2d else draw_slice(sample.unit(), None)
    rows = [("input", [Picture(caption="as stored", uri=encode_png(source))])]
    if spec:
        slices = [
            Picture(caption=f"depth {d}", uri=encode_png(whole["target"][0, d])) for d in range(0, whole["target"].shape[1], 3)
        ]
        rows.append(("pseudo-3D slices", slices))
    shown = [Picture(caption=name, uri=encode_png(stretch_to_unit(draw_slice(view, spec)))) for name, view in viewable(views)]
    rows.append(("views", shown))
    if isinstance(method, Restorer) and not is_2d:
        rows.append(("restored, as physical values", _panels(method, whole["target"], sample)))
    else:
        rows.append(("restored", _restoration_pictures(method, whole["x"], whole["target"], spec)))
    return Gallery(title=describe_sample(dataset, sample), rows=[(name, pictures) for name, pictures in rows if pictures])


def describe_sample(dataset: PublishedDataset, sample: Sample) -> str:
    """Describe a sample in a line.

    Args:
        dataset: that holds it.
        sample: as read.

    Returns:
        Dataset, source, modality and label.
    """
    label = f", label {sample.label}" if sample.label else ""
    return f"{dataset.name}: {sample.origin.uri} ({sample.modality}{label})"


def viewable(views: Views) -> Iterator[tuple[str, Floats]]:
    """Every view that can be shown, (C, H, W) or (C, D, H, W), with what it is; of several local ones the first three."""
    for name, view in views.items():
        caption = CAPTIONS.get(name, name)
        if np.issubdtype(view.dtype, np.floating) and view.ndim == 5:
            yield from ((f"{caption} {number + 1}", one) for number, one in enumerate(view[:3]))
        elif np.issubdtype(view.dtype, np.floating) and view.ndim in (3, 4) and view.shape[0] == 1:
            yield caption, view


def _panels(method: Restorer, target: Floats, sample: Sample) -> list[Picture]:
    """Before, masked and reconstructed over the whole range of the data; the error over a tenth of it."""
    scaling, unit = sample.scaling, "HU" if sample.modality is Modality.CT else "units of the source"
    span = scaling.high - scaling.low
    pictures = []
    for name, slice_HW in panels(method, target, scaling).items():
        low, high = (-span / 10, span / 10) if name == "error" else (scaling.low, scaling.high)
        uri = encode_png(np.asarray(np.clip((slice_HW - low) / (high - low), 0, 1), np.float32))
        pictures.append(Picture(caption=f"{name}, {low:.4g} to {high:.4g} {unit}", uri=uri))
    return pictures


@torch.no_grad()
def _restoration_pictures(method: Method, x: Floats, target: Floats, spec: Pseudo3D | None) -> list[Picture]:
    output = method.eval().reconstruct(torch.from_numpy(x[None]))
    if output is None:
        return []
    restored: Floats = output[0].numpy()
    error = np.abs(restored - target)
    depth = find_shown_depth(target)
    shown_error = np.clip(draw_slice(error, spec, depth) * 2, 0, 1)
    return [
        Picture(caption="input", uri=encode_png(stretch_to_unit(draw_slice(x, spec, depth)))),
        Picture(caption="restored", uri=encode_png(np.clip(draw_slice(restored, spec, depth), 0, 1))),
        Picture(caption="target", uri=encode_png(draw_slice(target, spec, depth))),
        Picture(caption=f"error, mean {float(error.mean()):.3f}", uri=encode_png(shown_error)),
    ]
