"""Servers in memory for tests of the client: ours by its contract, and the original's."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import msgspec
from aiohttp import web

from etl.core import wire
from etl.core.lines import judge

TOKEN = "secret"  # noqa: S105  the default, public by contract
AHEAD_WAIT_S = 0.5


class Fault(enum.Enum):
    NONE = enum.auto()
    DROP_REPLY = enum.auto()  # stored, but nobody hears of it
    RESET = enum.auto()  # not stored
    UNAVAILABLE = enum.auto()
    GARBAGE = enum.auto()  # stored, answered with something else
    FORGET = enum.auto()  # the state is lost before the request
    UNAUTHORIZED = enum.auto()
    DISPLACED = enum.auto()
    EARLY = enum.auto()  # a gap, as if its predecessors had not come yet
    SILENCE = enum.auto()  # no answer until the stub is closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    method: str
    content_type: str
    producer: str
    epoch: int
    first: int
    lines: int


def _no_refusal(_: bytes) -> str | None:
    return None


@dataclass(slots=True)
class Stub:
    """What both servers share: a port chosen by the kernel, what came, and moments to wait for."""

    received: list[Received] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    options: int = 0
    port: int = 0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def listen(self) -> None:
        app = web.Application(client_max_size=wire.BODY_BYTES_MAX)
        app.router.add_route("*", wire.LIVE_EVENT_PATH, self.handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening; what was stored stays, and `listen` comes back on the same port."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def until(self, true: Callable[[], bool], within_s: float = 20.0) -> None:
        """Wait for a moment; `true` is asked again after each request."""
        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(true)

    async def tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError


@dataclass(slots=True)
class StubServer(Stub):
    """Our contract. `faults` are taken one per POST; `refusal` may refuse a body with 400."""

    faults: deque[Fault] = field(default_factory=deque)
    refusal: Callable[[bytes], str | None] = _no_refusal
    next: dict[str, tuple[int, int]] = field(default_factory=dict)
    duplicates: int = 0
    happened: Counter[Fault] = field(default_factory=Counter)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def close(self) -> None:
        self._closing.set()
        await Stub.close(self)
        self._closing.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "OPTIONS":
            self.options += 1
            return web.Response(status=204, headers={"Accept-Post": wire.ACCEPT_POST})
        body = await request.read()
        if request.headers.get("Authorization") != TOKEN:
            return _problem(401, "wrong token")
        producer = request.headers.get(wire.PRODUCER_ID, "")
        epoch = int(request.headers.get(wire.PRODUCER_EPOCH, -1))
        first = int(request.headers.get(wire.PRODUCER_SEQ, -1))
        fault = self.faults.popleft() if self.faults else Fault.NONE
        self.received.append(
            Received(
                method=request.method,
                content_type=request.content_type,
                producer=producer,
                epoch=epoch,
                first=first,
                lines=judge(body).lines,
            )
        )
        self.happened[fault] += 1
        await self.tell()
        try:
            return await self._answer(request, fault, producer, epoch, first, body)
        finally:
            await self.tell()

    async def _answer(
        self,
        request: web.Request,
        fault: Fault,
        producer: str,
        epoch: int,
        first: int,
        body: bytes,
    ) -> web.StreamResponse:
        match fault:
            case Fault.RESET:
                return _hang_up(request)
            case Fault.SILENCE:
                await self._closing.wait()
                return _hang_up(request)
            case Fault.UNAVAILABLE:
                return _problem(503, "the disk is full", {"Retry-After": "0"})
            case Fault.UNAUTHORIZED:
                return _problem(401, "wrong token")
            case Fault.DISPLACED:
                return _problem(403, "a newer epoch exists")
            case Fault.EARLY:
                return _problem(409, "gap", {wire.PRODUCER_EXPECTED_SEQ: "0"})
            case Fault.FORGET:
                self.next.clear()
                self.stored.clear()
            case _:
                pass
        reply = await self._append(producer, epoch, first, body)
        if fault is Fault.DROP_REPLY:
            return _hang_up(request)
        return web.Response(text="<html>") if fault is Fault.GARBAGE else reply

    async def _append(self, producer: str, epoch: int, first: int, body: bytes) -> web.Response:
        reason = self.refusal(body)
        if reason is not None:
            return _problem(400, reason)
        await self._predecessor(producer, epoch, first)
        known_epoch, expected = self.next.get(producer, (epoch, 0))
        if epoch < known_epoch:
            return _problem(403, "a newer epoch exists")
        if epoch > known_epoch:
            expected = 0
        if first > expected:
            return _problem(409, "gap", {wire.PRODUCER_EXPECTED_SEQ: str(expected)})
        whole = judge(body)
        known = min(expected - first, whole.lines)
        new = judge(b"".join(body.splitlines(keepends=True)[known:]))
        self.stored += new.stored.splitlines()
        self.duplicates += known
        self.next[producer] = (epoch, max(expected, first + whole.lines))
        await self.tell()
        return web.json_response(
            msgspec.to_builtins(
                wire.Receipt(
                    accepted=new.events,
                    rejected=len(new.rejections),
                    blank=new.blank,
                    duplicates=known,
                    next=self.next[producer][1],
                    rejections=[
                        wire.RejectedLine(line=one.line, reason=one.reason)
                        for one in whole.rejections
                    ],
                )
            )
        )

    async def _predecessor(self, producer: str, epoch: int, first: int) -> None:
        def here() -> bool:
            known_epoch, expected = self.next.get(producer, (epoch, 0))
            return epoch < known_epoch or first <= (expected if epoch == known_epoch else 0)

        try:
            await self.until(here, AHEAD_WAIT_S)
        except TimeoutError:
            return


@dataclass(slots=True)
class OriginalServer(Stub):
    """The original's contract: one JSON event a request, 201, and nothing else."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            self.options += 1
            return web.Response(status=404)
        body = await request.read()
        if request.headers.get("Authorization") != TOKEN:
            return web.Response(status=401)
        if request.content_type != wire.JSON_TYPE:
            return web.Response(status=400)
        self.received.append(
            Received(
                method="POST",
                content_type=request.content_type,
                producer=request.headers.get(wire.PRODUCER_ID, ""),
                epoch=-1,
                first=-1,
                lines=1,
            )
        )
        self.stored.append(body)
        await self.tell()
        return web.json_response({"message": "Event received"}, status=201)


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        headers=headers,
        content_type=wire.PROBLEM_TYPE,
        body=msgspec.json.encode(wire.Problem(title="no", status=status, detail=detail)),
    )


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
