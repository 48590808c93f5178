"""A method that learns from labels takes its classes from the datasets of a run, unless they are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.settings import to_document
from crossdim.storage_schema.errors import UsageError
from crossdim.training.config.pretraining import Pretraining, apply_overrides
from crossdim.training.launch.validate import ValidatedRun, validate_run
from crossdim.training.launch.worker import Source
from crossdim.training.recipes import recipe
from crossdim.training.run_dir.run_config import write_run_config
from tests.training.published import images, publish

SUPERVISED = recipe("cross-d-supervised:tiny")


def _validate(run: Path, *datasets: Bucket, config: Pretraining = SUPERVISED) -> ValidatedRun:
    return validate_run(config, [Source(bucket=data, weight=1.0) for data in datasets], Bucket(str(run)), 0, use_gpu=False)


def _publish(folder: Path, *labels: str | None, splits: tuple[str, ...] = ()) -> Bucket:
    data = Bucket(str(folder))
    samples = images(12 * len(labels), seed=len(folder.name))
    publish(data, [replace(one, label=labels[n % len(labels)]) for n, one in enumerate(samples)], folder.name, splits=splits)
    return data


def test_all_labels_that_are_trained_on_are_the_classes_which_is_told_and_recorded(tmp_path: Path) -> None:
    xr = _publish(tmp_path / "xr", "pneumonia", "normal", None)
    more = _publish(tmp_path / "more", "normal", "effusion", "never", splits=("train", "train", "test") * 12)
    started = _validate(tmp_path / "run", xr, more)
    assert started.config.method.label_names() == ("effusion", "normal", "pneumonia")
    told = "3 classes, all labels of the datasets: effusion, normal, pneumonia; --set method.classes names some"
    assert started.choices[0] == told
    assert started.identity["config"]["method"]["classes"] == ["effusion", "normal", "pneumonia"]

    write_run_config(Bucket(str(tmp_path / "run")), started.identity, [xr.url, more.url])
    resumed = _validate(tmp_path / "run", xr, more)
    assert resumed.identity == started.identity
    assert resumed.choices == ()


def test_classes_that_are_named_are_taken_and_not_told(tmp_path: Path) -> None:
    xr = _publish(tmp_path / "xr", "pneumonia", "normal", "other")
    named = apply_overrides(SUPERVISED, ['method.classes=["pneumonia", "normal"]'])
    started = _validate(tmp_path / "run", xr, config=named)
    assert started.config.method == named.method
    assert to_document(started.config.method)["classes"] == ["pneumonia", "normal"]
    assert not [choice for choice in started.choices if "classes" in choice]


def test_many_classes_are_told_by_the_first_and_their_number(tmp_path: Path) -> None:
    xr = _publish(tmp_path / "xr", *[f"c{number:02d}" for number in range(11)])
    told = _validate(tmp_path / "run", xr).choices[0]
    assert told.startswith("11 classes, all labels of the datasets: c00, c01, c02, c03, c04, c05, c06, c07 and 3 more; ")


@pytest.mark.parametrize(
    ("labels", "has"),
    [(("normal",), r"its labels are normal \(12\)"), ((None,), "it has no labels: prepare it with --label folder")],
)
def test_fewer_than_two_labels_are_refused(labels: tuple[str | None, ...], has: str, tmp_path: Path) -> None:
    xr = _publish(tmp_path / "xr", *labels)
    with pytest.raises(UsageError, match=f"has fewer than two labels, and cross-d-supervised learns them; {has}"):
        _validate(tmp_path / "run", xr)
    assert not (tmp_path / "run").exists()
