"""Writes what TensorBoard shows beside the numbers of steps: pictures that the run draws, and its evaluation.

Each is a run of its own to TensorBoard, in a folder below ``tensorboard/``, so that files may be written in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.page.pictures import Gallery
from crossdim.training.run_dir.layout import evaluation_board_path, picture_board_path
from crossdim.training.run_dir.tensorboard import TensorBoardWriter


def write_picture_board(run: Bucket, step: int, galleries: Sequence[Gallery]) -> None:
    """Write the pictures that a run draws.

    Args:
        run: its folder.
        step: number of steps done.
        galleries: the pictures.
    """
    writer = TensorBoardWriter(step)
    writer.add_galleries(step, galleries)
    run.put(picture_board_path(step), writer.take())


def write_evaluation_board(
    run: Bucket, step: int, figures: Mapping[str, float], texts: Mapping[str, str], galleries: Sequence[Gallery]
) -> None:
    """Write what an evaluation found; that of another step stays, so that curves over evaluations come about.

    Args:
        run: its folder.
        step: number of steps done.
        figures: by name.
        texts: in Markdown, by name.
        galleries: the pictures.
    """
    writer = TensorBoardWriter(step)
    writer.add(step, figures)
    for name, text in texts.items():
        writer.add_text(step, name, text)
    writer.add_galleries(step, galleries)
    run.put(evaluation_board_path(step), writer.take())
