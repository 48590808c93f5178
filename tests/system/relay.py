"""A TCP relay to a server of this machine that can be closed, paused and opened again, as networks do."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

HOST = "127.0.0.1"
CHUNK_BYTES = 2**16


class Relay:
    """Forwards connections to ``target``, a port of this machine, from a free port of its own, in a thread of its own.

    The port is the same before and after a cut, and nobody else's in between.

    Attributes:
        port: where it listens.
        turns: how often a client began to speak: with HTTP without pipelining, the number of its requests.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._place = _bound(0)  # never listens: it keeps the port while the listener is away
        self.port: int = self._place.getsockname()[1]
        self.turns = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._forth, self._back = asyncio.Event(), asyncio.Event()  # set: bytes of clients, and of the server, move
        self._last_answered = math.inf  # turn
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    @property
    def url(self) -> str:
        """The address as HTTP clients take it."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.heal()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._place.close()

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        self._do(self._cut())

    def stall(self) -> None:
        """Accept connections and keep those that are open, but move no byte."""
        self._do(self._stall())

    def mute(self, after: int) -> None:
        """Answer ``after`` more turns, then let clients speak and hold what they are answered.

        With a cut the answers are lost, but what was asked for is done. A PUT that expects "100 Continue" takes two turns.
        """
        self._do(self._mute(after))

    def heal(self) -> None:
        """Forward again; what was held arrives."""
        self._do(self._heal())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _cut(self) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        links = dict(self._links)
        for task, writers in links.items():
            for writer in writers:
                _reset(writer)
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _stall(self) -> None:
        self._forth.clear()
        self._back.clear()

    async def _mute(self, after: int) -> None:
        self._last_answered = self.turns + after

    async def _heal(self) -> None:
        self._last_answered = math.inf
        self._forth.set()
        self._back.set()
        if not self._server:
            self._server = await asyncio.start_server(self._link, sock=_bound(self.port))

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until one of its ends lets go."""
        task = asyncio.current_task()
        assert task
        self._links[task] = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target)
            self._links[task].append(far_writer)
            await self._forward(reader, writer, far_reader, far_writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # a server that is away, an end that was reset, our own cut
        finally:
            for end in self._links.pop(task):
                end.close()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        asking = False

        async def forth() -> None:
            nonlocal asking
            while data := await reader.read(CHUNK_BYTES):
                self.turns += not asking
                asking = True
                if self.turns > self._last_answered:
                    self._back.clear()
                await _passed(data, far_writer, self._forth)

        async def back() -> None:
            nonlocal asking
            while data := await far_reader.read(CHUNK_BYTES):
                asking = False
                await _passed(data, writer, self._back)

        ways = [asyncio.ensure_future(forth()), asyncio.ensure_future(back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


async def _passed(data: bytes, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
    await flowing.wait()
    writer.write(data)
    await writer.drain()


def _bound(port: int) -> socket.socket:
    """A socket at ``port`` that lets others of this process have the same port: who does not listen is not asked."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    place.bind((HOST, port))
    return place


def _reset(writer: asyncio.StreamWriter) -> None:
    """Let go of a connection at once and rudely: the other end reads "connection reset"."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
