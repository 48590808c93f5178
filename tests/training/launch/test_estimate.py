"""Plan: what it says is held against the run that it speaks of."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.plan_table import format_figures
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data import loader
from crossdim.training.data.collate import Batch
from crossdim.training.data.order import DatasetOrder, Order
from crossdim.training.data.range_reader import open_range_reader
from crossdim.training.launch.estimate import MeasuredMethod, Probe
from crossdim.training.launch.planning import count_workers
from crossdim.training.launch.run_plan import Reading, count_samples, plan_workers
from crossdim.training.launch.run_plan_table import build_run_figures
from crossdim.training.launch.workers import Workers
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

    requests, num_bytes = 0, 0

    def __init__(self, bucket: Bucket) -> None:
        self._ranges = open_range_reader(bucket)

    def get(self, path: str, offset: int, length: int) -> bytes:
        type(self).requests += 1
        type(self).num_bytes += length
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
    assert held["optimizer"] == momentum
    # Of heads that neither of the two steps drew, the optimizer would have no momentum yet; gradients are of all weights.
    heads = sum(tensor.nbytes for name, tensor in stored["model"].items() if name.startswith("heads."))
    assert 0 <= held["gradients"] - momentum < heads
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


@pytest.fixture
def measured() -> Probe:
    """10 s for 4 of 16 samples, 3 of 4 processors busy, 100 s before the first step."""
    return Probe(
        device="cpu",
        world=4,
        steps=3,
        samples=4.0,
        step_s=10.0,
        wait_s=1.0,
        kept_bytes=40_000_000,
        fixed_bytes={"weights": 3_000_000, "gradients": 2_000_000, "optimizer": 2_000_000, "average": 3_000_000},
        stored_bytes={"state": 8_000_000, "encoder": 1_000_000},
        cpu_step_s=7.5,
        start_s=100.0,
        save_s=2.0,
        host_bytes=500_000_000,
    )


def _config() -> Pretraining:
    config = recipe("cdssl-p3d:tiny")
    return type(config)(method=config.method, steps=90, global_batch=16)


def test_the_arithmetic_by_hand(measured: Probe) -> None:
    """90 steps: one worker takes 90 x 40 s, an hour, and 100 s before and 3 x 2 s for checkpoints."""
    one, four = plan_workers(_config(), measured, [1, 4], Saving(every=40))
    assert (one["step_s"], four["step_s"]) == (40.0, 10.0)
    assert (one["hours"], four["hours"]) == (1.0, 0.25)
    assert (one["wall_s"], four["wall_s"]) == (3600 + 106, 900 + 106)
    assert one["cpu_hours"] * 3600 == pytest.approx(100 + 90 * 30 + 6)
    assert four["cpu_hours"] * 3600 == pytest.approx(4 * (100 + 90 * 7.5) + 6)
    assert (one["memory_bytes"], four["memory_bytes"]) == (170e6, 50e6)
    assert (one["host_bytes"], four["host_bytes"]) == (628e6, 508e6)
    assert (one["requests"], four["requests"], four["requests_per_s"]) == (1440, 360, 1.6)
    assert (one["checkpoints"], four["checkpoints"]) == (3, 3)
    timed = plan_workers(_config(), measured, [1, 4], Saving(every=None, every_s=600))
    assert [share["checkpoints"] for share in timed] == [6, 2]


def test_what_a_gpu_holds_grows_there_and_not_in_the_host(measured: Probe) -> None:
    found = replace(measured, device="cuda", device_bytes=60_000_000)
    one, four = plan_workers(_config(), found, [1, 4], Saving(every=40))
    assert (one["device_bytes"], four["device_bytes"]) == (180e6, 60e6)
    assert one["host_bytes"] == four["host_bytes"]


def test_the_table_and_its_prices(measured: Probe) -> None:
    """By hand: 1 worker 3706 s, 4 workers 4 x 1006 s of a GPU; (1440 reads + writes) / 1000."""
    config, saving = _config(), Saving(every=40)
    shares = plan_workers(config, measured, [1, 4], saving)
    reading = [Reading(name="ct", samples=1440, passes=14.4, num_bytes=2e6)]
    columns, figures = build_run_figures(config, measured, shares, reading, saving, {"gpu_hour": 2.0, "request": 10.0})
    text = "\n".join(format_figures(columns, figures))
    assert re.search(r"^ +1 worker  4 workers  how$", text, re.MULTILINE)
    assert re.search(r"^passes over ct +14\.40 +1,440 samples by the order of the run$", text, re.MULTILINE)
    assert re.search(
        r"^wall time +1:01:46 +16:46 +10 s for 4 samples, mean of 3 steps here on cpu; start 100 s$", text, re.MULTILINE
    )
    assert re.search(r"^checkpoint +9\.0 MB +state 8\.0 MB \+ encoder 1\.0 MB; the 3 newest stay$", text, re.MULTILINE)
    assert re.search(r"^range requests +1,440 +one a sample$", text, re.MULTILINE)
    by_key = {figure.key: figure.values for figure in figures}
    assert by_key["price_gpu_hour"] == pytest.approx((3706 * 2 / 3600, 4 * 1006 * 2 / 3600))
    assert by_key["price_request"] == pytest.approx(tuple((1440 + share["writes"]) / 100 for share in shares))
    assert "price_cpu_hour" not in by_key


@pytest.mark.parametrize("stretch", [1, 3])
def test_samples_of_each_dataset_are_counted_as_the_order_gives_them(stretch: int) -> None:
    order = Order(1, (DatasetOrder(num_samples=7, weight=3), DatasetOrder(num_samples=5, weight=2)), stretch)
    for positions in (0, 1, 4, 5, 7, 16, 31, 200):
        found = order.dataset_at(np.arange(positions, dtype=np.int64))
        assert count_samples(order, positions) == [int((found == number).sum()) for number in range(2)]


@pytest.mark.integration
def test_bytes_and_passes_are_those_that_the_run_reads(
    image_data: Bucket,
    volume_data: Bucket,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = _plan(capsys, tmp_path / "run", image_data, volume_data, more=("--workers", "0"))
    monkeypatch.setattr(loader, "open_range_reader", _Counted)
    monkeypatch.setattr(_Counted, "num_bytes", 0)
    assert _line(tmp_path / "run", image_data, volume_data, more=("--workers", "0")) == 0
    assert found["figures"]["read_bytes"]["value"] == _Counted.num_bytes  # type: ignore[index]
    assert [one["samples"] for one in found["datasets"]] == [8, 8]  # type: ignore[attr-defined]


def test_workers_are_doubled() -> None:
    def spread(least: int, most: int) -> list[int]:
        return count_workers(Workers(least=least, most=most, use_gpu=False, address=None, quiet=True))

    assert (spread(0, 0), spread(1, 1), spread(8, 8), spread(2, 16), spread(3, 7)) == (
        [1],
        [1],
        [1, 2, 4, 8],
        [2, 4, 8, 16],
        [3, 6, 7],
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--price-cpu-hour", "1"), "--price-cpu-hour needs --plan"),
        (("--plan", "--price-gpu-hour", "1"), "--price-gpu-hour needs --gpu"),
    ],
)
def test_wrong_prices(more: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _line(tmp_path, Bucket("nowhere"), more=more) == 1
    assert message in capsys.readouterr().err


def test_what_pretrain_refuses_plan_refuses(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _line(tmp_path, image_data, volume_data, more=("--plan", "--workers", "5")) == 1
    assert "5 workers leaves a worker" in capsys.readouterr().err
