"""TensorBoardWriter: what TensorBoard reads, held to a reading of its format and to tensorboardX's own checksum."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import SessionLog
from tensorboardX.record_writer import RecordWriter

from crossdim.training.run_dir.tensorboard import TensorBoardWriter
from tests.training.boards import read


@given(st.lists(st.dictionaries(st.text(max_size=20), st.floats(width=32, allow_nan=False))))
def test_values_come_back_as_they_were(steps: list[dict[str, float]]) -> None:
    writer = TensorBoardWriter(0)
    for step, values in enumerate(steps):
        writer.add(step, values)
    found = read(writer.take())[2:]
    assert [(event.step, {value.tag: value.simple_value for value in event.summary.value}) for event in found] == list(
        enumerate(steps)
    )


def test_records_are_those_that_tensorboardx_writes(tmp_path: Path) -> None:
    """Byte for byte, of events as long as they come."""
    writer = TensorBoardWriter(7)
    for step in range(7, 40):
        writer.add(step, {f"terms/{n}": n / 3 for n in range(step)})
    file = writer.take()
    other = RecordWriter(str(tmp_path / "other"))
    for event in read(file):
        other.write(event.SerializeToString())
    other.close()
    assert (tmp_path / "other").read_bytes() == file


@pytest.mark.parametrize("first", [0, 40])
def test_each_file_says_what_it_is_and_the_first_where_a_start_begins(first: int) -> None:
    """A TensorBoard that is open forgets what an earlier start told of steps that are done again."""
    writer = TensorBoardWriter(first)
    writer.add(first, {"loss": 1.0})
    one, two = read(writer.take()), read(writer.take())
    assert [event.file_version for event in one + two] == ["brain.Event:2", "", "", "brain.Event:2"]
    assert (one[1].session_log.status, one[1].step) == (SessionLog.START, first)
