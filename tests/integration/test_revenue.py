"""What the server reads of the database: true totals, or a word that it is away, soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from etl.sink.faults import DatabaseUnavailable
from etl.sink.revenue import RevenueReader
from support.database import prepared
from support.hearing import hearing
from support.processing import settings
from support.proxy import proxied

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def reading(
    directory: Path, url: str, *, answers: bool = True
) -> AsyncIterator[RevenueReader]:
    reader = RevenueReader(settings(directory, url))
    with hearing() as heard:
        await reader.start()
        try:
            if answers:
                await heard.until("database answers")
            yield reader
        finally:
            await reader.close()


async def test_total_includes_what_is_deferred(database_url: str, tmp_path: Path) -> None:
    async with prepared(database_url) as database, reading(tmp_path, database_url) as reader:
        await database.connection.execute(
            "INSERT INTO users_revenue VALUES ('both', 1.5), ('applied', 2);"
            "INSERT INTO deferred_revenue (user_id, delta, reason) "
            "VALUES ('both', -0.1, 'locked'), ('both', -0.1, 'locked'), ('waiting', 7, 'locked')"
        )
        assert await reader.revenue("both") == Decimal("1.3")
        assert await reader.revenue("applied") == 2
        assert await reader.revenue("waiting") == 7
        assert await reader.revenue("nobody") is None


@pytest.mark.parametrize(
    "user", ["a/b", "a'; DROP TABLE users_revenue; --", "😀", "%00", "ä" * 255]
)
async def test_any_id_is_only_an_id(database_url: str, tmp_path: Path, user: str) -> None:
    async with prepared(database_url) as database, reading(tmp_path, database_url) as reader:
        assert await reader.revenue(user) is None
        await database.connection.execute("SELECT upsert_user_revenue($1, 1)", user)
        assert await reader.revenue(user) == 1


@pytest.mark.parametrize("user", ["a\0b", "\ud800", "x" * 100_000])
async def test_id_that_no_user_can_have_is_nobody(
    database_url: str, tmp_path: Path, user: str
) -> None:
    async with prepared(database_url), reading(tmp_path, database_url) as reader:
        assert await reader.revenue(user) is None
        assert await reader.ping()


async def test_database_without_schema_is_unavailable_and_then_answers(
    database_url: str, tmp_path: Path
) -> None:
    async with reading(tmp_path, database_url) as reader:
        for _ in range(10):
            with pytest.raises(DatabaseUnavailable):
                await reader.revenue("a")
        assert await reader.ping()
        async with prepared(database_url):
            assert await reader.revenue("a") is None


async def test_database_that_is_away_is_said_at_once(tmp_path: Path) -> None:
    url = f"postgresql://nobody@/nothing?host={tmp_path}"
    async with reading(tmp_path, url, answers=False) as reader:
        async with asyncio.timeout(0.5):
            with pytest.raises(DatabaseUnavailable, match="away"):
                await reader.revenue("a")
        assert not await reader.ping()


async def test_more_requests_than_connections_are_all_answered(
    database_url: str, tmp_path: Path
) -> None:
    async with prepared(database_url), reading(tmp_path, database_url) as reader:
        answers = await asyncio.gather(*(reader.revenue(str(n)) for n in range(200)))
    assert answers == [None] * 200


async def test_silent_database_is_given_up_within_two_seconds_and_comes_back(
    database_url: str, tmp_path: Path
) -> None:
    async with (
        prepared(database_url),
        proxied(database_url) as proxy,
        reading(tmp_path, proxy.url) as reader,
    ):
        proxy.silent = True
        async with asyncio.timeout(2):
            with pytest.raises(DatabaseUnavailable):
                await reader.revenue("a")
        proxy.silent = False
        proxy.cut_all()
        async with asyncio.timeout(30):
            await recovered(reader)


async def recovered(reader: RevenueReader) -> None:
    while True:
        try:
            await reader.revenue("a")
        except DatabaseUnavailable:
            await asyncio.sleep(0)
        else:
            return
