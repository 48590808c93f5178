"""Messages between a worker and its decoder process: a JSON document and raw bytes, through memory that both have mapped.

Nothing is pickled. A document is sent in a datagram. Up to :data:`SHARED_BYTES` of raw bytes are copied into memory that both
sides keep mapped, one for each direction: its pages exist already, which is four times as fast as new ones. More bytes are
sent in an anonymous file in memory (memfd), which the receiver maps: a volume is copied once.
The receiver seals the size of such a file before it maps it: a sender that shrank it later would end the receiver.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from crossdim.storage_schema.sample import Array

#: Number of bytes, of the document in this datagram, and of the document behind the bytes.
_SIZES = struct.Struct("<QQQ")
#: Linux writes at most about 2 GiB in one call.
_CHUNK = 1 << 30
#: Of a datagram; a longer document, as of a series of thousands of files, is sent after the bytes.
_MAX_DATAGRAM = 32 << 10
#: An answer's document holds the few fields of a header; a longer one is not ours.
MAX_DOCUMENT = 16 << 20
#: Of the memory in each direction: 16 million pixels of 16 bits. Pages count once they are used. Ours.
SHARED_BYTES = 32 << 20
#: Fields of a sample that travel as bytes, and the kinds of number that each may hold.
ARRAYS = {"array": "uif", "outside": "b"}


class Ended(Exception):
    """The other side has closed the connection."""


class NotAMessage(Exception):
    """What was received is not a valid message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A document and raw bytes, in memory that the next message reuses (``shared``) or in memory of their own."""

    document: dict[str, Any]
    memory: mmap.mmap | None
    num_bytes: int
    shared: bool

    def read(self, offset: int, num_bytes: int) -> bytes:
        """Copy a part of the bytes.

        Args:
            offset: first byte.
            num_bytes: how many.

        Returns:
            ``num_bytes`` bytes.

        Raises:
            NotAMessage: if the message holds fewer.
        """
        if offset + num_bytes > self.num_bytes:
            raise NotAMessage("the bytes are fewer than stated")
        return self.memory[offset : offset + num_bytes] if self.memory else b""

    def arrays(self, *kinds: tuple[np.dtype[Any], tuple[int, ...]]) -> list[Array]:
        """All bytes as consecutive arrays of these types and shapes, copied so that they outlive the message."""
        counts = [int(np.prod(shape, dtype=object)) for _, shape in kinds]
        sizes = [count * dtype.itemsize for count, (dtype, _) in zip(counts, kinds, strict=True)]
        if self.memory is None or sum(sizes) != self.num_bytes or min(counts) < 1:
            raise NotAMessage(f"{self.num_bytes} bytes are no arrays {kinds}")
        views = [
            np.frombuffer(self.memory, dtype, count=count, offset=sum(sizes[:number])).reshape(shape)
            for number, (count, (dtype, shape)) in enumerate(zip(counts, kinds, strict=True))
        ]
        return [view.copy() for view in views] if self.shared else list(views)


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """One side of the connection.

    Attributes:
        connection: a socket of datagrams.
        outgoing: memory that this side writes.
        incoming: memory that the other side writes.
    """

    connection: socket.socket
    outgoing: mmap.mmap
    incoming: mmap.mmap

    @classmethod
    def of(cls, connection: socket.socket, outgoing: int, incoming: int) -> Self:
        """Open a channel over two files of shared memory.

        Args:
            connection: a socket of datagrams to the other process.
            outgoing: descriptor from :func:`create_shared_memory`, written by this process.
            incoming: descriptor from :func:`create_shared_memory`, written by the other process.

        Returns:
            The channel, with both files mapped.
        """
        return cls(connection=connection, outgoing=mmap.mmap(outgoing, SHARED_BYTES), incoming=mmap.mmap(incoming, SHARED_BYTES))

    def send(self, document: dict[str, Any], parts: Sequence[bytes | memoryview] = ()) -> None:
        """Send a document and the bytes of ``parts``, one after the other.

        Args:
            document: JSON values.
            parts: raw bytes, such as files or arrays.

        Raises:
            Ended: if the other process has ended.
        """
        text = json.dumps(document).encode()
        inside = len(text) <= _MAX_DATAGRAM
        num_bytes = sum(memoryview(part).nbytes for part in parts)
        behind = [] if inside else [text]
        datagram = _SIZES.pack(num_bytes, len(text) if inside else 0, 0 if inside else len(text)) + (text if inside else b"")
        descriptors = _place([*parts, *behind], num_bytes + sum(map(len, behind)), self.outgoing)
        try:
            socket.send_fds(self.connection, [datagram], descriptors)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Ended from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    @contextmanager
    def receive(self) -> Iterator[Message]:
        """Receive the next message.

        Raises:
            Ended: if the connection is closed.
            NotAMessage: for anything that is no message.
            TimeoutError: if none comes within the connection's timeout.
        """
        size = _SIZES.size + _MAX_DATAGRAM
        try:
            datagram, descriptors, _, _ = socket.recv_fds(self.connection, size, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError as error:
            raise Ended from error
        if not datagram and not descriptors:
            raise Ended
        try:
            message = _parse_message(datagram, descriptors, self.incoming)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        yield message
        if message.memory is not None and not message.shared:
            with suppress(BufferError):  # arrays keep it alive, and release it when they go
                message.memory.close()


def create_shared_memory() -> int:
    """Create a file in memory for one direction of a channel, with a sealed size, and return its descriptor."""
    descriptor = os.memfd_create("shared", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SHARED_BYTES)
    _seal(descriptor)
    return descriptor


def _seal(descriptor: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)


def _place(parts: Sequence[bytes | memoryview], num_bytes: int, outgoing: mmap.mmap) -> list[int]:
    """Copy the parts into the shared memory, or into a file whose descriptor is sent."""
    if num_bytes <= SHARED_BYTES:
        offset = 0
        for part in parts:
            end = offset + memoryview(part).nbytes
            outgoing[offset:end] = part
            offset = end
        return []
    descriptor = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    for part in parts:
        data = memoryview(part).cast("B")
        while data:
            data = data[os.write(descriptor, data[:_CHUNK]) :]
    return [descriptor]


def _parse_message(datagram: bytes, descriptors: Sequence[int], incoming: mmap.mmap) -> Message:
    if len(datagram) < _SIZES.size:
        raise NotAMessage("a datagram starts with three sizes")
    num_bytes, inside, behind = _SIZES.unpack_from(datagram)
    total = num_bytes + behind
    if len(datagram) != _SIZES.size + inside or behind > MAX_DOCUMENT or (total > SHARED_BYTES) != bool(descriptors):
        raise NotAMessage("the sizes are not those of the bytes")
    memory = _map(descriptors[0], total) if descriptors else incoming
    text = datagram[_SIZES.size :] if inside else memory[num_bytes:total]
    try:
        document = json.loads(text)
    except ValueError as error:
        raise NotAMessage("the document is not JSON") from error
    if not isinstance(document, dict):
        raise NotAMessage("the document is no object")
    return Message(document=document, memory=memory if num_bytes else None, num_bytes=num_bytes, shared=not descriptors)


def _map(descriptor: int, total: int) -> mmap.mmap:
    try:
        _seal(descriptor)
    except OSError as error:
        raise NotAMessage("the descriptor is no file in memory") from error
    if os.fstat(descriptor).st_size != total:
        raise NotAMessage("the sizes are not those of the bytes")
    return mmap.mmap(descriptor, total, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
