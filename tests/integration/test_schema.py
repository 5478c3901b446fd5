"""The schema, on an empty database and on one of the original program."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from etl.sink import schema
from etl.sink.mirror import FILE_NAME
from etl.sink.original import TakeoverError
from etl.sink.schema import SchemaError
from support.database import LOG_ID, Database, connected, nothing_original, prepared
from support.hearing import hearing
from support.partitions import ORIGINAL_PARTITION, event, write_original
from support.processing import processor

pytestmark = pytest.mark.asyncio

ORIGINAL_TABLE = """
    CREATE TABLE users_revenue (user_id varchar(255) PRIMARY KEY, revenue int);
    INSERT INTO users_revenue VALUES ('user1', 27), ('user2', 2147483647), ('empty', NULL)
"""
ORIGINAL_FUNCTION = """
    CREATE FUNCTION upsert_user_revenue(p_user_id varchar, p_revenue int) RETURNS void
    LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO users_revenue VALUES (p_user_id, p_revenue)
        ON CONFLICT (user_id) DO UPDATE SET revenue = users_revenue.revenue + p_revenue;
    END $$
"""
ORIGINAL_PROCEDURE = """
    CREATE PROCEDURE upsert_user_revenue(_id varchar(255), _sum int)
    LANGUAGE sql AS 'INSERT INTO users_revenue VALUES (_id, _sum)'
"""


async def apply(connection: asyncpg.Connection) -> None:
    await schema.apply(connection, log_id=LOG_ID, take_over=nothing_original)


async def test_schema_applied_twice_changes_nothing(database_url: str) -> None:
    async with connected(database_url) as connection:
        await apply(connection)
        before = await connection.fetch("SELECT * FROM etl_schema_version ORDER BY version")
        await apply(connection)
        after = await connection.fetch("SELECT * FROM etl_schema_version ORDER BY version")
    assert [row["version"] for row in before] == [step.version for step in schema.steps()]
    assert before == after


async def test_processes_that_apply_it_at_once_agree(database_url: str) -> None:
    async def one() -> None:
        async with connected(database_url) as connection:
            await apply(connection)

    await asyncio.gather(*(one() for _ in range(8)))
    async with connected(database_url) as connection:
        count = await connection.fetchval("SELECT count(*) FROM etl_schema_version")
    assert count == len(schema.steps())


@pytest.mark.parametrize("routine", [ORIGINAL_FUNCTION, ORIGINAL_PROCEDURE, "SELECT 1"])
async def test_original_table_is_widened_and_nothing_lost(database_url: str, routine: str) -> None:
    async with connected(database_url) as connection:
        await connection.execute(ORIGINAL_TABLE)
        await connection.execute(routine)
        await apply(connection)
        await connection.execute("SELECT upsert_user_revenue('user2', 0.5)")
        await connection.execute("SELECT upsert_user_revenue($1, $2)", "new", Decimal(3))
        rows = await connection.fetch("SELECT user_id, revenue::text FROM users_revenue")
        collation = await connection.fetchval(
            "SELECT collation_name FROM information_schema.columns "
            "WHERE table_name = 'users_revenue' AND column_name = 'user_id'"
        )
    assert collation == "C"
    assert {row["user_id"]: row["revenue"] for row in rows} == {
        "user1": "27",
        "user2": "2147483647.5",
        "empty": "0",
        "new": "3",
    }


async def test_users_are_told_apart_by_their_bytes(database_url: str) -> None:
    async with prepared(database_url) as database:
        for user in ("a", "A", "ä", "a ", "a\u0308"):
            await database.connection.execute("SELECT upsert_user_revenue($1, 1)", user)
        assert set((await database.totals()).values()) == {1}
        collation = await database.value(
            "SELECT count(*) FROM information_schema.columns "
            "WHERE column_name = 'user_id' AND table_schema = 'public' AND collation_name = 'C'"
        )
        assert collation == 2


async def test_schema_of_a_later_version_is_refused(database_url: str) -> None:
    async with connected(database_url) as connection:
        await apply(connection)
        await connection.execute("INSERT INTO etl_schema_version VALUES (9999, 'later')")
        with pytest.raises(SchemaError, match="version 9999"):
            await apply(connection)


async def test_counts_of_the_original_are_taken_over_once(
    database_url: str, tmp_path: Path
) -> None:
    write_original(tmp_path, [event("user1", 1)] * 5)
    write_original(tmp_path, [event("user1", 10)] * 2, name="server_events_261124090001.jsonl")
    gone = "server_events_261124080000.jsonl"
    counts = {ORIGINAL_PARTITION: 3, gone: 100}
    (tmp_path / FILE_NAME).write_text(json.dumps(counts))
    async with connected(database_url) as connection:
        await connection.execute(ORIGINAL_TABLE)
        with hearing() as heard:
            async with processor(tmp_path, database_url):
                await heard.until("working")
                database = Database(connection)
                await database.watch()
                await database.until_applied(107)
    assert heard.count("taken over from the original program") == 1
    assert json.loads((tmp_path / FILE_NAME).read_text()) == {
        gone: 100,
        ORIGINAL_PARTITION: 5,
        "server_events_261124090001.jsonl": 2,
    }
    async with prepared(database_url) as database:
        assert (await database.totals())["user1"] == 27 + 2 + 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"server_events_261124090000.jsonl":-1}',
        '{"server_events_261124090000.jsonl":"3"}',
        '{"server_events_261124090000.jsonl":6}',
        '{"events.jsonl":3}',
    ],
)
async def test_counts_that_do_not_fit_are_refused_and_nothing_changed(
    database_url: str, tmp_path: Path, text: str
) -> None:
    write_original(tmp_path, [event("user1", 1)] * 5)
    (tmp_path / FILE_NAME).write_text(text)
    async with connected(database_url) as connection:
        await connection.execute(ORIGINAL_TABLE)
        with hearing() as heard:
            async with processor(tmp_path, database_url):
                await heard.until(ORIGINAL_PARTITION if "6}" in text else FILE_NAME)
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        )
        revenue = await connection.fetchval(
            "SELECT revenue FROM users_revenue WHERE user_id = 'user1'"
        )
    assert [row["table_name"] for row in tables] == ["users_revenue"]
    assert revenue == 27
    assert (tmp_path / FILE_NAME).read_text() == text


async def test_file_of_the_original_is_not_read_where_the_schema_is_there(
    database_url: str, tmp_path: Path
) -> None:
    write_original(tmp_path, [event("user1", 1)] * 5)
    (tmp_path / FILE_NAME).write_text(json.dumps({ORIGINAL_PARTITION: 3}))
    async with prepared(database_url) as database:
        async with processor(tmp_path, database_url):
            await database.until_applied(5)
        assert await database.totals() == {"user1": 5}


async def test_new_database_means_the_whole_log_whatever_the_file_says(
    database_url: str, tmp_path: Path
) -> None:
    write_original(tmp_path, [event("user1", 1)] * 5)
    (tmp_path / FILE_NAME).write_text(json.dumps({ORIGINAL_PARTITION: 3}))
    with hearing() as heard:
        async with processor(tmp_path, database_url):
            await heard.until("working")
            async with prepared(database_url) as database:
                await database.until_applied(5)
                assert await database.totals() == {"user1": 5}


async def test_refusal_of_the_take_over_rolls_everything_back(database_url: str) -> None:
    async def refuse() -> None:
        raise TakeoverError("no")

    async with connected(database_url) as connection:
        await connection.execute(ORIGINAL_TABLE)
        with pytest.raises(TakeoverError):
            await schema.apply(connection, log_id=LOG_ID, take_over=refuse)
        assert await connection.fetchval("SELECT to_regclass('partition_offsets')") is None
