"""The commit: a chunk counts once, whatever becomes of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from etl.sink import offsets
from etl.sink.chunk import Chunk
from etl.sink.commit import Committer
from etl.sink.deferral import Deferred
from etl.sink.faults import DatabaseUnavailable, GuardError
from etl.sink.offsets import Move, Offset
from support.database import LOG_ID, Database, connected, prepared
from support.hearing import hearing
from support.partitions import ORIGINAL_PARTITION, Log, event, random_events
from support.processing import processor
from support.proxy import proxied

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with prepared(database_url) as database:
        yield database


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    log.close()


def place(line: int, *, done: bool = False) -> Offset:
    return Offset(partition=ORIGINAL_PARTITION, byte=line * 100, line=line, done=done)


def chunk(*lines: bytes, start: int = 0, done: bool = False) -> Chunk:
    made = Chunk()
    after = place(start + len(lines), done=done)
    made.add(Move(before=place(start), after=after), b"".join(lines))
    return made


async def committer(connection: asyncpg.Connection) -> Committer:
    """What a processor that has just started works with."""
    known = await offsets.load(connection, LOG_ID)
    deferred = Deferred()
    await deferred.load(connection)
    return Committer(connection, log_id=LOG_ID, known=known, deferred=deferred)


async def test_first_chunk_of_a_partition_applied_twice_counts_once(
    database: Database, database_url: str
) -> None:
    async with connected(database_url) as one, connected(database_url) as two:
        first, second = await committer(one), await committer(two)
        await first.commit(chunk(event("a", 1)))
        with pytest.raises(GuardError, match="another processor has moved it"):
            await second.commit(chunk(event("a", 1)))
    assert await database.totals() == {"a": 1}


async def test_later_chunk_applied_twice_counts_once(database: Database, database_url: str) -> None:
    async with connected(database_url) as one, connected(database_url) as two:
        await (await committer(one)).commit(chunk(event("a", 1)))
        first, second = await committer(one), await committer(two)
        await first.commit(chunk(event("a", 2), start=1))
        with pytest.raises(GuardError, match="byte 100, line 1"):
            await second.commit(chunk(event("a", 2), start=1))
    assert await database.totals() == {"a": 3}
    assert await database.applied() == 2


async def test_done_partition_takes_nothing_more(database: Database, database_url: str) -> None:
    async with connected(database_url) as one, connected(database_url) as two:
        await (await committer(one)).commit(chunk(event("a", 1)))
        zombie = await committer(two)
        await (await committer(one)).commit(chunk(start=1, done=True))
        with pytest.raises(GuardError):
            await zombie.commit(chunk(event("a", 1), start=1))
    assert await database.totals() == {"a": 1}


async def test_commits_at_once_of_the_same_chunk_count_once(
    database: Database, database_url: str
) -> None:
    for start in range(20):
        async with connected(database_url) as one, connected(database_url) as two:
            rivals = [await committer(one), await committer(two)]
            made = chunk(event("a", 1), event("b", 1), start=start * 2)
            results = await asyncio.gather(
                *(rival.commit(made) for rival in rivals), return_exceptions=True
            )
        assert results.count(None) == 1, results
    assert await database.totals() == {"a": 20, "b": 20}


async def test_offset_locked_by_a_rival_is_no_users_affair(
    database: Database, database_url: str
) -> None:
    async with connected(database_url) as one, connected(database_url) as two:
        await (await committer(one)).commit(chunk(event("a", 1)))
        await two.execute("SET lock_timeout = '50ms'")
        async with one.transaction():
            await one.execute("SELECT * FROM partition_offsets FOR UPDATE")
            with pytest.raises(DatabaseUnavailable, match="lock timeout"):
                await (await committer(two)).commit(chunk(event("a", 1), start=1))
    assert await database.true_totals() == {"a": 1}


async def test_lost_reply_to_commit_counts_once(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    lines, totals = random_events(3, count=300, users=20)
    async with proxied(database_url) as proxy, processor(tmp_path, proxy.url):
        for start in range(0, 300, 30):
            proxy.lose_replies = 1
            log.append(lines[start : start + 30])
            await database.until_applied(start + 30)
        log.append([event("fresh", 1)])
        await database.until_applied(301)
    assert proxy.replies_lost == 10
    assert await database.totals() == totals | {"fresh": 1}


async def test_commit_that_never_arrived_is_applied_again(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    lines, totals = random_events(4, count=300, users=20)
    async with proxied(database_url) as proxy, processor(tmp_path, proxy.url):
        for start in range(0, 300, 30):
            proxy.lose_commits = 1
            log.append(lines[start : start + 30])
            await database.until_applied(start + 30)
    assert proxy.commits_lost == 10
    assert await database.totals() == totals


async def test_backends_terminated_under_load_lose_nothing(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    lines, totals = random_events(5, count=4000, users=300)
    terminate = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE application_name = 'etl processor' AND datname = current_database()"
    )
    terminated = 0
    async with processor(tmp_path, database_url):
        for start in range(0, 4000, 200):
            log.append(lines[start : start + 100])
            await database.until_applied(start + 100)
            log.append(lines[start + 100 : start + 200])
            terminated += await database.value(terminate)
        await database.until_applied(4000)
    assert terminated >= 15
    assert await database.totals() == totals


async def test_read_only_database_is_waited_out_and_said_once(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    name = await database.value("SELECT current_database()")
    read_only = f"ALTER DATABASE {name} SET default_transaction_read_only"
    await database.connection.execute(f"{read_only} = on")
    log.append([event("a", 1)])
    with hearing() as heard:
        async with processor(tmp_path, database_url) as running:
            await heard.until("cannot execute INSERT in a read-only transaction")
            await connected_times(database, 3)
            await database.connection.execute(f"{read_only} = off")
            await database.until_applied(1)
            await heard.until("working again")
            assert not running.task.done()
    assert heard.count("read-only") == 1
    assert heard.count("working") <= 2


async def connected_times(database: Database, times: int) -> None:
    """Wait until the processor has come back so often, by the pids of its backends."""
    pids: set[int] = set()
    async with asyncio.timeout(60):
        while len(pids) < times:
            rows = await database.connection.fetch(
                "SELECT pid FROM pg_stat_activity "
                "WHERE application_name = 'etl processor' AND datname = current_database()"
            )
            pids.update(row["pid"] for row in rows)


async def test_committer_is_of_no_use_after_a_lost_connection(database_url: str) -> None:
    async with prepared(database_url), connected(database_url) as one:
        work = await committer(one)
        one.terminate()
        with pytest.raises(DatabaseUnavailable):
            await work.commit(chunk(event("a", 1)))


async def test_processor_asked_to_stop_while_the_database_is_silent_stops(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    async with proxied(database_url) as proxy, processor(tmp_path, proxy.url) as running:
        log.append([event("a", 1)])
        await database.until_applied(1)
        proxy.silent = True
        log.append([event("a", 1)])
        async with asyncio.timeout(3):
            await running.stopped()
    assert await database.totals() == {"a": 1}
