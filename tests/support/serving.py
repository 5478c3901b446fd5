"""The real server application on a real port, over a real log, with whatever database there is."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.typedefs import LooseHeaders

from etl.core.wire import (
    JSON_TYPE,
    LIVE_EVENT_PATH,
    NDJSON_TYPE,
    PROBLEM_TYPE,
    Problem,
    Producer,
    Receipt,
)
from etl.log.files import LogFiles
from etl.log.names import list_names
from etl.log.producers import Producers
from etl.log.recovery import recover
from etl.log.room import Room
from etl.log.writer import LogWriter
from etl.runtime.settings import Settings
from etl.server import UserEvents, application
from etl.sink.revenue import RevenueReader
from etl.web.events import LiveEvents
from etl.web.runner import make_runner

TOKEN = "a-token-of-the-tests"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def receipt(self) -> Receipt:
        """The counts of a request that was taken."""
        assert self.status == 200, self.body
        return msgspec.json.decode(self.body, type=Receipt)

    @property
    def detail(self) -> str:
        """What a refusal says; its body is a problem of the same status."""
        assert self.headers["Content-Type"].partition(";")[0] == PROBLEM_TYPE
        problem = msgspec.json.decode(self.body, type=Problem)
        assert problem.status == self.status
        assert problem.title
        return problem.detail


@dataclass(kw_only=True)
class Served:
    """A server under test, and what it has written."""

    directory: Path
    host: str
    port: int
    files: LogFiles
    events: LiveEvents
    session: aiohttp.ClientSession

    @property
    def stored(self) -> bytes:
        """All bytes of all partitions."""
        return b"".join((self.directory / name).read_bytes() for name in list_names(self.directory))

    @property
    def lines(self) -> int:
        """What `wc -l` says of the partitions, which the watermark must say too."""
        lines = self.stored.count(b"\n")
        assert self.files.watermark.events == lines
        return lines

    async def ask(
        self,
        method: str,
        path: str = LIVE_EVENT_PATH,
        *,
        body: bytes | None = None,
        headers: LooseHeaders | None = None,
    ) -> Answer:
        """Send a request with exactly these headers."""
        data = io.BytesIO(body) if body is not None else None
        async with self.session.request(method, path, data=data, headers=headers) as response:
            return Answer(
                status=response.status, headers=response.headers, body=await response.read()
            )

    async def post(
        self,
        body: bytes,
        content_type: str = JSON_TYPE,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Post with the token."""
        sent = {"Authorization": TOKEN, "Content-Type": content_type, **(headers or {})}
        return await self.ask("POST", body=body, headers=sent)

    async def post_body(
        self, body: bytes, content_type: str = JSON_TYPE, *, chunked: bool
    ) -> Answer:
        """Post with the token, with the length of the body told or not."""

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 65_536):
                yield body[start : start + 65_536]

        headers = {"Authorization": TOKEN, "Content-Type": content_type}
        data = pieces() if chunked else io.BytesIO(body)
        async with self.session.post(LIVE_EVENT_PATH, data=data, headers=headers) as response:
            return Answer(
                status=response.status, headers=response.headers, body=await response.read()
            )

    async def post_lines(
        self, body: bytes, *, producer: str = "", epoch: int = 0, first: int = 0
    ) -> Answer:
        """Post many events, as a producer where one is named."""
        sent = Producer(producer=producer, epoch=epoch, first=first).headers() if producer else {}
        return await self.post(body, NDJSON_TYPE, sent)

    async def raw(self, request: bytes) -> Answer:
        """Send bytes as they are over a connection of their own, which the request closes."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(request)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        status, *fields = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip(): text.strip() for name, _, text in (f.partition(":") for f in fields)
        }
        return Answer(status=int(status.split()[1]), headers=headers, body=body)


@contextlib.asynccontextmanager
async def serving(
    directory: Path,
    *,
    database_url: str | None = None,
    host: str = "127.0.0.1",
    **chosen: Any,
) -> AsyncIterator[Served]:
    """Serve a data directory; without a database the reader of revenue never connects.

    `host` is what the settings say, as `chosen` others; the tests always come over loopback.
    """
    settings = Settings(
        data_dir=str(directory),
        host=host,
        token=TOKEN,
        database_url=database_url,
        **chosen,
    )
    recovered = recover(directory)
    files = LogFiles(directory, recovered)
    producers = Producers(recovered.producers, producers_max=settings.producers_max)
    room = Room(directory, reserve_bytes=settings.disk_reserve_bytes)
    writer = LogWriter(files, producers, room=room, queue_bytes_max=settings.queue_bytes_max)
    events = LiveEvents(writer, producers, settings)
    revenue = RevenueReader(settings)
    if database_url is not None:
        await revenue.start()
    runner = make_runner(
        application(settings, events, UserEvents(revenue, writer)), settings, drain_s=1
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    bound, port = runner.addresses[0][:2]
    writing = asyncio.create_task(writer.run())
    try:
        async with aiohttp.ClientSession(f"http://{bound}:{port}") as session:
            yield Served(
                directory=directory,
                host=bound,
                port=port,
                files=files,
                events=events,
                session=session,
            )
    finally:
        await runner.cleanup()
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        await revenue.close()
        writer.close()
        files.close()
