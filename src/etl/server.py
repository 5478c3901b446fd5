"""The server: HTTP requests in, events in partition files, acknowledged when they are durable."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

from aiohttp import web

from etl.core.wire import LIVE_EVENT_PATH, USER_EVENTS_PATH
from etl.log.files import LogFiles
from etl.log.identity import read_or_make_log_id
from etl.log.producers import Producers
from etl.log.recovery import recover
from etl.log.room import Room
from etl.log.writer import LogWriter
from etl.runtime.errors import EtlError
from etl.runtime.files import Lock, make_private_directory
from etl.runtime.lifecycle import fields, main
from etl.runtime.settings import Settings
from etl.sink.faults import DatabaseUnavailable
from etl.sink.revenue import RevenueReader
from etl.web import replies
from etl.web.access import guard
from etl.web.events import LiveEvents
from etl.web.runner import make_runner

logger = logging.getLogger(__name__)

# honcho kills five seconds after it has asked.
DRAIN_S = 3.0


class UserEvents:
    """`GET` of what has become of the events: revenue per user, and whether all is well."""

    def __init__(self, revenue: RevenueReader, writer: LogWriter) -> None:
        self._revenue = revenue
        self._writer = writer

    async def get(self, request: web.Request) -> web.Response:
        """Answer a user's revenue. The id is what stands in the path, decoded once."""
        raw = request.rel_url.raw_path.split("/", 2)[2]  # however the first part is spelled
        try:
            user_id = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            return replies.revenue("", None)  # no event can have such a user
        try:
            total = await self._revenue.revenue(user_id)
        except DatabaseUnavailable as error:
            raise replies.unavailable(error.message) from None
        return replies.revenue(user_id, total)

    async def livez(self, request: web.Request) -> web.Response:
        """Answer that the process answers."""
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        """Answer whether events are taken and revenue can be asked for."""
        if complaint := self._writer.complaint():
            raise replies.unavailable(complaint)
        if not await self._revenue.ping():
            raise replies.unavailable("the database does not answer; events are taken all the same")
        return web.Response(text="ok\n")


def application(settings: Settings, events: LiveEvents, users: UserEvents) -> web.Application:
    """Return the routes of the contract."""
    app = web.Application(
        client_max_size=settings.body_bytes_max, middlewares=[replies.problems, guard(settings)]
    )
    app.router.add_post(LIVE_EVENT_PATH, events.post)
    app.router.add_options(LIVE_EVENT_PATH, events.options)
    app.router.add_get(f"{USER_EVENTS_PATH}{{user_id:(?s:.*)}}", users.get)
    app.router.add_get("/livez", users.livez)
    app.router.add_get("/readyz", users.readyz)
    return app


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until the stop; then take nothing more, and answer what is under way."""
    directory = settings.data_path
    make_private_directory(directory)
    lock = Lock(directory / "server.lock", role="server").acquire()
    try:
        async with _opened_log(directory, settings) as (writer, producers):
            events = LiveEvents(writer, producers, settings)
            revenue = RevenueReader(settings)
            await revenue.start()
            try:
                app = application(settings, events, UserEvents(revenue, writer))
                await _serve(app, settings, writer, events, stop)
            finally:
                await revenue.close()
    finally:
        lock.release()


@contextlib.asynccontextmanager
async def _opened_log(
    directory: Path, settings: Settings
) -> AsyncIterator[tuple[LogWriter, Producers]]:
    try:
        read_or_make_log_id(directory)
        recovered = await asyncio.to_thread(recover, directory)
        files = LogFiles(directory, recovered)
    except OSError as error:
        raise EtlError(f"the log in {directory}/ can't be opened: {error}") from error
    producers = Producers(recovered.producers, producers_max=settings.producers_max)
    room = Room(directory, reserve_bytes=settings.disk_reserve_bytes)
    writer = LogWriter(files, producers, room=room, queue_bytes_max=settings.queue_bytes_max)
    logger.info("log is open", extra=fields(events=recovered.watermark.events))
    try:
        yield writer, producers
    finally:
        writer.close()
        files.close()


async def _serve(
    app: web.Application,
    settings: Settings,
    writer: LogWriter,
    events: LiveEvents,
    stop: asyncio.Event,
) -> None:
    runner = make_runner(app, settings, drain_s=DRAIN_S)
    await runner.setup()
    writing = asyncio.create_task(writer.run(), name="log writer")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await _listen(runner, settings)
        await asyncio.wait({writing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        events.stopping = True
        if not writing.done():
            await runner.cleanup()
            await writer.drained()
    finally:
        stopping.cancel()
        if writing.done():
            # A failed sync: whoever waits gets no answer, because none would be true.
            await writing
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        await runner.cleanup()


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    site = web.TCPSite(runner, settings.host, settings.port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        raise EtlError(
            f"{settings.host}:{settings.port} can't be listened on: {error.strerror or error}",
            hint="stop what listens there, or set ETL_PORT (and ETL_SERVER_URL) to another port",
        ) from error
    for host, port in (address[:2] for address in runner.addresses):
        logger.info("listening", extra=fields(host=host, port=port))


if __name__ == "__main__":
    sys.exit(main("server", run))
