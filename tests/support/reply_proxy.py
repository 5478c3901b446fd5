"""Between client and server: loses replies to what was stored, where a test says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_STORED = b"HTTP/1.1 200"


class ReplyProxy:
    """Passes bytes on; every `lose_every`-th reply that says 200 cuts its connection instead."""

    def __init__(self, port: int, lose_every: int) -> None:
        self._port = port
        self._lose_every = lose_every
        self._replies = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.lost = 0

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._pass_on(reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forth(reader, there_writer))
                group.create_task(self._back(there_reader, writer))
        except* (OSError, EOFError):
            pass
        finally:
            there_writer.transport.abort()

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if data.startswith(_STORED):
                self._replies += 1
                if self._replies % self._lose_every == 0:
                    self.lost += 1
                    raise EOFError
            writer.write(data)
            await writer.drain()
        raise EOFError


@asynccontextmanager
async def losing_replies(port: int, *, lose_every: int) -> AsyncIterator[ReplyProxy]:
    proxy = ReplyProxy(port, lose_every)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
