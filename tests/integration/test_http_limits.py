"""Peers that are slow, silent, many or half gone: each meets a limit, and others are served on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from etl.core.wire import NDJSON_TYPE, Problem
from etl.web.connection import LINGER_S
from support.serving import TOKEN, Served, serving

pytestmark = pytest.mark.asyncio

EVENT = b'{"userId":"u","name":"add_revenue","value":1}'
HEAD = (
    b"POST /liveEvent HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + TOKEN.encode() + b"\r\n"
    b"Content-Type: application/json\r\n"
)
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(EVENT) + EVENT
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
PATIENCE_S = 30.0
SOON_S = 0.3
NEVER_S = 3600


@dataclass(slots=True)
class Peer:
    """A raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Read one whole answer: its status, head and body."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            return int(head.split()[1]), head, await self.reader.readexactly(length)

    async def refused(self, status: int, *words: str) -> None:
        """Read a problem, after which the connection ends."""
        told, head, body = await self.answer()
        problem = msgspec.json.decode(body, type=Problem)
        assert (told, problem.status) == (status, status)
        assert b"application/problem+json" in head
        assert b"connection: close" in head.lower() or head.startswith(b"HTTP/1.0")
        assert [word for word in words if word not in problem.detail] == []
        assert await self.ended() == b""

    async def cut_off(self) -> None:
        """Go on sending until the connection is no more."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while True:
                    self.send(b"\r\n")
                    await self.writer.drain()
                    await asyncio.sleep(0)

    async def ended(self) -> bytes:
        """Read on until the server has closed, and return what else came."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@contextlib.asynccontextmanager
async def peer(served: Served, *, receive_buffer: int | None = None) -> AsyncIterator[Peer]:
    endpoint = socket.socket()
    if receive_buffer is not None:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    endpoint.setblocking(False)
    await asyncio.get_running_loop().sock_connect(endpoint, (served.host, served.port))
    reader, writer = await asyncio.open_connection(sock=endpoint, limit=2**20)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def limited(directory: Path, **chosen: Any) -> AsyncIterator[Served]:
    """Serve with deadlines that never come but for those chosen."""
    never = dict.fromkeys(("header", "body", "reply", "idle"), NEVER_S)
    deadlines = {f"{name}_timeout_s": seconds for name, seconds in never.items()}
    async with serving(directory, **deadlines | chosen) as served:
        yield served
        assert (await served.post(EVENT)).status == 201  # whatever was done to it


async def test_peer_that_says_nothing_is_told_the_deadline_and_closed(tmp_path: Path) -> None:
    async with limited(tmp_path, header_timeout_s=SOON_S) as served, peer(served) as silent:
        await silent.refused(408, "head", f"{SOON_S:g} s")


async def test_dripped_head_does_not_put_off_its_deadline(tmp_path: Path) -> None:
    async with limited(tmp_path, header_timeout_s=SOON_S) as served, peer(served) as dripping:
        refused = asyncio.create_task(dripping.refused(408, "head"))
        dripping.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ")
        while not refused.done():
            dripping.send(b"x")
            await asyncio.wait([refused], timeout=SOON_S / 5)
        await refused


async def test_dripped_head_of_a_later_request_meets_the_same_deadline(tmp_path: Path) -> None:
    async with limited(tmp_path, header_timeout_s=SOON_S) as served, peer(served) as dripping:
        dripping.send(LIVEZ)
        assert (await dripping.answer())[0] == 200
        dripping.send(b"GET")
        await dripping.refused(408, "head")


async def test_idle_connection_is_closed_without_a_word(tmp_path: Path) -> None:
    async with limited(tmp_path, idle_timeout_s=SOON_S) as served, peer(served) as idle:
        idle.send(LIVEZ)
        assert (await idle.answer())[0] == 200
        assert await idle.ended() == b""


async def test_idle_time_is_not_the_time_of_a_first_head(tmp_path: Path) -> None:
    chosen = {"idle_timeout_s": 0.01, "header_timeout_s": 1}
    async with limited(tmp_path, **chosen) as served, peer(served) as slow:
        await slow.refused(408, "1 s")


async def test_body_that_drips_is_told_the_deadline_and_leaves_nothing(tmp_path: Path) -> None:
    async with limited(tmp_path, body_timeout_s=SOON_S) as served:
        async with peer(served) as dripping:
            dripping.send(HEAD + b"Content-Length: 1000000\r\n\r\n")
            answer = asyncio.create_task(dripping.answer())
            while not answer.done():
                dripping.send(b" ")
                await asyncio.wait([answer], timeout=SOON_S / 5)
            status, _, body = await answer
            assert (status, f"{SOON_S:g} s" in body.decode()) == (408, True)
            dripping.send(b" ")
            assert await dripping.ended() == b""
        assert served.lines == 0


async def test_head_that_grows_for_ever_is_refused_at_its_limit(tmp_path: Path) -> None:
    async with limited(tmp_path, header_bytes_max=2_000) as served, peer(served) as growing:
        growing.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        for number in range(50):
            growing.send(b"X-%d: " % number + b"x" * 100 + b"\r\n")
            await growing.writer.drain()
        await growing.refused(431, "2000 bytes")


async def test_idle_connections_beyond_the_cap_make_room_for_who_asks(tmp_path: Path) -> None:
    async with limited(tmp_path, connections_max=8) as served, contextlib.AsyncExitStack() as all_:
        idle = [await all_.enter_async_context(peer(served)) for _ in range(40)]
        for _ in range(5):
            async with peer(served) as good:
                good.send(WHOLE)
                assert (await good.answer())[0] == 201
        assert [await early.ended() for early in idle[:32]] == [b""] * 32


async def test_who_keeps_asking_keeps_its_connection_among_idle_ones(tmp_path: Path) -> None:
    async with limited(tmp_path, connections_max=4) as served, contextlib.AsyncExitStack() as all_:
        good = await all_.enter_async_context(peer(served))
        for _ in range(20):
            good.send(WHOLE)
            assert (await good.answer())[0] == 201
            await all_.enter_async_context(peer(served))
        assert served.lines == 20


@pytest.mark.parametrize("begin", [HEAD + b"Content-Length: 9\r\n\r\n{", HEAD, b""])
async def test_slow_requests_at_the_cap_lock_nobody_out(tmp_path: Path, begin: bytes) -> None:
    async with limited(tmp_path, connections_max=4) as served, contextlib.AsyncExitStack() as all_:
        for _ in range(12):
            slow = await all_.enter_async_context(peer(served))
            slow.send(begin)
            async with peer(served) as good:
                good.send(WHOLE)
                assert (await good.answer())[0] == 201
        assert served.lines == 12


async def test_connection_beyond_the_cap_is_refused_where_all_others_are_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with limited(tmp_path, connections_max=2) as served:
        durable = asyncio.Event()
        append = served.events._writer.append  # noqa: SLF001  the disk, held up

        async def late(batch: Any) -> None:
            await durable.wait()
            await append(batch)

        async with peer(served) as one, peer(served) as two:
            with monkeypatch.context() as patch:
                patch.setattr(served.events._writer, "append", late)  # noqa: SLF001
                one.send(WHOLE)
                two.send(WHOLE)
                async with peer(served) as third:
                    third.send(WHOLE)  # it may be sent before the refusal is read
                    _, head, _ = told = await third.answer()
                    assert told[0] == 503
                    assert b"retry-after" in head.lower()
                    assert b"2 connections" in told[2]
                    assert await third.ended() == b""
                durable.set()
                assert [(await each.answer())[0] for each in (one, two)] == [201, 201]
        assert served.lines == 2


async def test_refused_peer_that_never_closes_is_closed(tmp_path: Path) -> None:
    assert LINGER_S < PATIENCE_S
    async with limited(tmp_path, header_timeout_s=SOON_S) as served, peer(served) as stubborn:
        assert (await stubborn.answer())[0] == 408
        await stubborn.cut_off()


async def test_abandoned_connections_leave_nothing_open(tmp_path: Path) -> None:
    async with limited(tmp_path) as served:
        assert (await served.post(EVENT)).status == 201  # what that opens stays open
        before = descriptors()
        for begin in (b"", b"GET /li", HEAD + b"Content-Length: 99\r\n\r\n{", WHOLE):
            for reset in (False, True):
                for _ in range(25):
                    async with peer(served) as gone:
                        gone.send(begin)
                        await gone.writer.drain()
                        if reset:
                            endpoint = gone.writer.get_extra_info("socket")
                            linger = struct.pack("ii", 1, 0)
                            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        async with asyncio.timeout(PATIENCE_S):
            while descriptors() > before:  # noqa: ASYNC110  the kernel closes them, unseen
                await asyncio.sleep(0)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_peer_that_never_reads_is_cut_off(tmp_path: Path) -> None:
    bad = b"\n".join([b"nonsense"] * 20_000)
    request = HEAD.replace(b"application/json", NDJSON_TYPE.encode())
    request += b"Content-Length: %d\r\n\r\n" % len(bad) + bad
    chosen = {"reply_timeout_s": SOON_S}
    async with limited(tmp_path, **chosen) as served, peer(served, receive_buffer=4096) as deaf:
        deaf.send(request * 20)
        await deaf.cut_off()


async def test_pipelined_requests_are_answered_in_their_order(tmp_path: Path) -> None:
    async with limited(tmp_path) as served, peer(served) as eager:
        eager.send((WHOLE + LIVEZ) * 200)
        answers = [(await eager.answer())[0] for _ in range(400)]
        assert answers == [201, 200] * 200
        assert served.lines == 200


async def test_fault_in_a_pipeline_ends_it_and_only_what_was_answered_is_stored(
    tmp_path: Path,
) -> None:
    async with limited(tmp_path) as served, peer(served) as eager:
        eager.send(WHOLE + WHOLE + b"no request\r\n\r\n" + WHOLE)
        answers = await eager.ended()
        assert answers.count(b"not HTTP") == 1
        assert answers.endswith(b"}")
        assert served.lines == answers.count(b" 201 ")


async def test_half_closed_peer_is_answered_what_it_asked_whole(tmp_path: Path) -> None:
    async with limited(tmp_path) as served, peer(served) as half:
        half.send(WHOLE * 3)
        half.writer.write_eof()
        assert [(await half.answer())[0] for _ in range(3)] == [201] * 3
        assert await half.ended() == b""


@pytest.mark.parametrize("begin", [b"", WHOLE[:30], WHOLE[:-1]])
async def test_half_closed_peer_with_less_than_a_request_is_closed(
    tmp_path: Path, begin: bytes
) -> None:
    async with limited(tmp_path) as served, peer(served) as half:
        half.send(begin)
        half.writer.write_eof()
        assert b" 201 " not in await half.ended()
        assert served.lines == 0


@pytest.mark.parametrize("token", [b"wrong", TOKEN.encode()])
async def test_body_that_breaks_off_after_its_refusal_leaves_no_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, token: bytes
) -> None:
    head = HEAD.replace(TOKEN.encode(), token).replace(b"application/json", b"text/plain")
    async with limited(tmp_path) as served, peer(served) as rude:
        rude.send(head + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        assert (await rude.answer())[0] in {401, 415}
        rude.send(b"zz\r\n")
        await rude.ended()
        assert served.lines == 0
    assert [record for record in caplog.records if record.exc_info] == []


async def test_announced_bodies_that_do_not_come_take_no_room(tmp_path: Path) -> None:
    room = 8 * 1024 * 1024
    async with (
        limited(tmp_path, bodies_bytes_max=room) as served,
        contextlib.AsyncExitStack() as all_,
    ):
        for announced in (b"Content-Length: %d" % room, b"Transfer-Encoding: chunked") * 4:
            silent = await all_.enter_async_context(peer(served))
            silent.send(HEAD + announced + b"\r\n\r\n")
        assert (await served.post(EVENT)).status == 201
        assert served.lines == 1


async def test_lower_limits_of_bodies_are_kept_and_named(tmp_path: Path) -> None:
    async with limited(tmp_path, body_bytes_max=65_537, body_lines_max=3) as served:
        for chunked in (False, True):
            answer = await served.post_body(b" " * 65_538, NDJSON_TYPE, chunked=chunked)
            assert (answer.status, "65537" in answer.detail) == (413, True)
        answer = await served.post_lines(b"\n" * 4)
        assert (answer.status, "the limit is 3" in answer.detail) == (413, True)
        assert (await served.post_lines(EVENT.rjust(65_536))).receipt.accepted == 1


async def test_body_of_bad_lines_lets_others_through_while_it_is_judged(tmp_path: Path) -> None:
    async with limited(tmp_path) as served:
        slow = asyncio.create_task(served.post_lines(b"x\n" * 100_000))
        others = 0
        while not slow.done():
            assert (await served.ask("GET", "/livez")).status == 200
            others += 1
        assert (await slow).receipt.rejected == 100_000
        assert others > 10


async def test_body_judged_again_behind_known_lines_lets_others_through(tmp_path: Path) -> None:
    async with limited(tmp_path) as served:
        await served.post_lines(EVENT, producer="p")
        body = EVENT + b"\n" + b"x\n" * 50_000 + EVENT
        slow, same = (asyncio.create_task(served.post_lines(body, producer="p")) for _ in range(2))
        receipts = [(await each).receipt for each in (slow, same)]
        assert sorted(r.duplicates for r in receipts) == [1, 50_002]
        assert [len(r.rejections) for r in receipts] == [50_000] * 2
        assert served.lines == 2
