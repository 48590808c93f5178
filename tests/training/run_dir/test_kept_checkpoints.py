"""``--keep-at``: checkpoints of chosen steps are written, and are not among those that make place for newer ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.checkpoint_listing import complete_names
from crossdim.training.run_dir.layout import checkpoint_name, checkpoint_step


def test_chosen_checkpoints_stay_and_the_others_make_place() -> None:
    saving, whole = Saving(every=10, last=2, at=(25, 50)), [checkpoint_name(step) for step in (10, 20, 25, 30, 40, 50, 60, 70)]
    assert [checkpoint_step(name) for name in whole if saving.keeps(name, whole)] == [25, 50, 60, 70]
    assert not saving.keeps(checkpoint_name(25), [])  # half-written


@pytest.mark.parametrize(("every", "every_s", "expected"), [(10, None, 11), (25, None, 4), (None, 5.0, 12)])
def test_a_plan_counts_them_where_no_other_checkpoint_is_due(every: int | None, every_s: float | None, expected: int) -> None:
    """100 steps of half a second: 25 is due beside every 10th, 50 and 100 are due anyway; by time, both 25 and 50 are more."""
    assert Saving(every=every, every_s=every_s, at=(25, 50, 100)).count(100, 0.5) == expected


@pytest.mark.integration
def test_a_run_keeps_them(image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["pretrain", "--recipe", "maesil:tiny", "--data", image_data.url, "--out", str(tmp_path / "run"), "--workers", "0"]
    line += ["--checkpoint-every", "5", "--keep", "1", "--json", "--pictures-at", "none"]
    assert main([*line, "--steps", "8", "--keep-at", "25%,4"]) == 0
    assert complete_names(Bucket(str(tmp_path / "run"))) == [checkpoint_name(step) for step in (2, 4, 8)]
    assert main([*line, "--steps", "8", "--keep-at", "9"]) == 1
    assert "--keep-at: the run has 8 steps; found 9" in capsys.readouterr().err
