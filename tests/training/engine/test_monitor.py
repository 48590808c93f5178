"""Looks at features: a collapse is caught, a healthy run is not flagged, and what is trained does not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.training.config.execution import Execution
from crossdim.training.data.collate import collate
from crossdim.training.data.dataset import open_dataset
from crossdim.training.data.fixed_batch import NUM_SAMPLES, choose_samples, read_fixed_batches
from crossdim.training.engine.control import Request, StopControl
from crossdim.training.engine.monitor import FeatureMonitor, Monitoring, embed
from crossdim.training.engine.train_state import TrainState
from crossdim.training.launch.collapse_guard import CollapseGuard
from crossdim.training.recipes import recipe
from crossdim.training.run_dir.events import list_events, read_event
from crossdim.training.run_dir.metrics import read_metrics, read_progress
from tests.training.published import images, publish, superpatches


def test_samples_of_the_test_split_come_first_and_lie_apart() -> None:
    splits = ["train"] * 90 + ["test"] * 10
    assert choose_samples(splits, 5) == [90, 92, 94, 96, 98]
    assert choose_samples(splits, 13) == [*range(90, 100), 0, 30, 60]
    assert choose_samples(["train"] * 3, 5) == [0, 1, 2]


def test_every_stream_has_a_batch_that_never_changes(image_data: Bucket, volume_data: Bucket, tmp_path: Path) -> None:
    """30 images trained on beside 40 of which 38 are held out, and 20 volumes: half of the images from each dataset."""
    publish(Bucket(str(tmp_path)), images(40, seed=9), "more", splits=["train"] * 2 + ["test"] * 38)
    datasets = [open_dataset(bucket) for bucket in (image_data, Bucket(str(tmp_path)), volume_data)]

    def draw(sample: Any, rng: Any) -> Any:
        return {"view": rng.random(3)}

    batches = read_fixed_batches(datasets, draw, 2, joint=False)
    assert [(batch.stream, len(batch.keys)) for batch in batches] == [("pseudo3d", NUM_SAMPLES), ("superpatch", 20)]
    assert len(set(batches[0].keys) & set(open_dataset(Bucket(str(tmp_path)), None).column("key")[2:])) == NUM_SAMPLES // 2
    again = read_fixed_batches(datasets, draw, 1, joint=False)
    assert all(torch.equal(one.tensors["view"], two.tensors["view"]) for one, two in zip(batches, again, strict=True))
    (joint,) = read_fixed_batches(datasets, draw, 2, joint=True)
    assert (joint.stream, len(joint.keys)) == ("joint", NUM_SAMPLES)


def test_a_run_that_never_looks_cannot_stop_on_a_collapse() -> None:
    with pytest.raises(RunError, match="at least 1 steps between measurements of features"):
        Monitoring(every=0, stop_on_collapse=True)


@pytest.mark.parametrize("name", ["cdssl-p3d:tiny", "cross-d:tiny", "maesil:tiny", "ae:tiny", "cross-d-supervised:tiny"])
def test_a_look_changes_nothing_and_names_what_it_measures(name: str) -> None:
    """Weights, running statistics and the random generator are as they were, to the bit; methods that compare have two views."""
    config = recipe(name)
    config = replace(config, method=config.method.with_labels(("0", "1")))
    state, method = TrainState.build(config, torch.device("cpu")), config.method
    rng = np.random.default_rng(0)
    samples = superpatches(4) if name != "cross-d-supervised:tiny" else images(4)
    spec = Pseudo3D() if samples[0].presentation.is_2d else None
    views = [method.draw(one, spec, rng) if method.compares else method.whole(one, spec) for one in samples]
    batch = collate(views, [one.key for one in samples], str(samples[0].presentation), 4)
    before, seed = {key: value.clone() for key, value in state.method.state_dict().items()}, torch.random.get_rng_state()
    found = embed(state, batch, Execution())
    after = state.method.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(seed, torch.random.get_rng_state())
    assert {len(pair) for pair in found.values()} == {2 if method.compares else 1}
    assert found["encoder"][0].shape == (4, state.method.encoder_spec.num_features)
    projections = {"cdssl-p3d:tiny": {"z0", "z1", "z2"}, "cross-d:tiny": {"z"}}
    assert set(found) == {"encoder"} | projections.get(name, set())
    if method.compares:
        monitor = FeatureMonitor(lambda: [batch], 5, warns=True)
        assert monitor.measure(state, Execution(), 4) == {}
        measures = {name.rpartition(".")[2] for name in monitor.measure(state, Execution(), 5)}
        assert measures == {"dimensions", "rank_me", "alignment", "uniformity"}
        assert monitor.collapse == ""  # of four samples nothing is said


class _Collapsed:
    """Stands for a monitor that finds what a test gives it."""

    collapse = ""


def test_a_collapse_is_said_once_until_features_recover() -> None:
    said, control, monitor = [], StopControl(), _Collapsed()
    found: Any = monitor
    guard = CollapseGuard(found, control, stops=False, report=lambda step, text: said.append((step, text)))

    def after(step: int, collapse: str) -> None:
        monitor.collapse = collapse
        record: Any = type("Record", (), {"step": step - 1})
        guard.after_step(record, Request.NOTHING)

    for step, collapse in ((1, ""), (2, "low"), (3, "low"), (4, ""), (5, "low")):
        after(step, collapse)
    assert said == [(2, "low"), (5, "low")]
    assert control.take() is Request.NOTHING


def _pretrain(run: Path, data: list[Bucket], rate: float, *more: str, steps: int = 100) -> int:
    urls = [bucket.url for bucket in data]
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", *urls, "--out", str(run), "--workers", "0"]
    settings = ["--set", f"optimizer.lr={rate}", "--set", "optimizer.warmup_steps=0"]
    return main([*line, "--steps", str(steps), *settings, "--monitor-every", "25", *more])


@pytest.mark.integration
def test_a_run_that_collapses_is_caught_within_fifty_steps(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a rate of 3e-2 features lie on a line; the loss falls all the same."""
    assert _pretrain(tmp_path, [image_data, volume_data], 3e-2, "--stop-on-collapse") == 4
    error = capsys.readouterr().err
    assert "collapse: by RankMe they vary in" in error
    assert "try a lower learning rate" in error
    run = Bucket(str(tmp_path))
    metrics = read_metrics(run)
    assert len(metrics) <= 51
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    (event,) = [read_event(run, event) for event in list_events(run) if event.kind == "collapse"]
    assert event["step"] in (25, 50)
    note = read_progress(run)
    assert note is not None
    assert note["rank_me"] < 8
    assert run.exists(f"checkpoints/step-{len(metrics):08d}/state.pt")


@pytest.mark.integration
def test_a_healthy_run_is_not_flagged(image_data: Bucket, volume_data: Bucket, tmp_path: Path) -> None:
    """At PCRLv2's rate features vary in more directions after as many steps as the other run takes to collapse."""
    assert _pretrain(tmp_path, [image_data, volume_data], 1e-3, "--stop-on-collapse", steps=25) == 0
    run = Bucket(str(tmp_path))
    assert "collapse" not in [event.kind for event in list_events(run)]
    (look,) = [record["monitors"] for record in read_metrics(run) if "fixed/pseudo3d/encoder.rank_me" in record["monitors"]]
    assert look["fixed/pseudo3d/encoder.rank_me"] > 12
    assert look["fixed/superpatch/encoder.rank_me"] > 8
