"""The yardstick of single requests: an aiohttp handler that writes, group-syncs, and answers.

It checks nothing and keeps no watermark; but what it acknowledges is on disk, and all that waits
shares one write and one sync. No less can be promised by a server on this framework.

    python -m benchmarks.bare FILE        says `ready PORT`, and serves until it is killed
"""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import uvloop
from aiohttp import web

from benchmarks.worker import say

REPLY = b'{"message":"Event received"}'


class GroupSync:
    """Appends to a file; all that waits shares one write and one sync."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1)

    async def append(self, data: bytes) -> None:
        """Return when the data is on disk."""
        durable = asyncio.get_running_loop().create_future()
        self._waiting.append((data, durable))
        self._wake.set()
        await durable

    async def run(self) -> None:
        """Write and sync, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            group, self._waiting = self._waiting, []
            data = b"".join(data for data, _ in group)
            await loop.run_in_executor(self._thread, self._write, data)
            for _, durable in group:
                if not durable.done():
                    durable.set_result(None)

    def _write(self, data: bytes) -> None:
        if os.write(self._fd, data) != len(data):
            raise OSError("the disk took less than it was given")
        os.fdatasync(self._fd)


async def main(path: str) -> None:
    """Serve."""
    log = GroupSync(path)

    async def post(request: web.Request) -> web.Response:
        await log.append(await request.read() + b"\n")
        return web.Response(status=201, body=REPLY, content_type="application/json")

    app = web.Application()
    app.router.add_post("/liveEvent", post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    say(f"ready {runner.addresses[0][1]}")
    await log.run()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
