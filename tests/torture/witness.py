"""Between client and server: remembers what the server has acknowledged.

Whoever wants to refute "acknowledged means durable" has to know what was acknowledged without
asking those who promise it: requests pass through here, and each answer that takes lines is
noted before it is passed on.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import json
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from etl.log.recovery import recover
from etl.runtime.errors import CorruptError
from torture import laws
from torture.trial import Truth, World

# What a recovery of a copy finds torn is no news.
logging.getLogger("etl.log").setLevel(logging.ERROR)

# Client and processor may be alive; a recovery needs nothing of theirs.
_OTHERS = shutil.ignore_patterns("client*", "dead_letters*", "processor*")

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host", "keep-alive"}
_COUNTS = ("accepted", "rejected", "blank", "duplicates")


class Witness:
    """Passes requests on, at most one in `pace_s`, and notes the answers."""

    def __init__(self, world: World, *, pace_s: float = 0.0) -> None:
        self.world = world
        self.pace_s = pace_s
        self.acknowledged = 0  # lines of the source, from its start
        self.runs: set[str] = set()
        self._session: aiohttp.ClientSession | None = None
        self._turn = asyncio.Lock()
        self._more = asyncio.Condition()

    def good(self) -> int:
        """How many events the acknowledged lines hold."""
        return good_before(self.world.truth, self.acknowledged)

    async def until_part(self, part: float) -> None:
        """Wait until such a part of all lines is acknowledged."""
        lines = int(self.world.truth.lines * part)
        async with asyncio.timeout(60.0), self._more:
            await self._more.wait_for(lambda: self.acknowledged >= lines)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        body = await request.read()
        if body and self.pace_s:
            await self._wait()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        url = f"http://127.0.0.1:{self.world.run.port}{request.path_qs}"
        try:
            async with self._session.request(
                request.method, url, data=body or None, headers=headers
            ) as reply:
                answer = await reply.read()
                if reply.status == 200 and "Producer-Seq" in headers:
                    await self._note(request, answer)
                passed = {k: v for k, v in reply.headers.items() if k.lower() not in _HOP_BY_HOP}
                return web.Response(status=reply.status, body=answer, headers=passed)
        except (aiohttp.ClientError, OSError, RuntimeError):  # the last one: the trial is over
            if request.transport is not None:
                request.transport.abort()
            raise asyncio.CancelledError from None

    async def _note(self, request: web.Request, answer: bytes) -> None:
        counts = json.loads(answer)
        first = int(request.headers["Producer-Seq"])
        self.runs.add(f"{request.headers['Producer-Id']}/{request.headers['Producer-Epoch']}")
        async with self._more:
            self.acknowledged = max(
                self.acknowledged, first + sum(counts[name] for name in _COUNTS)
            )
            self._more.notify_all()

    async def _wait(self) -> None:
        async with self._turn:
            await moment(self.pace_s)

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.world.run.server_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            self._session = session
            try:
                yield
            finally:
                await runner.cleanup()


@asynccontextmanager
async def witnessed(world: World, *, pace_s: float = 0.0) -> AsyncIterator[Witness]:
    """Let the client that is started inside speak through a witness."""
    witness = Witness(world, pace_s=pace_s)
    async with witness._serving():  # noqa: SLF001  its own module
        yield witness


async def moment(seconds: float) -> None:
    """A pause that belongs to a fault; nothing is waited for by it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


def good_before(truth: Truth, lines: int) -> int:
    """How many of the first `lines` lines are events."""
    return lines - bisect.bisect_right(truth.bad_lines, lines)


def require_prefix(world: World, stored: list[bytes], acknowledged: int) -> None:
    """The log holds the first events that were sent, at least all that are acknowledged."""
    sent = world.truth.good
    laws.require(
        len(stored) >= acknowledged,
        "acknowledged",
        f"{acknowledged} events are, {len(stored)} stand in the log",
    )
    laws.require(stored == sent[: len(stored)], "log", "it is no beginning of what was sent")


async def require_acknowledged(world: World, acknowledged: int) -> int:
    """Recover a copy of the data directory and find all that is acknowledged in it.

    Return the number of events there.
    """
    copy = world.trial.directory / "copy"
    try:
        try:
            shutil.copytree(world.run.data, copy, ignore=_OTHERS)
            recover(copy)
        except (CorruptError, OSError) as error:
            raise laws.ViolationError(f"acknowledged: no recovery: {error}") from error
        stored = laws.stored(copy)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    require_prefix(world, stored, acknowledged)
    return len(stored)
