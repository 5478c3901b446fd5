"""A user whose row can't be had holds up nobody else, and loses nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from etl.sink import careful, commit, deferral
from support.database import Database, connected, prepared
from support.hearing import hearing
from support.partitions import Log, event, random_events
from support.processing import processor

pytestmark = pytest.mark.asyncio

DEFERRED = "SELECT count(*) FROM deferred_revenue"


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with prepared(database_url) as database:
        yield database


@pytest_asyncio.fixture
async def stranger(database: Database, database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Another program on the same database."""
    async with connected(database_url) as connection:
        yield connection


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    log.close()


async def test_locked_user_is_deferred_while_all_others_go_on(
    database: Database,
    database_url: str,
    stranger: asyncpg.Connection,
    log: Log,
    tmp_path: Path,
) -> None:
    lines, totals = random_events(6, count=3000, users=100)
    async with processor(tmp_path, database_url) as running:
        log.append([event(f"user{n}", 0) for n in range(100)])
        await database.until_applied(100)
        async with stranger.transaction():
            await stranger.execute("UPDATE users_revenue SET revenue = 5 WHERE user_id = 'user7'")
            for start in range(0, 3000, 100):
                log.append(lines[start : start + 100])
                await database.until_applied(start + 200)
            assert await database.deferred() == {"user7": totals["user7"]}
            assert await database.true_totals() == totals
        await database.until(DEFERRED, 0)
        assert not running.task.done()
    assert await database.totals() == totals | {"user7": totals["user7"] + 5}


async def test_locked_user_slows_down_one_chunk_only(
    database: Database,
    database_url: str,
    stranger: asyncpg.Connection,
    log: Log,
    tmp_path: Path,
) -> None:
    with hearing() as heard:
        async with processor(tmp_path, database_url), stranger.transaction():
            log.append([event("a", 1)])
            await database.until_applied(1)
            await stranger.execute("SELECT * FROM users_revenue FOR UPDATE")
            for applied in range(2, 42):
                log.append([event("a", 1)])
                await database.until_applied(applied)
    assert heard.count("users deferred") == 1


async def test_deferred_total_survives_a_restart(
    database: Database,
    database_url: str,
    stranger: asyncpg.Connection,
    log: Log,
    tmp_path: Path,
) -> None:
    log.append([event("a", "1.5"), event("b", 1)])
    async with processor(tmp_path, database_url):
        await database.until_applied(2)
    async with stranger.transaction():
        await stranger.execute("SELECT * FROM users_revenue WHERE user_id = 'a' FOR UPDATE")
        log.append([event("a", "0.1")])
        async with processor(tmp_path, database_url):
            await database.until(DEFERRED, 1)
        log.append([event("a", "0.2")])
        async with processor(tmp_path, database_url):
            await database.until_applied(4)
            assert await database.deferred() == {"a": Decimal("0.3")}
    async with processor(tmp_path, database_url):
        await database.until(DEFERRED, 0)
    assert await database.totals() == {"a": Decimal("1.8"), "b": 1}


@pytest.mark.parametrize(
    "refusal",
    [
        "ALTER TABLE users_revenue ADD CHECK (revenue >= 0) NOT VALID",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.revenue < 0 THEN RAISE EXCEPTION 'below zero'; END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON users_revenue "
        "FOR EACH ROW EXECUTE FUNCTION refuse()",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.revenue < 0 THEN RAISE EXCEPTION 'below' USING ERRCODE = 'ZZ001'; END IF; "
        "RETURN NEW; END $$; CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE "
        "ON users_revenue DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
    ids=["constraint", "trigger", "at commit"],
)
async def test_refused_users_stand_alone(
    database: Database,
    database_url: str,
    log: Log,
    tmp_path: Path,
    refusal: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commit, "CHUNK_BUDGET_S", 60.0)  # on a busy machine whole groups would wait
    await database.connection.execute(refusal)
    lines, totals = random_events(7, count=1000, users=300)
    async with processor(tmp_path, database_url):
        log.append(lines)
        await database.until_applied(1000)
        below = {user: total for user, total in totals.items() if total < 0}
        assert await database.deferred() == below
        assert await database.totals() == {u: t for u, t in totals.items() if t >= 0}
        log.append([event(user, -2 * total) for user, total in below.items()])
        await database.until(DEFERRED, 0)
    assert await database.totals() == {user: abs(total) for user, total in totals.items()}


async def test_new_user_whom_someone_else_is_just_inserting_is_deferred_alone(
    database: Database,
    database_url: str,
    stranger: asyncpg.Connection,
    log: Log,
    tmp_path: Path,
) -> None:
    lines, totals = random_events(8, count=1000, users=300)
    async with processor(tmp_path, database_url):
        async with stranger.transaction():
            await stranger.execute("INSERT INTO users_revenue VALUES ('user9', 7)")
            log.append(lines)
            await database.until_applied(1000)
            assert await database.deferred() == {"user9": totals["user9"]}
        await database.until(DEFERRED, 0)
    assert await database.totals() == totals | {"user9": totals["user9"] + 7}


@pytest.mark.parametrize("mode", ["ACCESS EXCLUSIVE", "SHARE"])
async def test_lock_on_the_whole_table_is_waited_out(
    database: Database,
    database_url: str,
    stranger: asyncpg.Connection,
    log: Log,
    tmp_path: Path,
    mode: str,
) -> None:
    with hearing() as heard:
        async with processor(tmp_path, database_url):
            async with stranger.transaction():
                await stranger.execute(f"LOCK TABLE users_revenue IN {mode} MODE")
                log.append([event("a", 1)])
                await heard.until("lock timeout")
            await database.until_applied(1)
    assert await database.deferred() == {}
    assert await database.totals() == {"a": 1}
    assert heard.count("lock timeout") == 1


async def test_search_for_the_users_at_fault_ends_when_its_time_is_up(
    database: Database, stranger: asyncpg.Connection
) -> None:
    deltas = {f"user{n:04}": n for n in range(1000)}
    async with stranger.transaction():
        await stranger.execute("INSERT INTO users_revenue VALUES ('user0500', 0)")
        async with database.connection.transaction():
            refused = await careful.upsert_carefully(database.connection, deltas, budget_s=0)
    assert refused.keys() == deltas.keys()
    assert await database.totals() == {"user0500": 0}


async def test_locked_rows_are_found_without_a_search(
    database: Database, stranger: asyncpg.Connection
) -> None:
    await database.connection.execute(
        "INSERT INTO users_revenue SELECT 'user' || n, 0 FROM generate_series(1, 100) AS n"
    )
    deltas = {f"user{n}": 1_000_000 for n in range(1, 201)}
    async with stranger.transaction():
        rows = await stranger.fetch("SELECT user_id FROM users_revenue LIMIT 40 FOR UPDATE")
        async with database.connection.transaction():
            refused = await careful.upsert_carefully(database.connection, deltas, budget_s=0)
    assert refused.keys() == {row["user_id"] for row in rows}
    assert sum((await database.totals()).values()) == 160


async def test_a_stranger_who_locks_deferred_rows_holds_up_nobody(
    database: Database,
    database_url: str,
    stranger: asyncpg.Connection,
    log: Log,
    tmp_path: Path,
) -> None:
    await database.connection.execute(
        "ALTER TABLE users_revenue ADD CONSTRAINT never CHECK (user_id <> 'bad')"
    )
    async with processor(tmp_path, database_url):
        log.append([event("bad", 1)])
        await database.until(DEFERRED, 1)
        async with stranger.transaction():
            await stranger.execute("SELECT * FROM deferred_revenue FOR UPDATE")
            for value in (2, 3):
                log.append([event("good", value), event("bad", value)])
                await database.until_applied(2 * value - 1)
            assert await database.totals() == {"good": 5}
            assert await database.deferred() == {"bad": 6}
        await database.connection.execute("ALTER TABLE users_revenue DROP CONSTRAINT never")
        await database.until(DEFERRED, 0)
    assert await database.totals() == {"good": 5, "bad": 6}


async def test_users_beyond_what_is_remembered_do_not_wait_for_one_that_stays_refused(
    database: Database,
    database_url: str,
    log: Log,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deferral, "REMEMBERED_MAX", 4)
    monkeypatch.setattr(deferral, "FIRST_PAUSE_S", 0.05)
    await database.connection.execute(
        "ALTER TABLE users_revenue ADD CONSTRAINT never CHECK (revenue < 10)"
    )
    async with processor(tmp_path, database_url):
        log.append([event(f"user{n}", 10) for n in range(12)])
        await database.until("SELECT count(DISTINCT user_id) FROM deferred_revenue", 12)
        await database.connection.execute(
            "ALTER TABLE users_revenue DROP CONSTRAINT never, "
            "ADD CONSTRAINT only_one CHECK (user_id <> 'user3')"
        )
        await database.until("SELECT count(DISTINCT user_id) FROM deferred_revenue", 1)
    assert len(await database.totals()) == 11
