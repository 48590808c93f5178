"""What TensorBoard shows of a run, by TensorBoard's own reader: numbers, configuration, settings, pictures, evaluation."""

from __future__ import annotations

import base64
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.page.pictures import Gallery, Picture, encode_png
from crossdim.training.run_dir.boards import write_evaluation_board, write_picture_board
from crossdim.training.run_dir.layout import (
    EVALUATION,
    EVALUATION_BOARDS,
    PICTURE_BOARDS,
    PICTURES,
    TENSORBOARD,
    step_pictures_path,
)
from crossdim.training.run_dir.metrics import list_figures, read_metrics
from crossdim.training.run_dir.picture_log import read_step_pictures, remove_pictures_after, write_galleries


def _read(folder: Path) -> Any:
    """A folder as TensorBoard reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()


def _gallery(value: float, caption: str = "restored, mean error 0.5") -> Gallery:
    uri = encode_png(np.full((64, 80), value, np.float32))
    return Gallery(title="flat: a", rows=[("restored", [Picture(caption=caption, uri=uri)])])


def _png(picture: Picture) -> bytes:
    return base64.b64decode(picture.uri.partition(",")[2])


def test_pictures_of_steps_are_one_series_although_their_captions_change(tmp_path: Path) -> None:
    run = Bucket(str(tmp_path))
    first, second = _gallery(0.25), _gallery(0.5, "restored, mean error 0.4")
    for step, gallery in ((0, first), (4, second)):
        write_picture_board(run, step, [gallery])
    board = _read(tmp_path / PICTURE_BOARDS)
    images = board.Images("flat: a/restored/restored")
    assert [(image.step, image.encoded_image_string) for image in images] == [
        (step, _png(gallery.rows[0][1][0])) for step, gallery in ((0, first), (4, second))
    ]
    with Image.open(io.BytesIO(images[0].encoded_image_string)) as image:
        assert (images[0].width, images[0].height) == image.size


def test_boards_of_pictures_that_are_drawn_again_go_with_them(tmp_path: Path) -> None:
    run = Bucket(str(tmp_path))
    for step in (0, 4):
        write_galleries(run, step_pictures_path(step), [_gallery(0.5)])
    write_picture_board(run, 0, [_gallery(0.5)])  # a release before this one wrote none for step 4
    remove_pictures_after(run, 2)
    write_picture_board(run, 4, [_gallery(0.5)])
    write_galleries(run, step_pictures_path(4), [_gallery(0.5)])
    remove_pictures_after(run, 2)
    assert [path.name for path in (tmp_path / PICTURE_BOARDS).iterdir()] == ["events.out.tfevents.00000000"]


def test_evaluations_of_several_steps_are_a_curve(tmp_path: Path) -> None:
    run = Bucket(str(tmp_path))
    for step in (20, 10):
        write_evaluation_board(run, step, {"probes/a/linear/trained": step / 40}, {"verdict": f"After {step}."}, [])
    board = _read(tmp_path / EVALUATION_BOARDS)
    assert [(one.step, one.value) for one in board.Scalars("probes/a/linear/trained")] == [(10, 0.25), (20, 0.5)]
    assert board.Tensors("verdict/text_summary")[-1].tensor_proto.string_val == [b"After 20."]


@pytest.mark.integration
def test_tensorboard_reads_what_the_run_has(image_data: Bucket, tmp_path: Path) -> None:
    line = ["pretrain", "--recipe", "maesil:tiny", "--data", image_data.url, "--out", str(tmp_path), "--workers", "0", "--json"]
    assert main([*line, "--steps", "5", "--checkpoint-every", "2", "--pictures-at", "0,4"]) == 0
    assert main(["evaluate", str(tmp_path), "--data", image_data.url, "--baselines", "1", "--json"]) == 0
    run = Bucket(str(tmp_path))
    board = _read(tmp_path / TENSORBOARD)
    records = read_metrics(run)
    assert [record["step"] for record in records] == list(range(5))
    assert set(board.Tags()["scalars"]) == {*list_figures(records[0])}
    for name in board.Tags()["scalars"]:
        wanted = [(record["step"], np.float32(list_figures(record)[name])) for record in records]
        assert [(one.step, one.value) for one in board.Scalars(name)] == wanted

    config = json.loads((tmp_path / "config.json").read_text())["identity"]["config"]
    [shown] = board.Tensors("configuration/text_summary")[0].tensor_proto.string_val
    assert json.loads(shown) == config
    _check_settings(board, config)

    evaluation = json.loads((tmp_path / EVALUATION).read_text())
    found = _read(tmp_path / EVALUATION_BOARDS)
    for probe in evaluation["results"]:
        for who in ("trained", "untrained"):
            [one] = found.Scalars(f"probes/{probe['dataset']}/{probe['probe']}/{who}")
            assert (one.step, one.value) == (5, np.float32(probe[who]))
    assert b"untrained network" in found.Tensors("verdict/text_summary")[0].tensor_proto.string_val[0]
    _check_pictures(found, json.loads((tmp_path / PICTURES).read_text())["galleries"], 5)

    drawn = _read(tmp_path / PICTURE_BOARDS)
    [gallery, *_] = read_step_pictures(run, 4)
    row, [picture, *_] = gallery.rows[0]
    images = drawn.Images(f"{gallery.title}/{row}/{picture.caption.partition(',')[0]}")
    assert [image.step for image in images] == [0, 4]
    assert images[1].encoded_image_string == _png(picture)


def _check_settings(board: Any, config: dict[str, Any]) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    metadata = board.SummaryMetadata("_hparams_/session_start_info")
    data = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    settings = data.session_start_info.hparams
    assert settings["optimizer.lr"].number_value == config["optimizer"]["lr"]
    assert settings["compute.precision"].string_value == "fp32"
    assert settings["method.kind"].string_value == "maesil"
    end = plugin_data_pb2.HParamsPluginData.FromString(board.SummaryMetadata("_hparams_/session_end_info").plugin_data.content)
    assert end.HasField("session_end_info")


def _check_pictures(board: Any, galleries: list[Any], step: int) -> None:
    """Every picture of the page is in TensorBoard, byte for byte."""
    for gallery in galleries:
        for row, pictures in gallery["rows"]:
            for caption, uri in pictures:
                images = board.Images(f"{gallery['title']}/{row}/{caption.partition(',')[0]}")
                png = _png(Picture(caption=caption, uri=uri))
                assert png in [image.encoded_image_string for image in images]
                assert {image.step for image in images} == {step}
