"""Two processors on one directory."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from etl.runtime.files import Lock
from etl.sink.turn import LOCK_FILE_NAME
from support.database import Database, prepared
from support.hearing import hearing
from support.partitions import Log, event, random_events
from support.processing import processor, processor_process
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


async def test_second_processor_stands_by_until_the_first_is_killed(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    with processor_process(tmp_path, database_url) as first, hearing() as heard:
        log.append([event("a", 1)])
        await database.until_applied(1)
        async with processor(tmp_path, database_url) as second:
            await heard.until("standing by")
            log.append([event("a", 2)])
            await database.until_applied(2)
            assert second.chunks == []
            first.kill()
            log.append([event("a", 4)])
            await database.until_applied(3)
            assert heard.count("the lock is free") == 1
        assert [chunk.lines for chunk in second.chunks] == [1]
    assert await database.totals() == {"a": 7}


async def test_frozen_processor_is_replaced_and_applies_nothing_when_it_wakes(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    lines, totals = random_events(9, count=2000, users=40)
    with processor_process(tmp_path, database_url) as first, hearing() as heard:
        log.append(lines[:100])
        await database.until_applied(100)
        first.send_signal(signal.SIGSTOP)
        async with processor(tmp_path, database_url):
            log.append(lines[100:1000])
            await database.until_applied(1000)
            assert heard.count("taking over without the lock") == 1
            first.send_signal(signal.SIGCONT)
            for start in range(1000, 2000, 50):
                log.append(lines[start : start + 50])
                await database.until_applied(start + 50)
    assert await database.totals() == totals


async def test_one_that_lost_its_turn_leaves_the_lock_to_the_other(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    with hearing() as heard:
        lock = Lock(tmp_path / LOCK_FILE_NAME, role="processor").acquire()
        async with processor(tmp_path, database_url) as running:
            log.append([event("a", 1)])
            await database.until_applied(1)
            assert heard.count("taking over without the lock") == 1
            await database.connection.execute("UPDATE partition_offsets SET lines = 7")
            log.append([event("a", 1)])
            await heard.until("stepping back")
            await heard.until("standing by", times=2)
            await database.connection.execute("UPDATE partition_offsets SET lines = 1")
            lock.release()
            await database.until_applied(2)
        assert len(running.chunks) == 2
    assert await database.totals() == {"a": 2}


async def test_two_at_work_at_once_count_every_event_once(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    lines, totals = random_events(10, count=1500, users=40)
    lock = Lock(tmp_path / LOCK_FILE_NAME, role="processor").acquire()
    log.append(lines[:500])
    async with processor(tmp_path, database_url), processor(tmp_path, database_url):
        for start in range(500, 1500, 100):
            log.append(lines[start : start + 100])
            log.begin_partition()
        await database.until_applied(1500)
    lock.release()
    assert await database.totals() == totals


async def test_stop_ends_a_stand_by(database: Database, database_url: str, tmp_path: Path) -> None:
    lock = Lock(tmp_path / LOCK_FILE_NAME, role="processor").acquire()
    with hearing() as heard:
        async with processor(tmp_path, database_url) as running:
            await heard.until("standing by")
            async with asyncio.timeout(3):
                await running.stopped()
    lock.release()


async def test_locks_of_one_that_froze_inside_a_transaction_are_freed(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    async with proxied(database_url) as proxy:
        proxy.silent_from = b"upsert_users_revenue"
        async with processor(tmp_path, proxy.url) as first:
            log.append([event("a", 2)])
            await proxy.fell_silent.wait()
            async with processor(tmp_path, database_url) as second:
                await database.until_applied(1)
            proxy.cut_all()
        assert first.chunks == []
        assert [chunk.lines for chunk in second.chunks] == [1]
    assert await database.totals() == {"a": 2}
