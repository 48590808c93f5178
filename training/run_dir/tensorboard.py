"""TensorBoardWriter: the numbers of steps as an event file of TensorBoard, made in memory.

TensorBoard reads the files of a folder in the order of their names. Each holds the steps between two checkpoints, so that no
number is put into storage twice, however long a run is.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping

import google_crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

#: What the first event of a file says; since version 2 a reader heeds a start (below) and nothing else about steps done again.
VERSION = "brain.Event:2"


class TensorBoardWriter:
    """Collects numbers of steps. A file says where it begins: readers then drop what they have of that step and later ones."""

    def __init__(self, first_step: int) -> None:
        self._records = [_encode(Event(file_version=VERSION))]
        self._records.append(_encode(Event(step=first_step, session_log=SessionLog(status=SessionLog.START))))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of a step.

        Args:
            step: its number.
            values: by name.
        """
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._records.append(_encode(Event(step=step, summary=summary)))

    def take(self) -> bytes:
        """Return the file of the steps so far, and begin the next one."""
        file, self._records = b"".join(self._records), [_encode(Event(file_version=VERSION))]
        return file


def _encode(event: Event) -> bytes:
    """Encode an event: length, its checksum, the event, its checksum."""
    event.wall_time = time.time()
    body: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(body))
    return length + _mask(length) + body + _mask(body)


def _mask(data: bytes) -> bytes:
    """A crc32c that a file of checksums does not confuse: rotated by 15 bits, and a constant added."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
