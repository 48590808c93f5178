"""Scribe: in order, in its own thread, and no failure is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from crossdim.storage_schema.errors import StorageError
from crossdim.training.run_dir.background_writer import Scribe

PATIENCE_S = 60.0


@pytest.fixture
def scribe() -> Iterator[Scribe]:
    with contextlib.closing(Scribe()) as scribe:
        yield scribe


def _fail(text: str) -> None:
    raise StorageError(text)


def test_tasks_are_done_in_order_by_one_other_thread(scribe: Scribe) -> None:
    """The first is slow: whatever is handed over behind it waits, and who hands over does not."""
    released, done, threads = threading.Event(), list[int](), set[int]()

    def task(number: int) -> None:
        assert number or released.wait(PATIENCE_S)
        done.append(number)
        threads.add(threading.get_ident())

    for number in range(20):
        scribe.write(task, number)
    assert (done, scribe.idle) == ([], False)
    released.set()
    scribe.finish()
    assert done == list(range(20))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_it_is_idle_when_all_is_written(scribe: Scribe) -> None:
    assert scribe.idle
    begun, released = threading.Event(), threading.Event()
    scribe.write(begun.set)
    scribe.write(released.wait, PATIENCE_S)
    assert begun.wait(PATIENCE_S)
    assert not scribe.idle
    released.set()
    scribe.finish()
    assert scribe.idle


def test_an_error_is_raised_at_the_next_task_which_is_not_begun(scribe: Scribe) -> None:
    failed, begun = threading.Event(), threading.Event()

    def fail() -> None:
        failed.set()
        _fail("the disk is gone")

    scribe.write(fail)
    assert failed.wait(PATIENCE_S)
    while not scribe.idle:
        pass
    with pytest.raises(StorageError, match="the disk is gone"):
        scribe.write(begun.set)
    scribe.finish()
    assert not begun.is_set()


def test_an_error_is_raised_by_a_look_and_then_not_again(scribe: Scribe) -> None:
    scribe.write(_fail, "once")
    while not scribe.idle:
        pass
    with pytest.raises(StorageError, match="once"):
        scribe.check()
    scribe.check()
    scribe.finish()


def test_an_error_is_raised_at_the_end(scribe: Scribe) -> None:
    """Once; what was handed over behind it is not done, because it may stand on it."""
    released, behind = threading.Event(), threading.Event()
    scribe.write(released.wait, PATIENCE_S)
    scribe.write(_fail, "first")
    scribe.write(behind.set)
    scribe.write(_fail, text="second")
    released.set()
    with pytest.raises(StorageError, match="first"):
        scribe.finish()
    scribe.finish()
    assert not behind.is_set()


def test_closing_waits_for_what_was_handed_over() -> None:
    scribe, done = Scribe(), list[int]()
    for number in range(50):
        scribe.write(done.append, number)
    scribe.close()
    assert done == list(range(50))
