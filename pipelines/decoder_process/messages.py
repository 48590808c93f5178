"""Messages between a worker and its decoder process: a JSON document and raw bytes, in memory that changes hands.

Nothing is pickled. Bytes travel in an anonymous file in memory (memfd) whose descriptor is sent over the socket, so that pixels
are copied once and mapped by the receiver. The receiver seals the size before it maps: a sender that shrank the file later
would end the receiver.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage_schema.sample import Array

#: Number of bytes, and of the document behind them.
_SIZES = struct.Struct("<QQ")
#: Linux writes at most about 2 GiB in one call.
_CHUNK = 1 << 30
#: An answer's document holds a header's few facts; a longer one is no answer of ours.
MAX_DOCUMENT = 16 << 20
#: Fields of a sample that travel as bytes, and the kinds of number that each may hold.
ARRAYS = {"array": "uif", "outside": "b"}


class Ended(Exception):
    """The other side has closed the connection."""


class NotAMessage(Exception):
    """What came over the connection breaks the form of a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A document, and bytes in a file in memory that the receiver owns and closes."""

    document: dict[str, Any]
    descriptor: int
    num_bytes: int

    def read(self, offset: int, num_bytes: int) -> bytes:
        """A copy of a part of the bytes."""
        parts = []
        while num_bytes:
            part = os.pread(self.descriptor, min(num_bytes, _CHUNK), offset)
            if not part:
                raise NotAMessage("the bytes are fewer than stated")
            parts.append(part)
            offset, num_bytes = offset + len(part), num_bytes - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def arrays(self, *kinds: tuple[np.dtype[Any], tuple[int, ...]]) -> list[Array]:
        """All bytes as read-only arrays of these types and shapes, one behind the other, in the memory that they came in."""
        counts = [int(np.prod(shape, dtype=object)) for _, shape in kinds]
        sizes = [count * dtype.itemsize for count, (dtype, _) in zip(counts, kinds, strict=True)]
        if sum(sizes) != self.num_bytes or min(counts) < 1:
            raise NotAMessage(f"{self.num_bytes} bytes are no arrays {kinds}")
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        memory = mmap.mmap(self.descriptor, self.num_bytes, flags=flags, prot=mmap.PROT_READ)
        return [
            np.frombuffer(memory, dtype, count=count, offset=sum(sizes[:number])).reshape(shape)
            for number, (count, (dtype, shape)) in enumerate(zip(counts, kinds, strict=True))
        ]


def send(connection: socket.socket, document: dict[str, Any], parts: Sequence[bytes | memoryview] = ()) -> None:
    """Send a document and the bytes of ``parts``, one behind the other."""
    text = json.dumps(document).encode()
    descriptor = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for part in (*parts, text):
            _write(descriptor, memoryview(part).cast("B"))
        sizes = _SIZES.pack(sum(memoryview(part).nbytes for part in parts), len(text))
        socket.send_fds(connection, [sizes], [descriptor])
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Ended from error
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data[:_CHUNK]) :]


@contextmanager
def received(connection: socket.socket) -> Iterator[Message]:
    """The next message, whose memory is let go of at the end unless an array holds it.

    Raises:
        Ended: if the connection is closed.
        NotAMessage: for anything that is no message.
        TimeoutError: if none comes within the connection's timeout.
    """
    try:
        sizes, descriptors, _, _ = socket.recv_fds(connection, _SIZES.size, 1, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError as error:
        raise Ended from error
    if not sizes and not descriptors:
        raise Ended
    try:
        yield _message(sizes, descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _message(sizes: bytes, descriptors: Sequence[int]) -> Message:
    if len(sizes) != _SIZES.size or len(descriptors) != 1:
        raise NotAMessage("a message is two sizes and one descriptor")
    num_bytes, length = _SIZES.unpack(sizes)
    (descriptor,) = descriptors
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError as error:
        raise NotAMessage("the descriptor is no file in memory") from error
    if length > MAX_DOCUMENT or num_bytes + length != os.fstat(descriptor).st_size:
        raise NotAMessage("the sizes are not those of the bytes")
    try:
        document = json.loads(os.pread(descriptor, length, num_bytes))
    except ValueError as error:
        raise NotAMessage("the document is not JSON") from error
    if not isinstance(document, dict):
        raise NotAMessage("the document is no object")
    return Message(document=document, descriptor=descriptor, num_bytes=num_bytes)
