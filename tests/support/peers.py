"""Raw connections to a server under test, by peers that keep to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from etl.core.wire import Problem
from support.serving import TOKEN, Served, serving

EVENT = b'{"userId":"u","name":"add_revenue","value":1}'
HEAD = (
    b"POST /liveEvent HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + TOKEN.encode() + b"\r\n"
    b"Content-Type: application/json\r\n"
)
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(EVENT) + EVENT
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
PATIENCE_S = 30.0
SOON_S = 0.3
NEVER_S = 3600


@dataclass(slots=True)
class Peer:
    """A raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Read one whole answer: its status, head and body."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            return int(head.split()[1]), head, await self.reader.readexactly(length)

    async def refused(self, status: int, *words: str) -> None:
        """Read a problem, after which the connection ends."""
        told, head, body = await self.answer()
        problem = msgspec.json.decode(body, type=Problem)
        assert (told, problem.status) == (status, status)
        assert b"application/problem+json" in head
        assert b"connection: close" in head.lower() or head.startswith(b"HTTP/1.0")
        assert [word for word in words if word not in problem.detail] == []
        assert await self.ended() == b""

    async def cut_off(self) -> None:
        """Go on sending until the connection is no more."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while True:
                    self.send(b"\r\n")
                    await self.writer.drain()
                    await asyncio.sleep(0)

    async def ended(self) -> bytes:
        """Read on until the server has closed, and return what else came."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@contextlib.asynccontextmanager
async def peer(served: Served, *, receive_buffer: int | None = None) -> AsyncIterator[Peer]:
    endpoint = socket.socket()
    if receive_buffer is not None:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    endpoint.setblocking(False)
    await asyncio.get_running_loop().sock_connect(endpoint, (served.host, served.port))
    reader, writer = await asyncio.open_connection(sock=endpoint, limit=2**20)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def limited(directory: Path, **chosen: Any) -> AsyncIterator[Served]:
    """Serve with deadlines that never come but for those chosen."""
    never = dict.fromkeys(("header", "body", "reply", "idle"), NEVER_S)
    deadlines = {f"{name}_timeout_s": seconds for name, seconds in never.items()}
    async with serving(directory, **deadlines | chosen) as served:
        yield served
        assert (await served.post(EVENT)).status == 201  # whatever was done to it
