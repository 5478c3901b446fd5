"""Between a client and PostgreSQL: passes everything on, except where a test says otherwise."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

_PORT = 5432


class Proxy:
    """A TCP address for the server behind a Unix socket."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.{_PORT}"
        self._user, self._database = parts.username, parts.path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.replies_lost = 0
        self.commits_lost = 0
        self.lose_replies = 0
        self.lose_commits = 0
        self.silent = False
        self.silent_from = b""
        self.fell_silent = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"postgresql://{self._user}@127.0.0.1:{port}{self._database}"

    def cut_all(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut_all()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there_reader, there_writer = await asyncio.open_unix_connection(self._socket)
            both = {writer, there_writer}
            self._writers |= both
            committed = asyncio.Event()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._forth(reader, there_writer, committed))
                    group.create_task(self._back(there_reader, writer, committed))
            except* (OSError, EOFError):
                pass
            finally:
                self._writers -= both
                for one in both:
                    one.transport.abort()
        self._pumps.discard(task)

    async def _forth(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, committed: asyncio.Event
    ) -> None:
        while data := await reader.read(65536):
            if b"COMMIT" in data:
                if self.lose_commits:
                    self.lose_commits -= 1
                    self.commits_lost += 1
                    raise EOFError
                if self.lose_replies:
                    self.lose_replies -= 1
                    committed.set()
            if self.silent_from and self.silent_from in data:
                self.silent = True
                self.fell_silent.set()
            if not self.silent:
                writer.write(data)
                await writer.drain()
        raise EOFError

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, committed: asyncio.Event
    ) -> None:
        while data := await reader.read(65536):
            if committed.is_set():
                self.replies_lost += 1
                raise EOFError
            if not self.silent:
                writer.write(data)
                await writer.drain()
        raise EOFError


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(url)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
