"""Plan: what it says is held against the run that it speaks of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.training.data import loader
from crossdim.training.data.collate import Batch
from crossdim.training.data.range_reader import open_range_reader
from crossdim.training.launch.estimate import MeasuredMethod, Probe, plan
from crossdim.training.methods.base import Step, StepOutput
from crossdim.training.recipes import recipe
from crossdim.training.run_dir import layout
from crossdim.training.run_dir.checkpoint import Saving


def _line(run: Path, *data: Bucket, more: tuple[str, ...] = ()) -> int:
    urls = [bucket.url for bucket in data]
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", *urls, "--out", str(run), "--json", "--steps", "2"]
    return main([*line, "--set", "global_batch=8", *more])


def _plan(capsys: pytest.CaptureFixture[str], run: Path, *data: Bucket, more: tuple[str, ...] = ()) -> dict[str, object]:
    capsys.readouterr()
    assert _line(run, *data, more=("--plan", *more)) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


class _Counted:
    """Ranges that count."""

    requests = 0

    def __init__(self, bucket: Bucket) -> None:
        self._ranges = open_range_reader(bucket)

    def get(self, path: str, offset: int, length: int) -> bytes:
        type(self).requests += 1
        return self._ranges.get(path, offset, length)


@pytest.mark.parametrize("more", [(), ("--set", "compute.ema=0.9")])
@pytest.mark.integration
def test_sizes_and_requests_are_those_of_the_run(
    more: tuple[str, ...],
    image_data: Bucket,
    volume_data: Bucket,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the byte and to the request."""
    found = _plan(capsys, tmp_path / "run", image_data, volume_data, more=("--workers", "0", *more))
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(loader, "open_range_reader", _Counted)
    monkeypatch.setattr(_Counted, "requests", 0)
    assert _line(tmp_path / "run", image_data, volume_data, more=("--workers", "0", *more)) == 0
    state = tmp_path / "run" / layout.CHECKPOINTS / layout.checkpoint_name(2) / layout.STATE
    measured = Probe(**found["probe"])  # type: ignore[arg-type]
    encoder = (tmp_path / "run" / layout.ENCODER).stat().st_size
    assert measured.stored_bytes == {"state": state.stat().st_size, "encoder": encoder}
    assert found["requests"] == _Counted.requests == 16
    assert [share["checkpoints"] for share in found["workers"]] == [1]  # type: ignore[attr-defined]

    stored, held = torch.load(state, weights_only=True), measured.fixed_bytes
    momentum = sum(entry["momentum_buffer"].nbytes for entry in stored["optimizer"]["state"].values())
    assert held["optimizer"] == held["gradients"] == momentum
    assert held["weights"] == sum(tensor.nbytes for tensor in stored["model"].values())
    assert held["average"] == sum(tensor.nbytes for tensor in (stored["average"] or {}).values())
    assert (held["average"] > 0) == bool(more)


@pytest.mark.integration
def test_the_fewest_samples_are_measured_and_scaled(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As rank 0 of the most workers; half as many take twice as long, hold twice the activations, and ask as often together."""
    found = _plan(
        capsys, tmp_path, image_data, volume_data, more=("--workers", "1:2", "--set", "global_batch=12", "--steps", "4")
    )
    measured, [one, two] = Probe(**found["probe"]), found["workers"]  # type: ignore[arg-type, misc]
    assert (measured.world, measured.samples, measured.steps) == (2, 6.0, 3)
    assert (one["workers"], two["workers"], two["samples"]) == (1, 2, 6.0)
    assert two["step_s"] == pytest.approx(measured.step_s)
    assert one["hours"] == pytest.approx(2 * two["hours"])
    assert one["memory_bytes"] - two["memory_bytes"] == pytest.approx(measured.kept_bytes)
    assert one["requests"] == found["requests"] == 2 * two["requests"] == 48
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_a_mixture_in_blocks_is_seen_whole(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first hundred steps hold images alone; what volumes take must be in the mean."""
    both = _plan(
        capsys, tmp_path, image_data, volume_data, more=("--workers", "0", "--set", "mixing.mode=block", "--steps", "200")
    )
    assert both["probe"]["steps"] == 4  # type: ignore[index]
    images, volumes = (
        _kept(_plan(capsys, tmp_path, data, more=("--workers", "0", "--steps", "1"))) for data in (image_data, volume_data)
    )
    assert volumes > 1.2 * images
    assert _kept(both) > 0.95 * volumes


def _kept(found: dict[str, object]) -> int:
    kept: int = found["probe"]["kept_bytes"]  # type: ignore[index]
    return kept


def test_parts_hold_less(image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The parts of a step follow one another, so memory is that of the largest."""
    whole, parts = (
        _plan(capsys, tmp_path, image_data, more=("--workers", "0", "--steps", "1", "--set", f"compute.accumulate={number}"))
        for number in (1, 2)
    )
    assert 0.45 * _kept(whole) < _kept(parts) < 0.6 * _kept(whole)


class _Squared(nn.Module):
    """exp keeps its result, the product keeps both factors: a known number of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10))

    def forward(self, batch: Batch, step: Step) -> StepOutput:
        x: Tensor = batch.tensors["x"]
        return StepOutput({"loss": ((x * self.weight).exp() * self.weight).sum()}, {})


def test_what_is_kept_is_counted_once_and_weights_are_not() -> None:
    """X for the first product, the exponential for itself and for the second product: 2 x 40 bytes a sample."""
    measured = MeasuredMethod(_Squared())  # type: ignore[arg-type]
    for samples in (3, 5, 2):
        batch = Batch(
            keys=("k",) * samples, tensors={"x": torch.zeros(samples, 10)}, stream="s", counts={"s": samples}, least=samples
        )
        measured(batch, Step(index=0, total=1, seed=0)).losses["loss"].backward()
    assert (measured.samples, measured.kept_bytes) == (10, 5 * 80)


def test_the_arithmetic_stands_in_the_sentences() -> None:
    """By hand: 10 s for 4 of 16 samples, 90 steps: one worker takes 90 x 40 s = an hour."""
    found = Probe(
        device="cpu",
        world=4,
        steps=3,
        samples=4.0,
        step_s=10.0,
        wait_s=1.0,
        kept_bytes=40_000_000,
        fixed_bytes={"weights": 3_000_000, "gradients": 2_000_000, "optimizer": 2_000_000, "average": 3_000_000},
        stored_bytes={"state": 8_000_000, "encoder": 1_000_000},
    )
    config = recipe("cdssl-p3d:tiny")
    config = type(config)(method=config.method, steps=90, global_batch=16)
    document, text = plan(config, found, [1, 4], Saving(every=40))
    assert "workers 1: 10 s x 16 / 4 samples = 40 s a step, x 90 / 3600 = 1 hours; memory 10.0 + 160.0 = 170.0 MB each" in text
    assert "workers 4: 10 s x 4 / 4 samples = 10 s a step, x 90 / 3600 = 0.25 hours; memory 10.0 + 40.0 = 50.0 MB each" in text
    assert "360 range GETs each, 1.6 a second together; 3 checkpoints" in text
    assert "90 steps x 16 samples = 1440 range GETs, one a sample" in text
    assert "checkpoint: state 8.0 + encoder 1.0 = 9.0 MB" in text
    assert "weights 3.0 + gradients 2.0 + optimizer 2.0 + average 3.0 = 10.0 MB" in text
    assert document["requests"] == 1440
    _, timed = plan(config, found, [1, 4], Saving(every=None, every_s=600))
    assert "6 checkpoints" in timed  # 90 x 40 s
    assert "2 checkpoints" in timed  # 90 x 10 s


def test_what_pretrain_refuses_plan_refuses(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _line(tmp_path, image_data, volume_data, more=("--plan", "--workers", "5")) == 1
    assert "5 workers leaves a worker" in capsys.readouterr().err
