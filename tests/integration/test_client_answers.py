"""Whatever a server answers, or begins to, the client knows what it may take for granted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from etl.core.wire import Producer
from etl.runtime.settings import Settings
from etl.source.dead_letters import Rejected
from etl.source.lines import Mark, Piece
from etl.source.link import Displaced, Gap, Later, Link, Refused, Reply, Taken

pytestmark = pytest.mark.asyncio

BODY = b"one\ntwo\n"
FIRST = Mark(sequence=10, byte=100)
PIECE = Piece(first=FIRST, next=FIRST.after(BODY, 2), body=BODY)
PRODUCER = Producer(producer="p", epoch=1, first=10)
RECEIPT = (
    b'{"accepted":1,"rejected":1,"blank":0,"duplicates":0,"next":12,'
    b'"rejections":[{"line":2,"reason":"no"}]}'
)


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


class RawServer:
    """Answers every request with the same bytes and hangs up."""

    def __init__(self) -> None:
        self.answer = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"POST" in head:
            await reader.readexactly(len(BODY))
        writer.write(self.answer)
        writer.close()


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[RawServer, Link]]:
    raw = RawServer()
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = Settings(server_url=f"http://127.0.0.1:{port}")
    async with server, Link(settings, connections=1) as link:
        yield raw, link


async def reply_to(answer: bytes) -> Reply:
    async with linked() as (raw, link):
        raw.answer = answer
        return await link.post(PIECE, PRODUCER)


async def test_answer_cut_at_every_byte_is_no_answer() -> None:
    whole = http("200 OK", RECEIPT, "Content-Type: application/json")
    async with linked() as (raw, link):
        for size in range(len(whole)):
            raw.answer = whole[:size]
            assert isinstance(await link.post(PIECE, PRODUCER), Later), size
        raw.answer = whole
        assert await link.post(PIECE, PRODUCER) == Taken(
            rejected=(Rejected(line=2, reason="no"),), blank=0
        )


@pytest.mark.parametrize(
    "answer",
    [
        b"\0" * 100,
        b"220 mail.example.com ESMTP\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        http("200 OK", b"<html>\xff"),
        http("200 OK", RECEIPT.replace(b'"accepted":1', b'"accepted":2')),
        http("200 OK", RECEIPT.replace(b'"next":12', b'"next":11')),
        http("200 OK", RECEIPT.replace(b'"next":12', b'"next":null')),
        http("200 OK", RECEIPT.replace(b'"line":2', b'"line":3')),
        http("200 OK", RECEIPT.replace(b'"line":2', b'"line":0')),
        http("201 Created", b'{"message":"Event received"}'),
        http("204 No Content"),
        http("302 Found", b"", "Location: http://127.0.0.1:1/"),
        http("404 Not Found", b"Cannot POST\n\n/liveEvent"),
        http("415 Unsupported Media Type"),
        http("500 Internal Server Error"),
        http("409 Conflict"),
        http("403 Forbidden", b"a proxy in between"),
        http("409 Conflict", b"", "Producer-Expected-Seq: x"),
        http("409 Conflict", b"", "Producer-Expected-Seq: " + "9" * 5_000),
        http("409 Conflict", b"", "Producer-Expected-Seq: \u0663"),
        http("409 Conflict", b"", "Producer-Expected-Seq: 10"),
        http("409 Conflict", b"", "Producer-Expected-Seq: 11"),
    ],
)
async def test_answer_that_proves_nothing_means_to_try_again(answer: bytes) -> None:
    reply = await reply_to(answer)
    assert isinstance(reply, Later)
    assert "\n" not in reply.reason


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (http("400 Bad Request", b"why\nnot"), Refused(reason="why not")),
        (http("413 Content Too Large"), Refused(reason="no reason given")),
        (
            http("403 Forbidden", b"no", "Content-Type: application/problem+json"),
            Displaced(reason="no"),
        ),
        (http("409 Conflict", b"", "Producer-Expected-Seq: 9"), Gap(expected=9)),
        (http("409 Conflict", b"", "Producer-Expected-Seq: 0"), Gap(expected=0)),
    ],
)
async def test_answer_of_the_contract_means_what_it_says(answer: bytes, reply: Reply) -> None:
    assert await reply_to(answer) == reply


@pytest.mark.parametrize(
    ("header", "wait_s"), [("3", 3.0), ("1000000", 60.0), ("-1", 0.0), ("Sat, 01 Jan", 0.0)]
)
async def test_server_may_ask_for_a_wait_within_reason(header: str, wait_s: float) -> None:
    reply = await reply_to(http("503 Service Unavailable", b"", f"Retry-After: {header}"))
    assert isinstance(reply, Later)
    assert (reply.at_least_s, reply.lost) == (wait_s, False)


@pytest.mark.parametrize(
    ("answer", "many"),
    [
        (http("200 OK", b"", "Accept-Post: application/json, application/x-ndjson"), True),
        (http("204 No Content", b"", "accept-post: Application/X-NDJSON"), True),
        (http("200 OK", b"", "Accept-Post: application/json"), False),
        (http("200 OK", b"POST", "Allow: POST"), False),
        (http("404 Not Found"), False),
        (http("405 Method Not Allowed"), False),
    ],
)
async def test_server_says_whether_it_takes_many(answer: bytes, many: bool) -> None:
    async with linked() as (raw, link):
        raw.answer = answer
        assert await link.ask() is None
        assert (link.known, link.many) == (True, many)
        link.forget()
        assert not link.known


@pytest.mark.parametrize("status", ["401 Unauthorized", "503 Service Unavailable", "502 Bad"])
async def test_server_in_trouble_does_not_say_what_it_takes(status: str) -> None:
    async with linked() as (raw, link):
        raw.answer = http(status)
        assert isinstance(await link.ask(), Later)
        assert not link.known
