"""Boards: TensorBoard's event files, read."""

from __future__ import annotations

import struct

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c


def read(data: bytes) -> list[Event]:
    """Events of a file: length, its checksum, an event, its checksum."""
    events, start = [], 0
    while start < len(data):
        length, of_length = struct.unpack_from("<QI", data, start)
        body = data[start + 12 : start + 12 + length]
        [of_body] = struct.unpack_from("<I", data, start + 12 + length)
        assert (of_length, of_body) == (masked_crc32c(data[start : start + 8]), masked_crc32c(body))
        events.append(Event.FromString(body))
        start += 16 + length
    return events
