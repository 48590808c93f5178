"""Steps of a run are named by number or as a percentage, and what is no step is refused."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from crossdim.storage_schema.errors import UsageError
from crossdim.training.chosen_steps import ChosenSteps, parse_checkpoint_choice, parse_chosen_steps


@pytest.mark.parametrize(
    ("text", "total", "expected"),
    [
        ("0%,10%,50%,100%", 400, (0, 40, 200, 400)),
        ("0%,10%,50%,100%", 3, (0, 2, 3)),
        ("7, 500 ,50%", 1000, (7, 500)),
        ("12.5%", 80, (10,)),
        ("none", 80, ()),
    ],
)
def test_steps_are_numbers_or_percentages_each_once(text: str, total: int, expected: tuple[int, ...]) -> None:
    assert parse_chosen_steps(text).resolve(total, "--x") == expected


@pytest.mark.parametrize("text", ["", ",", "10%,", "-1", "101%", "100.5%", "half", "1e3", "5s", "all", "\u0661"])
def test_what_names_no_step_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="names no steps: numbers of steps, or percentages"):
        parse_chosen_steps(text)


def test_a_step_that_the_run_has_not_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--keep-at: the run has 400 steps; found 401, 500"):
        parse_chosen_steps("401,20,500,400").resolve(400, "--keep-at")


def test_a_choice_of_checkpoints_is_all_or_some() -> None:
    assert parse_checkpoint_choice("all") == "all"
    assert parse_checkpoint_choice("100,50%") == ChosenSteps(steps=(100,), percents=(50.0,))
    with pytest.raises(ArgumentTypeError, match="names no checkpoint"):
        parse_checkpoint_choice("none")
