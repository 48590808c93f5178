"""Rates over the last minute, by hand and by properties; durations in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.foundation.rates import WINDOW_S, Rate, format_seconds


def test_the_rate_is_that_of_the_last_minute() -> None:
    rate, now, done = Rate(0.0, 0), 0.0, 0
    for seconds, units in [*[(10, 1)] * 100, *[(1, 2)] * 100]:
        now, done = now + seconds, done + units
        rate.add(now, done)
    assert rate.measure(now) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("period", [10.0, 100.0])
def test_units_that_end_together_have_the_rate_of_all_of_them(period: float) -> None:
    """8 at a time every 100 s were a rate of 10 a second, once the first of a wave had pushed the wave before out."""
    rate, rates = Rate(0.0, 0), []
    for wave in range(5):
        for worker in range(8):
            now = period * (wave + 1) + worker / 10
            rate.add(now, 8 * wave + worker + 1)
        rates.append(rate.measure(now))
    assert rates == pytest.approx([8 / period] * 5, rel=0.08)


def test_units_that_come_in_time_leave_the_rate_as_it_is() -> None:
    """A note tells every 2 s of 20 steps: between two of them the time left does not rise."""
    rate = Rate(0.0, 0)
    rate.add(2.0, 20)
    rate.add(4.0, 40)
    assert [rate.measure(4.0 + late) for late in (0, 1, 2)] == [10, 10, 10]
    assert rate.measure(12.0) == 5


@given(st.lists(st.tuples(st.floats(0.01, 50), st.integers(1, 50)), min_size=1, max_size=40), st.floats(0, 1000))
def test_the_rate_follows_from_the_units_of_the_window(steps: list[tuple[float, int]], late: float) -> None:
    """Oracle: units and seconds added up here; a stall makes a rate smaller, and never 0."""
    rate, times, now, done = Rate(0.0, 0), [(0.0, 0)], 0.0, 0
    for seconds, units in steps:
        now, done = now + seconds, done + units
        rate.add(now, done)
        times.append((now, done))
    began, first = next((one for one in reversed(times[:-1]) if now - one[0] >= WINDOW_S), times[0])
    assert rate.measure(now) == pytest.approx((done - first) / (now - began))
    assert 0 < rate.measure(now + late + 1) <= rate.measure(now + late) <= rate.measure(now)
    assert rate.measure(now + late) <= 2 * (done - first) / (now + late - began) * (1 + 1e-9)


def test_the_time_before_the_first_unit_is_no_part_of_the_rate_if_it_is_not_known_when_it_began() -> None:
    rate = Rate(0.0, 0)
    rate.forget()
    rate.add(26.0, 1)
    assert rate.measure(27.0) == 0
    rate.add(27.5, 2)
    assert rate.measure(27.5) == pytest.approx(1 / 1.5)


def test_nothing_done_is_no_rate() -> None:
    rate = Rate(0.0, 5)
    rate.add(1.0, 5)
    assert rate.measure(2.0) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (185, "3:05"), (7800, "2:10:00"), (172_800, "2 d 0 h"), (273_600, "3 d 4 h")],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
