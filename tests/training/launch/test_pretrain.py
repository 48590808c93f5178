"""Pretraining in this process, without Ray: resume, refusals, metrics, and an encoder that needs none of it."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError, UsageError
from crossdim.training.config.execution import Execution
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.engine.control import Request
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.launch.driver import read_saved_config
from crossdim.training.launch.validate import validate_run
from crossdim.training.launch.worker import Source
from crossdim.training.option_values import parse_checkpoint_interval
from crossdim.training.recipes import recipe
from crossdim.training.run_dir import metric_log
from crossdim.training.run_dir.async_checkpointer import AsyncCheckpointer
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.events import list_events
from crossdim.training.run_dir.metric_log import EVERY_S
from crossdim.training.run_dir.metrics import read_metrics
from crossdim.training.run_dir.records import read_records
from crossdim.training.run_dir.status import read_status
from tests.ranks import PRELOADED
from tests.training.boards import read
from tests.training.published import images, publish, superpatches

WHAT_MUST_AGREE = ("step", "samples", "loss", "terms", "lr", "grad_norm", "counts")


def _pretrain(run: Path | str, *data: Bucket, steps: int = 6, more: tuple[str, ...] = ()) -> int:
    urls = [bucket.url for bucket in data]
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", *urls, "--out", str(run), "--workers", "0", "--json"]
    return main([*line, "--steps", str(steps), "--checkpoint-every", "2", "--set", "global_batch=8", *more])


def _agreeing(run: Path | str) -> list[dict[str, object]]:
    return [{name: record[name] for name in WHAT_MUST_AGREE} for record in read_metrics(Bucket(str(run)))]


def _pretrain_until(after: int, logged: bool, run: str, data: tuple[str, ...], more: tuple[str, ...]) -> None:
    """In a process of its own, which is killed when so many steps are made: no exit handler runs, and nothing is flushed.

    With ``logged``, every step is in the run's metrics by then, which are otherwise written every two seconds.
    """
    after_step = AsyncCheckpointer.after_step

    def cut(self: AsyncCheckpointer, record: StepRecord, request: Request) -> None:
        after_step(self, record, request)
        if record.step + 1 == after:
            while logged and record.step not in [line["step"] for line in read_metrics(Bucket(run))]:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)

    with patch.object(AsyncCheckpointer, "after_step", cut), patch.object(metric_log, "EVERY_S", 0.0 if logged else EVERY_S):
        _pretrain(run, *map(Bucket, data), more=more)


def _cut_off(after: int, run: Path, *data: Bucket, logged: bool = False, more: tuple[str, ...] = ()) -> None:
    """A power cut after so many steps."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    urls = tuple(bucket.url for bucket in data)
    process = multiprocessing.get_context("forkserver").Process(
        target=_pretrain_until, args=(after, logged, str(run), urls, more)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.integration
def test_a_run_that_is_cut_off_goes_on_as_if_it_had_not_been(image_data: Bucket, volume_data: Bucket, tmp_path: Path) -> None:
    """Cut after step 3, one step beyond a checkpoint: keys, losses and rates of all steps equal those of a run in one piece."""
    assert _pretrain(tmp_path / "whole", image_data, volume_data) == 0
    _cut_off(3, tmp_path / "cut", image_data, volume_data)
    assert _pretrain(tmp_path / "cut", image_data, volume_data) == 0
    assert _agreeing(tmp_path / "cut") == _agreeing(tmp_path / "whole")
    assert read_status(Bucket(str(tmp_path / "cut")), 0.0).in_vain <= 1  # step 2 was made, and lost with the process
    states = [torch.load(tmp_path / run / "checkpoints/step-00000006/state.pt", weights_only=True) for run in ("cut", "whole")]
    assert all(torch.equal(states[0]["model"][name], states[1]["model"][name]) for name in states[0]["model"])


@pytest.mark.integration
def test_steps_made_in_vain_are_counted_over_all_starts(image_data: Bucket, tmp_path: Path) -> None:
    """Cut off after two steps without a checkpoint, and then after four with one of step 3: three were made in vain."""
    for after in (2, 4):
        _cut_off(after, tmp_path, image_data, logged=True, more=("--checkpoint-every", "3"))
    assert _pretrain(tmp_path, image_data, more=("--checkpoint-every", "3")) == 0
    run = Bucket(str(tmp_path))
    starts = [read_records(run, event.path)[0] for event in list_events(run) if event.kind in ("start", "resume")]
    assert [(start["step"], start["in_vain"], start["text"]) for start in starts] == [
        (0, 0, ""),
        (0, 2, "2 steps are done again"),
        (3, 3, "1 step is done again"),
    ]
    assert [record["step"] for record in read_metrics(run)] == list(range(6))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100", (100, None)), ("1", (1, None)), ("30s", (None, 30.0)), ("0.2s", (None, 0.2)), ("1e3s", (None, 1e3))],
)
def test_how_far_checkpoints_lie_apart_is_steps_or_seconds(text: str, expected: tuple[int | None, float | None]) -> None:
    assert parse_checkpoint_interval(text) == expected
    every, every_s = expected
    assert Saving(every=every, every_s=every_s).count(200, 0.5) == {"100": 2, "1": 200, "30s": 4, "0.2s": 500, "1e3s": 1}[text]


@pytest.mark.parametrize("text", ["0", "-3", "0s", "-1s", "s", "", "2.5", "10m", "nans", "infs", "ten"])
def test_a_cadence_without_sense_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"{text!r} does not say how far checkpoints lie apart"):
        parse_checkpoint_interval(text)


def test_either_steps_or_seconds_say_when_to_save() -> None:
    for wrong in ({"every": 2, "every_s": 3.0}, {"every": None}, {"last": 0}, {"every": 0}, {"for_good": -1}):
        with pytest.raises(RunError, match=r"found (every|last|for_good)="):
            Saving(**wrong)  # type: ignore[arg-type]


@pytest.mark.integration
def test_a_finished_run_says_so_and_the_recipe_may_be_left_out(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert _pretrain(run, image_data, volume_data, steps=2) == 0
    capsys.readouterr()
    assert main(["pretrain", "--data", image_data.url, volume_data.url, "--out", run, "--workers", "0"]) == 0
    assert "was already done" in capsys.readouterr().out
    assert read_saved_config(Bucket(run)).steps == 2


@pytest.mark.integration
def test_the_mix_is_exact_in_every_step(image_data: Bucket, volume_data: Bucket, tmp_path: Path) -> None:
    urls = [f"{image_data.url}:0.25", f"{volume_data.url}:0.75"]
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", *urls, "--out", str(tmp_path / "run"), "--workers", "0", "--json"]
    assert main([*line, "--steps", "2", "--set", "global_batch=12"]) == 0
    assert [record["counts"] for record in read_metrics(Bucket(str(tmp_path / "run")))] == [{"pseudo3d": 3, "superpatch": 9}] * 2


@pytest.mark.parametrize(
    ("mode", "counts"),
    [
        ("ratio", [{"pseudo3d": 8}, {"superpatch": 8}, {"pseudo3d": 8}, {"superpatch": 8}]),
        ("block", [{"pseudo3d": 8}, {"pseudo3d": 8}, {"superpatch": 8}, {"superpatch": 8}]),
        ("joint", [{"pseudo3d": 4, "superpatch": 4}] * 4),
    ],
)
@pytest.mark.integration
def test_every_mixing_trains(
    mode: str, counts: list[dict[str, int]], image_data: Bucket, volume_data: Bucket, tmp_path: Path
) -> None:
    alike = ("--set", "method.solid.global_side=[16, 16, 16]", "--set", "method.solid.local_side=[16, 8, 8]")
    mixing = ("--set", f"mixing.mode={mode}", "--set", "mixing.block_steps=2")
    assert _pretrain(tmp_path, image_data, volume_data, steps=4, more=(*alike, *mixing)) == 0
    records = read_metrics(Bucket(str(tmp_path)))
    assert [record["counts"] for record in records] == counts
    streams = {name.partition("/")[0] for record in records for name in record["terms"]}
    assert streams == ({"joint"} if mode == "joint" else {"pseudo3d", "superpatch"})


def test_joint_batches_of_unlike_views_are_refused_before_the_first_step(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = _pretrain(tmp_path, image_data, volume_data, steps=4, more=("--set", "mixing.mode=joint"))
    text = _refused(capsys, code, 1)
    assert "mixing joint needs views alike" in text
    assert "'view1': (1, 16, 32, 32)" in text


def test_bf16_on_a_cpu_is_refused(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = _pretrain(tmp_path, image_data, volume_data, more=("--set", "compute.precision=bf16"))
    assert "bf16 needs --gpu" in _refused(capsys, code, 1)


@pytest.mark.integration
def test_an_average_is_kept_and_judged(image_data: Bucket, volume_data: Bucket, tmp_path: Path) -> None:
    """encoder.pt holds the averaged weights, and a resume goes on with both."""
    for steps in (2, 2):
        assert _pretrain(tmp_path, image_data, volume_data, steps=steps, more=("--set", "compute.ema=0.9")) == 0
    state = torch.load(tmp_path / "checkpoints/step-00000002/state.pt", weights_only=True)
    kept = torch.load(tmp_path / "encoder.pt", weights_only=True)["weights"]
    name = "down0.0.0.weight"
    assert torch.equal(kept[name], state["average"][f"module.encoder.{name}"])
    assert not torch.equal(kept[name], state["model"][f"encoder.{name}"])


def _refused(capsys: pytest.CaptureFixture[str], code: int, expected: int) -> str:
    text = capsys.readouterr().err
    assert code == expected, text
    assert "Traceback" not in text
    return text


@pytest.mark.integration
def test_resuming_with_another_recipe_is_refused_with_the_difference(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _pretrain(tmp_path, image_data, volume_data, steps=2) == 0
    code = _pretrain(tmp_path, image_data, volume_data, steps=2, more=("--set", "optimizer.lr=0.5"))
    assert "holds another run: optimizer.lr was 0.001 and is 0.5" in _refused(capsys, code, 2)


@pytest.mark.integration
def test_resuming_on_data_prepared_otherwise_is_refused(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A window that differs by a hundred HU gives other numbers under the same name."""
    assert _pretrain(tmp_path / "run", image_data, volume_data, steps=2) == 0
    other = Bucket(str(tmp_path / "other"))
    publish(other, superpatches(20), "solid", {"superpatch": {"side": 64}, "intensity": {"window_hu": [-175, 250]}})
    text = _refused(capsys, _pretrain(tmp_path / "run", image_data, other, steps=2), 2)
    assert "the dataset solid was prepared with another recipe or other settings" in text


@pytest.mark.parametrize(
    ("arguments", "expected", "message"),
    [
        (["--recipe", "cdsl-p3d:tiny"], 1, "did you mean cdssl-p3d:tiny"),
        (["--recipe", "cdssl-p3d:tiny", "--set", "step=3"], 1, "did you mean steps"),
        (["--recipe", "cdssl-p3d:tiny", "--steps", "many"], 1, "invalid int value"),
        (["--recipe", "cdssl-p3d:tiny", "--workers", "3:2"], 1, "'3:2' is no number of workers"),
        ([], 1, "no run to go on with"),
        (["--recipe", "cdssl-p3d:tiny", "--steps", "0"], 1, "of at least 1 and a seed of at least 0; found steps=0\n"),
        (["--recipe", "cdssl-p3d:tiny", "--keep", "0"], 1, "greater than 0; found last=0\n"),
        (["--recipe", "cdssl-p3d:tiny", "--set", "optimizer.lr=-1"], 1, "; found lr=-1.0\n"),
        (
            ["--recipe", "cross-d-supervised:tiny", "--set", "method.classes=ap,pa"],
            1,
            'expected a list such as ["a", "b"]',
        ),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: list[str], expected: int, message: str, image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["pretrain", "--workers", "0", *arguments, "--data", image_data.url, "--out", str(tmp_path / "run")]
    try:
        code = main(line)
    except SystemExit as exit_:  # argparse leaves by itself
        code = int(str(exit_.code))
    assert message in _refused(capsys, code, expected)


def test_data_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [
        "pretrain",
        "--recipe",
        "cdssl-p3d:tiny",
        "--data",
        str(tmp_path / "nowhere"),
        "--out",
        str(tmp_path / "run"),
        "--workers",
        "0",
    ]
    assert "nowhere is not a published dataset" in _refused(capsys, main(line), 2)


def test_too_many_workers_for_the_batch_are_refused_with_the_number(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [
        "pretrain",
        "--recipe",
        "cdssl-p3d:tiny",
        "--data",
        image_data.url,
        volume_data.url,
        "--out",
        str(tmp_path / "run"),
        "--workers",
        "5",
    ]
    assert "5 workers leaves a worker 1 samples" in _refused(capsys, main(line), 1)


def _admitted(config: Pretraining, world: int, *data: Bucket) -> None:
    sources = [Source(bucket=bucket, weight=1.0) for bucket in data]
    validate_run(config, sources, Bucket(data[0].url + "-run"), world, use_gpu=False)


def test_more_workers_than_samples_are_refused_with_the_number(image_data: Bucket, volume_data: Bucket) -> None:
    config = replace(recipe("maesil:tiny"), global_batch=5)
    _admitted(config, 5, image_data, volume_data)
    wanted = r"workers: 6 workers share a global_batch of 5: some would never have a sample; at most 5 workers, or a larger"
    with pytest.raises(UsageError, match=wanted):
        _admitted(config, 6, image_data, volume_data)


def test_a_method_without_batch_norm_lets_workers_be_without_a_sample_of_a_dataset(
    image_data: Bucket, volume_data: Bucket
) -> None:
    """Four of a batch of 5 have no image, or no superpatch; one that needs three of each is refused at two workers."""
    _admitted(replace(recipe("maesil:tiny"), global_batch=5, compute=Execution(accumulate=4)), 4, image_data, volume_data)
    with pytest.raises(UsageError, match="leaves a worker 1 samples of one dataset at a time; cdssl-p3d needs 3"):
        _admitted(replace(recipe("cdssl-p3d:tiny"), global_batch=5), 2, image_data, volume_data)


def test_synchronised_batch_norm_needs_a_sample_of_each_dataset_of_every_worker(image_data: Bucket, volume_data: Bucket) -> None:
    """Its statistics are of all workers' samples; a borrowed one would be counted among them."""
    config = replace(recipe("cdssl-p3d:tiny"), global_batch=8, compute=Execution(sync_bn=True))
    _admitted(config, 4, image_data, volume_data)
    with pytest.raises(UsageError, match="5 workers leave one without a sample of a dataset; synchronised batch norm"):
        _admitted(config, 5, image_data, volume_data)


@pytest.mark.integration
def test_the_encoder_loads_without_ray_and_without_an_object_store(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path
) -> None:
    """A colleague with PyTorch alone can use what was trained."""
    assert _pretrain(tmp_path, image_data, volume_data, steps=2) == 0
    script = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "fsspec", "s3fs", "obstore", "pyarrow", "zarr", "webdataset", "foundation"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import torch
from crossdim.training.backbones import load_encoder
encoder, spec = load_encoder({str(tmp_path / "encoder.pt")!r})
assert encoder(torch.zeros(1, 1, 16, 16, 16)).shape == (1, spec.num_features, 2, 2, 2)
assert spec.pseudo3d["window"] == 4 and len(spec.preprocessing_digests) == 2
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.integration
def test_metrics_hold_every_step_once_and_tensorboard_has_them_too(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path
) -> None:
    assert _pretrain(tmp_path, image_data, volume_data, steps=5) == 0
    assert [record["step"] for record in read_metrics(Bucket(str(tmp_path)))] == list(range(5))
    files = sorted((tmp_path / "tensorboard").glob("events*"))
    seen = [(value.tag, event.step) for file in files for event in read(file.read_bytes()) for value in event.summary.value]
    assert [step for tag, step in seen if tag == "loss"] == list(range(5))
    assert {"terms/pseudo3d/pixel", "terms/superpatch/semantic", "lr"} <= {tag for tag, _ in seen}
    assert json.loads((tmp_path / "progress.json").read_text())["step"] == 5


def test_folders_may_be_named_from_where_one_stands(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers stand elsewhere: a relative path must mean the folder of the one who typed it."""
    monkeypatch.chdir(tmp_path)
    assert _pretrain("runs/b", image_data, volume_data, steps=1) == 0
    assert (tmp_path / "runs" / "b" / "encoder.pt").exists()


def test_images_of_one_dataset_alone_are_enough(tmp_path: Path) -> None:
    bucket = Bucket(str(tmp_path / "alone"))
    publish(bucket, images(8), "alone")
    assert _pretrain(tmp_path / "run", bucket, steps=1) == 0


def test_one_dataset_given_twice_is_refused_by_name(
    image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also under another name; weights are what makes a dataset count more."""
    (tmp_path / "link").symlink_to(image_data.url)
    for again in (image_data.url, f"{image_data.url}/", f"{image_data.url}:2", str(tmp_path / "link")):
        line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--workers", "0", "--out", str(tmp_path / "run"), "--data"]
        error = _refused(capsys, main([*line, image_data.url, again]), 1)
        assert re.search(r"--data names \S+ twice; name each dataset once", error)
    assert not (tmp_path / "run").exists()


def test_the_next_line_is_ready_to_paste(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a run"
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--workers", "0", "--out", str(run), "--steps", "1"]
    assert main([*line, "--set", "global_batch=9", "--data", f"{image_data.url}:2", volume_data.url]) == 0
    told = capsys.readouterr().out
    assert told.endswith(f"Next: crossdim evaluate '{run}' --data {image_data.url} {volume_data.url}\n")


ATTEMPT_THAT_WAITS = """
import sys
from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir.attempts import AttemptRecord
AttemptRecord(Bucket(sys.argv[1]), 0).__enter__()
print("recorded", flush=True)
sys.stdin.read()
"""


def test_a_run_that_another_process_trains_is_left_to_it(
    image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command in a second terminal would otherwise take the run from the first, hours of work at its next checkpoint."""
    run = tmp_path / "run"
    assert _pretrain(run, image_data, steps=2) == 0
    before = sorted(path for path in run.rglob("*") if path.is_file())
    with subprocess.Popen(
        [sys.executable, "-c", ATTEMPT_THAT_WAITS, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "recorded\n"
        assert _pretrain(run, image_data, steps=2) == 1
        told = capsys.readouterr().err
        for part in (f"is being trained by process {other.pid}", f"kill -INT {other.pid}", "--force"):
            assert part in told
        assert len([path for path in run.rglob("*") if path.is_file()]) == len(before) + 1, "only the other's attempt is new"
        assert _pretrain(run, image_data, steps=2, more=("--force",)) == 0
        other.communicate("")
    assert _pretrain(run, image_data, steps=2) == 0
