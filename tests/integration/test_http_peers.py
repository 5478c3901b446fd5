"""Pipelines, peers that closed their half, bodies that break off, and how bodies share the room."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from etl.core.wire import NDJSON_TYPE
from support.peers import EVENT, HEAD, LIVEZ, WHOLE, limited, peer
from support.serving import TOKEN

pytestmark = pytest.mark.asyncio


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
