"""Sends requests and notes when each began and when its answer was there.

    python -m benchmarks.load --port P --post FILE --in-flight 64   each line once, at full speed
    python -m benchmarks.load --port P --post FILE --rate 1000      each line once, at a fixed rate
    python -m benchmarks.load --port P --get PATH --rate 50         until the line `stop`

Plain sockets that stay open, one request at a time on each: an HTTP client library would cost more
than the server it measures. At a fixed rate a request begins when it is due, also where all sockets
are busy: waiting for one is part of its time. Times are those of `time.monotonic`, which all
processes share.

It reports `{"times": [[began, ended], …], "failed": [text, …]}`, in the order of the answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.worker import say

OPEN_LOOP_SOCKETS = 64
TICK_S = 0.001
FAILED_SHOWN_MAX = 5
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Socket(asyncio.Protocol):
    """One connection, with one request under way at most."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._answer = b""
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def send(self, request: bytes, began: float) -> None:
        assert self._transport is not None
        self._began = began
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head = self._answer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(self._answer, 0, head)
        if len(self._answer) < head + 4 + (int(length[1]) if length else 0):
            return
        answer, self._answer = self._answer, b""
        self._load.answered(self, self._began, answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(exc)


class Load:
    """The requests, those that are due, and what became of them."""

    def __init__(self, requests: Iterator[bytes], rate: float | None) -> None:
        self._requests = requests
        self._rate = rate
        self._idle: deque[Socket] = deque()
        self._due: deque[tuple[bytes, float]] = deque()
        self._under_way = 0
        self._ending = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.times: list[tuple[float, float]] = []
        self.failed: list[str] = []

    async def connect(self, port: int, sockets: int) -> None:
        """Open the sockets."""
        loop = asyncio.get_running_loop()
        for _ in range(sockets):
            _, made = await loop.create_connection(lambda: Socket(self), "127.0.0.1", port)
            self._idle.append(made)

    def start(self) -> None:
        """Begin."""
        if self._rate is None:
            while self._idle:
                self._next(self._idle.popleft())
            return
        self._began, self._sent = time.monotonic(), 0
        self._tick()

    def end(self) -> None:
        """Begin nothing more; done when all under way is answered."""
        self._ending = True
        self._finish()

    def answered(self, socket: Socket, began: float, answer: bytes) -> None:
        """Take an answer, and use its socket again."""
        self.times.append((began, time.monotonic()))
        self._under_way -= 1
        if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
            self.failed.append(answer[:200].decode(errors="replace"))
        if self._rate is None:
            self._next(socket)
        elif self._due:
            self._send(socket, *self._due.popleft())
        else:
            self._idle.append(socket)
        self._finish()

    def lost(self, error: Exception | None) -> None:
        """A connection that ends takes a request with it."""
        if not self.done.done():
            self.failed.append(f"connection lost: {error}")
            self.done.set_result(None)

    def _tick(self) -> None:
        """Begin all that is due by now."""
        assert self._rate is not None
        now = time.monotonic()
        while not self._ending and (due := self._began + self._sent / self._rate) <= now:
            request = next(self._requests, None)
            if request is None:
                self._ending = True
                break
            self._sent += 1
            if self._idle:
                self._send(self._idle.popleft(), request, due)  # in turn: none stays silent
            else:
                self._due.append((request, due))
        if self._ending:
            self._finish()
        else:
            asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _next(self, socket: Socket) -> None:
        request = next(self._requests, None)
        if request is None:
            self._ending = True
        else:
            self._send(socket, request, time.monotonic())

    def _send(self, socket: Socket, request: bytes, began: float) -> None:
        self._under_way += 1
        socket.send(request, began)

    def _finish(self) -> None:
        if self._ending and not self._under_way and not self._due and not self.done.done():
            self.done.set_result(None)


def posts(path: Path) -> Iterator[bytes]:
    """Return one request per line."""
    head = (
        b"POST /liveEvent HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: secret\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    )
    return iter([head % (len(line), line) for line in path.read_bytes().splitlines()])


def gets(path: str) -> Iterator[bytes]:
    """Return the same request for ever."""
    return repeat(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())


async def main(options: argparse.Namespace) -> None:
    """Get ready, wait for the word, send, report."""
    load = Load(posts(options.post) if options.post else gets(options.get), options.rate)
    sockets = options.in_flight if options.rate is None else options.sockets
    await load.connect(options.port, sockets)
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    load.start()
    if options.get:
        await asyncio.to_thread(sys.stdin.readline)
        load.end()
    await load.done
    failed = load.failed[:FAILED_SHOWN_MAX]
    say(json.dumps({"times": load.times, "failed": failed}))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--post", type=Path)
    parser.add_argument("--get")
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--sockets", type=int, default=OPEN_LOOP_SOCKETS, help="at a fixed rate")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    uvloop.run(main(parse(sys.argv[1:])))
