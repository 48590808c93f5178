"""Pictures of several steps on one page: the same sample in one column, few steps of many, and damage told."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.page.pictures import Gallery, Picture
from crossdim.training.run_dir.layout import step_pictures_path
from crossdim.training.run_dir.picture_log import read_step_pictures, write_galleries
from crossdim.training.show import facts
from crossdim.training.show.step_galleries import join_steps

PNG = "data:image/png;base64,AAAA"


def galleries(step: int, titles: str = "ab") -> list[Gallery]:
    restored = ("restored", [Picture(caption=f"of step {step}", uri=PNG)])
    return [Gallery(title=title, rows=[("views", [Picture(caption="view", uri=PNG)]), restored]) for title in titles]


def test_each_sample_has_a_row_for_each_step() -> None:
    joined = join_steps({200: galleries(200), 0: galleries(0), 1000: galleries(1000, "a")}, 1000, "restored")
    rows = {gallery.title: [(name, shown[0].caption) for name, shown in gallery.rows] for gallery in joined}
    first = [("step 0 of 1,000 (0%)", "of step 0"), ("step 200 of 1,000 (20%)", "of step 200")]
    assert rows == {"a": [*first, ("step 1,000 of 1,000 (100%)", "of step 1000")], "b": first}
    assert join_steps({0: [Gallery(title="a", rows=[])]}, 9, "views") == []


def test_of_many_steps_the_first_the_last_and_some_between_are_shown(tmp_path: Path) -> None:
    run, problems = Bucket(str(tmp_path)), list[str]()
    for step in range(0, 3000, 100):
        write_galleries(run, step_pictures_path(step), galleries(step))
    shown = list(facts._read_step_pictures(run, problems))
    assert len(shown) == facts.SHOWN_STEPS
    assert (shown[0], shown[-1]) == (0, 2900)
    assert max(b - a for a, b in pairwise(shown)) <= 500
    assert problems == []


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"galleries": [{"title": 3}]}',
        b'{"galleries": [{"title": "a", "rows": [["v", [["c", "http://x"]]]]}]}',
    ],
)
def test_damaged_pictures_are_left_out_and_told(tmp_path: Path, damage: bytes) -> None:
    """And none is taken from another place than the page."""
    run, problems = Bucket(str(tmp_path)), list[str]()
    write_galleries(run, step_pictures_path(3), galleries(3))
    run.put(step_pictures_path(5), damage)
    assert list(facts._read_step_pictures(run, problems)) == [3]
    assert problems == [f"{run.where(step_pictures_path(5))} cannot be read; its pictures are left out"]
    assert read_step_pictures(run, 3) == galleries(3)
