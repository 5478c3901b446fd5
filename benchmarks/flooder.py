"""Keeps a server busy with what is no request, until the line `stop`.

    python -m benchmarks.flooder --port P --kind KIND

Each of its connections does the same again and again, and a closed one is opened anew after a
moment. It takes only the CPU time that the others leave: who floods a server has a machine of its
own. It reports `{"opened": connections, "refused": answers}`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import uvloop

from benchmarks.worker import say

DRIP_S = 0.5
PAUSE_S = 0.5
_HEAD = (
    b"POST /liveEvent HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: secret\r\n"
    b"Content-Type: application/x-ndjson\r\n"
)
_LINES = b'{"userId":"flood","name":"add_revenue","value":1}\n' * 1300


async def _slow_head() -> AsyncIterator[bytes]:
    yield _HEAD + b"X-Slow: "
    while True:
        await asyncio.sleep(DRIP_S)
        yield b"x"


async def _slow_body() -> AsyncIterator[bytes]:
    yield _HEAD + b"Content-Length: 1000000\r\n\r\n"
    while True:
        await asyncio.sleep(DRIP_S)
        yield b"{"


async def _idle() -> AsyncIterator[bytes]:
    yield b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    await asyncio.Event().wait()


async def _oversize_body() -> AsyncIterator[bytes]:
    """A body without an end, which says its length no better than a body has to."""
    yield _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"%x\r\n%b\r\n" % (len(_LINES), _LINES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What each connection sends, and how many there are."""

    sends: Callable[[], AsyncIterator[bytes]]
    connections: int


# More connections than the server takes at once, where each costs the sender nothing.
KINDS = {
    "slow-heads": Kind(sends=_slow_head, connections=600),
    "slow-bodies": Kind(sends=_slow_body, connections=600),
    "idle": Kind(sends=_idle, connections=600),
    "oversize": Kind(sends=_oversize_body, connections=4),
}


class Flood:
    """The connections, and what became of them."""

    def __init__(self, kind: Kind, port: int) -> None:
        self._kind = kind
        self._port = port
        self.opened = 0
        self.refused = 0

    async def run(self) -> None:
        """Flood until cancelled."""
        await asyncio.gather(*(self._again_and_again() for _ in range(self._kind.connections)))

    async def _again_and_again(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # cut off, as it deserves
                await self._once()
            # Not in step: only a herd that waits for the same moment is.
            await asyncio.sleep(random.uniform(0.5, 1.5) * PAUSE_S)  # noqa: S311

    async def _once(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.opened += 1
        answer = asyncio.create_task(reader.read(65536))
        sending = asyncio.create_task(self._send(writer))
        try:
            await asyncio.wait({answer, sending}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done() and b" 200 " not in answer.result()[:20]:
                self.refused += 1
                return
            await sending
        finally:
            for task in (answer, sending):
                task.cancel()
            await asyncio.gather(answer, sending, return_exceptions=True)
            writer.transport.abort()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        async for piece in self._kind.sends():
            writer.write(piece)
            await writer.drain()


async def main(options: argparse.Namespace) -> None:
    """Get ready, wait for the word, flood, report."""
    flood = Flood(KINDS[options.kind], options.port)
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    flooding = asyncio.create_task(flood.run())
    await asyncio.to_thread(sys.stdin.readline)
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    say(json.dumps({"opened": flood.opened, "refused": flood.refused}))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kind", choices=KINDS, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    os.nice(19)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    uvloop.run(main(parse(sys.argv[1:])))
