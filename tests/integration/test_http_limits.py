"""Peers that are slow, silent, many or gone: each meets a limit, and others are served on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from etl.core.wire import NDJSON_TYPE
from etl.web.connection import LINGER_S
from support.peers import EVENT, HEAD, LIVEZ, PATIENCE_S, SOON_S, WHOLE, limited, peer

pytestmark = pytest.mark.asyncio


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
