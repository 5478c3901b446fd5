"""The corpus of raw HTTP, of producers' headers and of paths, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import orjson
import pytest
import pytest_asyncio

from corpus import EXCHANGES, PATHS, SENDERS, Exchange
from corpus.case import PLAIN
from etl.sink import schema
from fuzz import http
from support.serving import TOKEN, Served, serving

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as server:
        yield server


async def exchanged(served: Served, exchange: Exchange) -> list[int]:
    """Send what the case says, and return the statuses of all answers, each a whole response."""
    reader, writer = await asyncio.open_connection(served.host, served.port)
    found: list[int] = []
    try:
        writer.write(exchange.sent)
        async with asyncio.timeout(30):
            while exchange.final or len(found) < len(exchange.statuses):
                answer = await http.response(reader)
                if answer is None:
                    break
                found.append(answer.status)
    finally:
        writer.close()
    return found


async def test_each_connection_is_answered_as_the_corpus_says(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    for exchange in EXCHANGES:
        before = served.lines
        found = await exchanged(served, exchange)
        # What is broken may be found before what stands in front of it was begun.
        expected = [[*exchange.statuses], [*exchange.statuses][-1:] if exchange.final else []]
        assert (exchange.name, found in expected) == (exchange.name, True), found
        assert (exchange.name, served.lines - before) == (exchange.name, found.count(201))
    assert b"hidden" not in served.stored
    assert [record for record in caplog.records if record.exc_info] == []
    assert TOKEN not in caplog.text


async def test_each_producer_is_taken_or_refused_as_the_corpus_says(served: Served) -> None:
    for sender in SENDERS:
        before = served.lines
        head = [
            b"POST /liveEvent HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close",
            b"Authorization: " + TOKEN.encode(),
            b"Content-Type: application/x-ndjson\r\nContent-Length: %d" % len(PLAIN),
            *sender.fields,
        ]
        answer = await served.raw(b"\r\n".join([*head, b"", PLAIN]))
        assert (sender.name, answer.status) == (sender.name, sender.status)
        assert (sender.name, served.lines - before) == (sender.name, sender.status == 200)
        if sender.status == 400:
            assert "Producer-" in answer.detail or "sequence" in answer.detail, sender.name


async def nothing() -> None:
    return None


async def test_each_path_asks_for_the_user_that_the_corpus_says(
    tmp_path: Path, database_url: str
) -> None:
    users = sorted({path.user_id for path in PATHS if path.user_id is not None})
    connection = await asyncpg.connect(database_url)
    try:
        await schema.apply(connection, log_id="0" * 32, take_over=nothing)
        await connection.executemany(
            "SELECT upsert_user_revenue($1, $2::text::numeric)",
            [(user_id, f"{number}.5") for number, user_id in enumerate(users)],
        )
    finally:
        await connection.close()
    async with serving(tmp_path, database_url=database_url) as server:
        async with asyncio.timeout(30):
            while (await server.ask("GET", "/readyz")).status != 200:
                pass  # every answer lets the connecting go on
        for path in PATHS:
            answer = await server.raw(
                b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % path.target
            )
            expected = []
            if path.user_id is not None:
                revenue = users.index(path.user_id) + 0.5
                expected = [{"user_id": path.user_id, "revenue": revenue}]
            assert (path.name, answer.status) == (path.name, 200)
            assert (path.name, orjson.loads(answer.body)) == (path.name, expected)
