"""Pictures of a run: the same samples at each chosen step, each step once, and a training that does not notice."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError
from crossdim.training.engine.control import Request
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.engine.train_state import TrainState
from crossdim.training.pictures import hook, sample_pictures
from crossdim.training.recipes.maesil import tiny
from crossdim.training.run_dir.async_checkpointer import AsyncCheckpointer
from crossdim.training.run_dir.layout import STEP_PICTURES, step_pictures_path
from crossdim.training.run_dir.metrics import read_metrics
from crossdim.training.run_dir.picture_log import list_picture_steps, read_step_pictures, remove_pictures_after

pytestmark = pytest.mark.integration
EXACT = ("step", "samples", "loss", "terms", "monitors", "lr", "grad_norm")


def pretrain(run: Path, *data: Bucket, recipe: str = "cdssl-p3d:tiny", at: str = "0,2,3,100%", more: tuple[str, ...] = ()) -> int:
    line = ["pretrain", "--recipe", recipe, "--data", *(one.url for one in data), "--out", str(run), "--json"]
    return main([*line, "--steps", "5", "--checkpoint-every", "2", "--pictures-at", at, "--workers", "0", *more])


def pictures(run: Path) -> dict[int, bytes]:
    bucket = Bucket(str(run))
    return {step: bucket.read(step_pictures_path(step)) for step in list_picture_steps(bucket)}


@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        ("cdssl-p3d:tiny", ("--set", "global_batch=8")),
        ("cdssl-p3d:tiny", ("--set", "global_batch=8", "--set", "compute.ema=0.9", "--set", "method.render=device")),
        ("maesil:tiny", ()),
    ],
)
def test_training_computes_the_same_with_and_without_pictures(
    recipe: str, more: tuple[str, ...], image_data: Bucket, volume_data: Bucket, tmp_path: Path
) -> None:
    """Bit for bit, though views are drawn and networks run in a thread beside it."""
    generators = []
    for run, at in zip(_RUNS, ("0,1,2,3,4,5", "none"), strict=True):
        torch.manual_seed(1)
        assert pretrain(tmp_path / run, image_data, volume_data, recipe=recipe, at=at, more=more) == 0
        generators.append(torch.get_rng_state())
    assert torch.equal(*generators)  # which methods of other packages may draw from
    assert list(pictures(tmp_path / "with")) == [0, 1, 2, 3, 4, 5]
    assert not (tmp_path / "without" / STEP_PICTURES).exists()
    logged = [[[record[name] for name in EXACT] for record in read_metrics(Bucket(str(tmp_path / run)))] for run in _RUNS]
    assert logged[0] == logged[1]
    states = [torch.load(tmp_path / run / "checkpoints/step-00000005/state.pt", weights_only=True)["model"] for run in _RUNS]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


_RUNS = ("with", "without")


def test_weights_are_those_of_the_step_though_training_goes_on() -> None:
    state = TrainState.build(tiny(), torch.device("cpu"))
    copied = hook._copy_weights(state)
    before = {name: tensor.clone() for name, tensor in copied.items()}
    for parameter in state.method.parameters():
        parameter.data += 1
    assert all(torch.equal(copied[name], before[name]) for name in before)


def test_a_resumed_run_has_each_picture_once_and_as_if_it_had_not_been_cut_off(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off after step 3 with a checkpoint of step 2: the pictures of step 3 are drawn twice, with weights that are equal."""
    assert pretrain(tmp_path / "whole", image_data, volume_data) == 0
    with monkeypatch.context() as patched:
        after_step = hook.PictureHook.after_step

        def cut(self: hook.PictureHook, record: StepRecord, request: Request) -> None:
            after_step(self, record, request)
            if record.step + 1 == 3:
                raise OSError("power cut")

        patched.setattr(hook.PictureHook, "after_step", cut)
        assert pretrain(tmp_path / "cut", image_data, volume_data) == 2
    assert list(pictures(tmp_path / "cut")) == [0, 2, 3]
    assert pretrain(tmp_path / "cut", image_data, volume_data) == 0
    assert pictures(tmp_path / "cut") == pictures(tmp_path / "whole")
    assert list(pictures(tmp_path / "whole")) == [0, 2, 3, 5]


def test_pictures_of_the_step_that_is_resumed_at_are_made_up_for(
    image_data: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        after_step = AsyncCheckpointer.after_step

        def cut(self: AsyncCheckpointer, record: StepRecord, request: Request) -> None:
            after_step(self, record, request)
            if record.step + 1 == 2:
                raise OSError("power cut")  # with a checkpoint, before the hook of pictures

        patched.setattr(AsyncCheckpointer, "after_step", cut)
        assert pretrain(tmp_path, image_data) == 2
    assert list(pictures(tmp_path)) == [0]
    assert pretrain(tmp_path, image_data) == 0
    assert list(pictures(tmp_path)) == [0, 2, 3, 5]


def test_pictures_of_steps_that_are_done_again_are_removed(tmp_path: Path) -> None:
    run = Bucket(str(tmp_path))
    for step in (0, 40, 400):
        run.put(step_pictures_path(step), b"{}")
    remove_pictures_after(run, 40)
    assert list_picture_steps(run) == [0, 40]


def test_restorations_change_while_samples_and_masks_stay(image_data: Bucket, volume_data: Bucket, tmp_path: Path) -> None:
    assert pretrain(tmp_path, image_data, volume_data, recipe="maesil:tiny", at="0,100%") == 0
    first, last = (read_step_pictures(Bucket(str(tmp_path)), step) for step in (0, 5))
    assert [gallery.title for gallery in first] == [gallery.title for gallery in last]
    assert len(first) == 2 * sample_pictures.SHOWN_SAMPLES
    for before, after in zip(first, last, strict=True):
        rows = [dict(gallery.rows) for gallery in (before, after)]
        shown = [{picture.caption.partition(",")[0]: picture.uri for picture in row["restored"]} for row in rows]
        assert list(shown[0]) == ["input", "what the mask leaves", "restored", "target"]
        same = {name for name in shown[0] if shown[0][name] == shown[1][name]}
        assert same == {"input", "what the mask leaves", "target"}
        assert rows[0]["views"] != rows[1]["views"]  # drawn anew


def test_views_are_the_global_and_local_ones_also_where_the_device_renders(image_data: Bucket, tmp_path: Path) -> None:
    more = ("--set", "method.render=device", "--set", "global_batch=8")
    assert pretrain(tmp_path, image_data, at="0", more=more) == 0
    captions = [picture.caption for picture in dict(read_step_pictures(Bucket(str(tmp_path)), 0)[0].rows)["views"]]
    assert captions == [
        *("global view 1", "global view 2", "global view 1, not corrupted"),
        *("local view 1", "local view 2", "local view 3"),
    ]


def test_a_sharded_run_shows_its_views(image_data: Bucket, tmp_path: Path) -> None:
    assert pretrain(tmp_path, image_data, recipe="maesil:tiny", at="2", more=("--set", "compute.sharded=true")) == 0
    assert [name for name, _ in read_step_pictures(Bucket(str(tmp_path)), 2)[0].rows] == ["views"]


def test_what_cannot_be_drawn_is_told_and_the_run_goes_on(
    image_data: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> int:
        raise StorageError("the disk is full")

    monkeypatch.setattr(hook, "write_galleries", fail)
    with caplog.at_level(logging.WARNING):
        assert pretrain(tmp_path, image_data, recipe="maesil:tiny", at="2") == 0
    assert "step 2: its pictures are missing, and the run goes on: the disk is full" in caplog.text


def test_pictures_of_a_step_are_bounded(
    image_data: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sample_pictures, "MAX_BYTES", 10_000)
    with caplog.at_level(logging.WARNING):
        assert pretrain(tmp_path, image_data, recipe="maesil:tiny", at="2") == 0
    assert len(read_step_pictures(Bucket(str(tmp_path)), 2)) == 1
    assert "step 2: the pictures of 1 of its samples are left out" in caplog.text


@pytest.mark.ray
def test_rank_0_draws_them_whatever_the_number_of_workers(image_data: Bucket, tmp_path: Path) -> None:
    """Before the first step weights are equal, so pictures are; each step has one object, though two workers train."""
    more = ("--set", "global_batch=8", "--workers")
    assert pretrain(tmp_path / "one", image_data, at="0", more=(*more, "0")) == 0
    assert pretrain(tmp_path / "two", image_data, at="0,50%,100%", more=(*more, "2")) == 0
    assert list(pictures(tmp_path / "two")) == [0, 2, 5]
    assert pictures(tmp_path / "two")[0] == pictures(tmp_path / "one")[0]
