"""Between client and server: one request and its answer after the other, and faults by chance.

Every fault is counted in `did` when it strikes. A connection ends with a reset or with an orderly
end, at random, so that both ends meet both.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_SEQUENCE = re.compile(rb"\r\nproducer-seq: *(\d+)\r\n", re.IGNORECASE)
_STORED = re.compile(rb'"accepted":([1-9])')
_REJECTED = re.compile(rb'"rejections":\[{')
_DUPLICATES = re.compile(rb'"duplicates":([1-9]\d*)')
_RESET = struct.pack("ii", 1, 0)
_LATE_S = (0.05, 1.5)


async def pass_time(seconds: float) -> None:
    """Let time pass where time is the fault itself, as in a silence of seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """How likely each fault is, for each request."""

    lose_reply: float = 0.0
    cut_request: float = 0.0
    cut_reply: float = 0.0
    late: float = 0.0  # the client is cut off, the request arrives all the same, but later
    repeat: float = 0.0  # it arrives a second time, later
    delay_s: float = 0.0  # every request and every answer waits up to so long


NO_FAULTS = Odds()


class CutError(EOFError):
    """This connection is to end now."""


class HttpProxy:
    """Passes requests on to a port, except where the odds say otherwise."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self.port = port
        self.odds = NO_FAULTS
        self.did: Counter[str] = Counter()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._chance = chance
        self._here = 0
        self._seen: set[int] = set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._here}"

    async def start(self) -> None:
        """Listen; always at the same port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._here)
        self._here = self._server.sockets[0].getsockname()[1]

    def vanish(self) -> None:
        """Refuse connections until the next `start`, and reset those there are."""
        assert self._server is not None
        self._server.close()
        self.reset_all()

    def reset_all(self) -> int:
        """Reset every connection; return how many there were."""
        writers = list(self._writers)
        for writer in writers:
            _end(writer, reset=True)
        return len(writers) // 2

    async def all_arrived(self) -> None:
        """Wait until nothing is on its way any more, however late."""
        while self._late:
            await asyncio.wait(self._late)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [*self._tasks, *self._late]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        both = [writer]
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                there = await asyncio.open_connection("127.0.0.1", self.port)
                both.append(there[1])
                self._writers.add(there[1])
                while True:
                    await self._exchange((reader, writer), there)
        finally:
            reset = self._chance.random() < 0.5
            for one in both:
                _end(one, reset=reset)
            self._writers.difference_update(both)
            self._tasks.discard(task)

    async def _exchange(
        self,
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        request = await _message(here[0])
        posted = request.startswith(b"POST ")
        await self._delay()
        await self.flowing.wait()
        if posted:
            self._see_order(request)
            await self._strike_request(request, there[1])
        await _send(there[1], request)
        reply = await _message(there[0])
        await self._delay()
        await self.flowing.wait()
        if posted:
            await self._strike_reply(reply, here[1])
        await _send(here[1], reply)

    async def _strike_request(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        if self._happens(self.odds.late):
            self._did("late requests")
            self._start_late(self._deliver(request))
            raise CutError
        if self._happens(self.odds.repeat):
            self._did("requests repeated")
            self._start_late(self._deliver(request))
        if self._happens(self.odds.cut_request):
            self._did("requests cut")
            await _send(writer, request[: self._chance.randrange(len(request))])
            raise CutError

    async def _strike_reply(self, reply: bytes, writer: asyncio.StreamWriter) -> None:
        duplicates = _DUPLICATES.search(reply)
        if duplicates:
            self._did("duplicates", int(duplicates[1]))
        if not _STORED.search(reply):
            return
        if self._happens(self.odds.lose_reply):
            self._did("replies lost")
            if _REJECTED.search(reply):
                self._did("replies with rejections lost")
            raise CutError
        if self._happens(self.odds.cut_reply):
            self._did("replies cut")
            await _send(writer, reply[: self._chance.randrange(len(reply))])
            raise CutError

    def _start_late(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _deliver(self, request: bytes) -> None:
        """Let a request arrive after others that were sent later; nobody reads its answer."""
        await pass_time(self._chance.uniform(*_LATE_S))
        with contextlib.suppress(OSError, EOFError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                await _send(writer, request)
                reply = await _message(reader)
            finally:
                _end(writer, reset=False)
            if _DUPLICATES.search(reply):
                self._did("late duplicates")

    async def _delay(self) -> None:
        if self.odds.delay_s:
            self._did("delays")
            await pass_time(self._chance.uniform(0, self.odds.delay_s))

    def _see_order(self, request: bytes) -> None:
        sequence = _SEQUENCE.search(request)
        if sequence is None:
            return
        first = int(sequence[1])
        if first not in self._seen and first < max(self._seen, default=0):
            self._did("requests overtaken")
        self._seen.add(first)

    def _happens(self, odds: float) -> bool:
        return self._chance.random() < odds

    def _did(self, what: str, times: int = 1) -> None:
        self.did[what] += times


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Read one request or answer, whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head + await reader.readexactly(int(length[1]) if length else 0)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset and not writer.transport.is_closing():
        endpoint = writer.get_extra_info("socket")
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
    writer.close()


@asynccontextmanager
async def http_proxy(port: int, chance: random.Random) -> AsyncIterator[HttpProxy]:
    proxy = HttpProxy(port, chance)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
