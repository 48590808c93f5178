"""Volumes put together from their superpatches: every box where it was cut, air where none is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.sample import Origin, Sample
from crossdim.storage_schema.vocabulary import Split
from crossdim.training.data.dataset import open_dataset
from crossdim.training.evaluation.volumes import assemble_volumes, find_held_out
from tests.training.published import publish, superpatches

SIDE = 64


def _boxes() -> list[Sample]:
    """Three boxes of one source, of a grid of 1 x 2 x 2, and one of another."""
    places = [(0, 0, 0), (0, 0, SIDE), (0, SIDE, SIDE), (0, 0, 0)]
    samples = []
    for number, (sample, place) in enumerate(zip(superpatches(4), places, strict=True)):
        origin = Origin(uri="one" if number < 3 else "other", sha256=sample.origin.sha256, part=f"box={number}")
        samples.append(replace(sample, origin=origin, origin_zyx=place))
    return samples


def test_boxes_lie_where_they_were_cut_and_the_rest_is_air(tmp_path: Path) -> None:
    bucket, boxes = Bucket(str(tmp_path)), _boxes()
    publish(bucket, boxes, "solid")
    one, other = assemble_volumes(open_dataset(bucket, split=None), ["one", "other"])
    assert one.array_CDHW.shape == (1, SIDE, 2 * SIDE, 2 * SIDE)
    for sample in boxes[:3]:
        assert sample.origin_zyx is not None
        d, h, w = sample.origin_zyx
        assert np.array_equal(one.array_CDHW[:, d : d + SIDE, h : h + SIDE, w : w + SIDE], sample.array)
    empty = one.array_CDHW[:, :, SIDE:, :SIDE]
    assert np.all(one.scaling.unit(empty) == 0)
    assert np.array_equal(other.array_CDHW, boxes[3].array)


def test_volumes_come_from_what_was_held_out_or_from_training_where_nothing_was(tmp_path: Path) -> None:
    bucket = Bucket(str(tmp_path))
    publish(bucket, _boxes(), "solid")
    assert find_held_out(open_dataset(bucket, split=None)) == (Split.TRAIN, ["one", "other"])
