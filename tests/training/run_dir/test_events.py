"""Events: one order for all writers, the order in which things happened, whatever their clocks say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError
from crossdim.training.run_dir.events import Event, EventLog, list_events, read_event, read_newest_start
from crossdim.training.run_dir.layout import EVENTS


@dataclass(frozen=True)
class _Interleaved(Bucket):
    """A store in which others write between the moment at which a writer looks and the moment at which its event is there."""

    between: list[Callable[[], None]] = field(default_factory=list)

    def put(self, path: str, data: bytes) -> None:
        if self.between:
            self.between.pop()()
        super().put(path, data)


@dataclass(frozen=True)
class _Act:
    """One writer adds an event, and others act while it does."""

    writer: int
    clock_s: float
    meanwhile: tuple[_Act, ...] = ()


def _acts(meanwhile: st.SearchStrategy[tuple[_Act, ...]]) -> st.SearchStrategy[_Act]:
    clocks = st.floats(-1e6, 1e6)
    return st.builds(_Act, st.integers(0, 3), clocks, meanwhile)


ACTS = st.lists(
    st.recursive(_acts(st.just(())), lambda inner: _acts(st.lists(inner, max_size=3).map(tuple)), max_leaves=8), max_size=10
)


@settings(deadline=None)
@given(ACTS)
@pytest.mark.integration
def test_what_was_stored_before_a_writer_looked_comes_before_what_it_writes(acts: list[_Act]) -> None:
    """For any interleaving of four writers and any error of their clocks; and no two events have one name."""
    run = _Interleaved(f"memory://{uuid4().hex}")
    writers = [EventLog(run, 4, role) for role in ("rank0", "controller", "rank1", "driver")]
    moments: dict[int, tuple[int, int]] = {}
    moment = 0

    def perform(act: _Act, busy: frozenset[int]) -> None:
        nonlocal moment
        if act.writer in busy:  # a writer does one thing at a time
            return
        number, moment = len(moments), moment + 1
        moments[number], looked = (0, 0), moment

        def others() -> None:
            for other in act.meanwhile:
                perform(other, busy | {act.writer})

        run.between.append(others)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda: 1.8e9 + act.clock_s)
            writers[act.writer].add("checkpoint", number)
        moment += 1
        moments[number] = looked, moment

    try:
        for act in acts:
            perform(act, frozenset())
        found = list_events(run)
        place = {event.step: index for index, event in enumerate(found)}
        assert len(found) == len(moments) == len({event.place for event in found})
        assert [event.path for event in found] == sorted(event.path for event in found)
        for first, (_, stored) in moments.items():
            for second, (looked, _) in moments.items():
                assert stored >= looked or place[first] < place[second]
    finally:
        run.filesystem.store.clear()


def test_events_that_are_written_at_one_moment_have_one_order_for_every_reader(tmp_path: Path) -> None:
    """Their writers saw the same folder, so the number is the same; the names are not."""
    run = _Interleaved(str(tmp_path))
    rank, controller = EventLog(run, 2), EventLog(run, 2, "controller")
    rank.add("start", 0)
    run.between.append(lambda: controller.add("lost", 3, "node 7 went away"))
    rank.add("checkpoint", 4)
    controller.add("failed", 4)
    assert [(event.number, event.kind) for event in list_events(run)] == [
        (1, "start"),
        (2, "lost"),
        (2, "checkpoint"),
        (3, "failed"),
    ]
    assert [event.path for event in list_events(run)] == [stored.path for stored in run.list_objects()]


def test_a_controller_and_a_rank_take_turns_in_one_numbering(tmp_path: Path) -> None:
    """Each used to go on from what it knew when it began: two events had number 2, and a start stood before the loss."""
    run = Bucket(str(tmp_path))
    rank, controller = EventLog(run, 2), EventLog(run, 2, "controller")
    rank.add("start", 0)
    controller.add("resize", 0)
    rank.add("checkpoint", 2)
    controller.add("lost", 2)
    again = EventLog(run, 1)
    again.add("resume", 2)
    rank_of_old = list_events(run)
    assert [(event.number, event.kind) for event in rank_of_old] == list(
        enumerate(("start", "resize", "checkpoint", "lost", "resume"), 1)
    )
    assert [event.writer.partition(".")[0] for event in rank_of_old] == ["rank0", "controller", "rank0", "controller", "rank0"]
    assert len({event.writer for event in rank_of_old}) == 3
    controller.add("asked", 2, workers=7)
    assert read_event(run, list_events(run)[-1])["workers"] == 7


def test_events_of_older_runs_are_read_and_gone_on_from(tmp_path: Path) -> None:
    """They have no writer in their names, and no checksum."""
    run = Bucket(str(tmp_path))
    for number, kind in enumerate(("start", "passed-over", "checkpoint"), 1):
        run.put(f"{EVENTS}/{number:06d}-{kind}-{0:08d}.json", json.dumps({"kind": kind, "text": "a", "in_vain": 2}).encode())
    run.put(f"{EVENTS}/000003-lost-00000000.json", b"{}")  # with the number of another, as it happened
    run.put(f"{EVENTS}/notes.txt", b"mine")
    EventLog(run, 1).add("resume", 4)
    found = list_events(run)
    assert [(event.number, event.kind) for event in found] == [
        *((1, "start"), (2, "passed-over"), (3, "checkpoint"), (3, "lost"), (4, "resume")),
    ]
    assert read_event(run, found[1]) == {"kind": "passed-over", "step": 0, "text": "a", "in_vain": 2}
    assert read_newest_start(run, found[:4])["in_vain"] == 2


def test_a_writer_that_has_not_started_yet_heeds_only_newer_starts(tmp_path: Path) -> None:
    """Whatever the names of writers are: twenty, of which half would sort before the one that started."""
    run = Bucket(str(tmp_path))
    EventLog(run, 2).add("start", 0)
    waiting = [EventLog(run, 2) for _ in range(20)]
    for log in waiting:
        log.fence()
    EventLog(run, 2).add("resume", 0)
    for log in waiting:
        with pytest.raises(RunError, match="went on without"):
            log.fence()


def test_of_two_starts_at_one_moment_one_leaves(tmp_path: Path) -> None:
    """Both saw the same folder; one of them must go, and not both."""
    run = _Interleaved(str(tmp_path))
    logs = [EventLog(run, 2) for _ in range(2)]
    run.between.append(lambda: logs[1].add("start", 0))
    logs[0].add("start", 0)
    leaving = 0
    for log in logs:
        try:
            log.fence()
        except RunError:
            leaving += 1
    assert leaving == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 40,
        b"[]",
        b"7",
        b'{"kind": "start", "in_vain": "2", "workers": [], "time_s": -1, "text": 3}',
        b"\xff\xfe",
        b"[" * 9999,
    ],
)
def test_a_damaged_event_is_told_by_its_name_alone(data: bytes, tmp_path: Path) -> None:
    run = Bucket(str(tmp_path))
    EventLog(run, 2).add("start", 5, "a text", in_vain=3)
    (event,) = list_events(run)
    assert read_event(run, event)["in_vain"] == 3
    run.put(event.path, data)
    assert read_event(run, event) == {"kind": "start", "step": 5}
    assert read_newest_start(run, [event]).get("in_vain", 0) == 0


def test_numbers_go_up(tmp_path: Path) -> None:
    """Also where a writer was away while others wrote many."""
    run = Bucket(str(tmp_path))
    first, second = EventLog(run, 1), EventLog(run, 1, "controller")
    for step in range(20):
        second.add("checkpoint", step)
    first.add("end", 20)
    found: Sequence[Event] = list_events(run)
    assert all(one.number < other.number for one, other in pairwise(found))
