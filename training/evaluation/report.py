"""The report: one self-contained page of inputs, views, restorations, curves, and what the features are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch

from storage_schema.pseudo3d import Pseudo3D, fold
from storage_schema.sample import Sample
from storage_schema.vocabulary import Presentation
from training.data.collate import Views
from training.data.corpus import Corpus, read_sample
from training.data.order import rng_at
from training.data.ranges import open_ranges
from training.data.views import image_of
from training.evaluation.pictures import Curve, Floats, curve, png, stretched
from training.evaluation.probes import Result
from training.evaluation.statistics import restated
from training.methods.base import Method, MethodConfig

SHOWN_SAMPLES = 2
#: Samples from which the batch-norm statistics for restoring are taken.
STATISTICS_SAMPLES = 16
TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture and what it shows."""

    caption: str
    uri: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """Pictures of one sample, in rows with a title each."""

    title: str
    rows: list[tuple[str, list[Picture]]]


def middle(volume_CDHW: Floats, spec: Pseudo3D | None) -> Floats:
    """One picture of a view: the image behind a pseudo-3D volume, or the middle slice of a true one."""
    if spec is None:
        return np.asarray(volume_CDHW[0, volume_CDHW.shape[1] // 2])
    height, width = volume_CDHW.shape[2] * spec.window, volume_CDHW.shape[3] * spec.window
    return np.asarray(fold(volume_CDHW, spec, height, width)[0])


def galleries(corpus: Corpus, config: MethodConfig, method: Method) -> list[Gallery]:
    """The first samples of a dataset: what they are, how the method distorted them, and what the network restored."""
    ranges = open_ranges(corpus.bucket)
    first = [read_sample(corpus, index, ranges) for index in range(min(STATISTICS_SAMPLES, len(corpus)))]
    views = [config.draw(sample, corpus.pseudo3d, rng_at(0, index)) for index, sample in enumerate(first)]
    inputs = torch.from_numpy(np.stack([view["view1"] for view in views]))
    fitted = restated(method, lambda copy: copy.reconstruct, [inputs]) if len(first) > 1 else method
    return [_gallery(corpus, *shown, config, fitted) for shown in zip(first[:SHOWN_SAMPLES], views, strict=False)]


def _gallery(corpus: Corpus, sample: Sample, views: Views, config: MethodConfig, method: Method) -> Gallery:
    flat = sample.presentation is not Presentation.SUPERPATCH
    spec = (corpus.pseudo3d or Pseudo3D()) if flat else None
    whole = config.whole(sample, corpus.pseudo3d)
    rows = [("input", [Picture(caption="as stored", uri=png(image_of(sample, spec) if spec else middle(sample.unit(), None)))])]
    if spec:
        slices = [Picture(caption=f"depth {d}", uri=png(whole["target"][0, d])) for d in range(0, whole["target"].shape[1], 3)]
        rows.append(("pseudo-3D slices", slices))
    names = [("view1", "view 1"), ("view2", "view 2"), ("clean1", "clean target of view 1")]
    shown = [Picture(caption=caption, uri=png(stretched(middle(views[name], spec)))) for name, caption in names]
    shown += [
        Picture(caption=f"local {i + 1}", uri=png(stretched(middle(local, spec)))) for i, local in enumerate(views["local"][:3])
    ]
    rows.append(("views", shown))
    rows.append(("restored", _restored(method, views["view1"], views["clean1"], spec)))
    label = f", label {sample.label}" if sample.label else ""
    return Gallery(title=f"{corpus.manifest.name}: {sample.origin.uri} ({sample.modality}{label})", rows=rows)


@torch.no_grad()
def _restored(method: Method, view_CDHW: Floats, clean_CDHW: Floats, spec: Pseudo3D | None) -> list[Picture]:
    output = method.eval().reconstruct(torch.from_numpy(view_CDHW[None]))
    if output is None:
        return []
    restored: Floats = output[0].numpy()
    error = np.abs(restored - clean_CDHW)
    return [
        Picture(caption="corrupted input", uri=png(stretched(middle(view_CDHW, spec)))),
        Picture(caption="restored", uri=png(middle(restored, spec))),
        Picture(caption="target", uri=png(middle(clean_CDHW, spec))),
        Picture(caption=f"error, mean {float(error.mean()):.3f}", uri=png(np.clip(middle(error, spec) * 2, 0, 1))),
    ]


def curves(metrics: list[dict[str, Any]]) -> list[tuple[str, Curve]]:
    """The loss of a run and its terms, titled."""
    if len(metrics) < 2:
        return []
    terms: dict[str, list[float]] = {name: [record["terms"][name] for record in metrics] for name in metrics[0]["terms"]}
    return [("loss", curve({"loss": [record["loss"] for record in metrics]})), ("terms, weighted", curve(terms))]


def page(
    run: dict[str, Any], results: list[Result], notes: list[str], shown: list[Gallery], metrics: list[dict[str, Any]]
) -> bytes:
    """The whole page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text())
    return template.render(run=run, results=results, notes=notes, galleries=shown, curves=curves(metrics)).encode()
