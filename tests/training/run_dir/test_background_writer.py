"""BackgroundWriter: in order, in its own thread, and no failure is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from crossdim.storage_schema.errors import StorageError
from crossdim.training.run_dir.background_writer import BackgroundWriter

PATIENCE_S = 60.0


@pytest.fixture
def writer() -> Iterator[BackgroundWriter]:
    with contextlib.closing(BackgroundWriter()) as writer:
        yield writer


def _fail(text: str) -> None:
    raise StorageError(text)


def test_tasks_are_done_in_order_by_one_other_thread(writer: BackgroundWriter) -> None:
    """The first is slow: whatever is handed over behind it waits, and who hands over does not."""
    released, done, threads = threading.Event(), list[int](), set[int]()

    def task(number: int) -> None:
        assert number or released.wait(PATIENCE_S)
        done.append(number)
        threads.add(threading.get_ident())

    for number in range(20):
        writer.write(task, number)
    assert (done, writer.idle) == ([], False)
    released.set()
    writer.finish()
    assert done == list(range(20))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_it_is_idle_when_all_is_written(writer: BackgroundWriter) -> None:
    assert writer.idle
    begun, released = threading.Event(), threading.Event()
    writer.write(begun.set)
    writer.write(released.wait, PATIENCE_S)
    assert begun.wait(PATIENCE_S)
    assert not writer.idle
    released.set()
    writer.finish()
    assert writer.idle


def test_an_error_is_raised_at_the_next_task_which_is_not_begun(writer: BackgroundWriter) -> None:
    failed, begun = threading.Event(), threading.Event()

    def fail() -> None:
        failed.set()
        _fail("the disk is gone")

    writer.write(fail)
    assert failed.wait(PATIENCE_S)
    while not writer.idle:
        pass
    with pytest.raises(StorageError, match="the disk is gone"):
        writer.write(begun.set)
    writer.finish()
    assert not begun.is_set()


def test_an_error_is_raised_by_a_look_and_then_not_again(writer: BackgroundWriter) -> None:
    writer.write(_fail, "once")
    while not writer.idle:
        pass
    with pytest.raises(StorageError, match="once"):
        writer.check()
    writer.check()
    writer.finish()


def test_an_error_is_raised_at_the_end(writer: BackgroundWriter) -> None:
    """Once; what was handed over behind it is not done, because it may stand on it."""
    released, behind = threading.Event(), threading.Event()
    writer.write(released.wait, PATIENCE_S)
    writer.write(_fail, "first")
    writer.write(behind.set)
    writer.write(_fail, text="second")
    released.set()
    with pytest.raises(StorageError, match="first"):
        writer.finish()
    writer.finish()
    assert not behind.is_set()


def test_closing_waits_for_what_was_handed_over() -> None:
    writer, done = BackgroundWriter(), list[int]()
    for number in range(50):
        writer.write(done.append, number)
    writer.close()
    assert done == list(range(50))
