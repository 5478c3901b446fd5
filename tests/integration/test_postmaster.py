"""The embedded server killed under a processor and a reader that use it."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from etl.processor import Processor
from etl.runtime.settings import Settings
from etl.sink.connection import Connector, close
from etl.sink.faults import DatabaseUnavailable
from etl.sink.revenue import RevenueReader
from support.database import Database
from support.embedded import postmaster_of
from support.partitions import Log, random_events
from support.postgres import wait_until_stopped

pytestmark = pytest.mark.asyncio


@pytest.fixture
def directory() -> Iterator[Path]:
    """A data directory with a short path, whose server is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="etl-test-") as temporary:
        path = Path(temporary, "data")
        path.mkdir()
        yield path
        wait_until_stopped(path / "postgres")


@asynccontextmanager
async def looking(settings: Settings) -> AsyncIterator[Database]:
    """The database, as soon as it answers and has our tables."""
    connector = Connector(settings, role="test")
    async with asyncio.timeout(60):
        database = await attempted(connector)
    try:
        yield database
    finally:
        await close(database.connection)
        connector.close()


async def attempted(connector: Connector) -> Database:
    while True:
        try:
            connection = await connector.connect()
        except (DatabaseUnavailable, OSError):
            await asyncio.sleep(0)
            continue
        database = Database(connection)
        if await database.value("SELECT to_regclass('deferred_revenue') IS NOT NULL"):
            await database.watch()
            return database
        await close(connection)


async def test_killed_postmaster_loses_nothing_and_all_come_back(directory: Path) -> None:
    settings = Settings(data_dir=str(directory), poll_interval_ms=5)
    stop = asyncio.Event()
    processor = asyncio.create_task(Processor(settings).run(stop))
    reader = RevenueReader(settings)
    await reader.start()
    lines, totals = random_events(11, count=1000, users=100)
    log = Log(directory)
    for start in range(0, 1000, 500):  # once from a first start, once from a recovery
        async with looking(settings) as database:
            log.append(lines[start : start + 100])
            await database.until_applied(start + 100)
        log.append(lines[start + 100 : start + 500])
        os.kill(postmaster_of(directory / "postgres"), signal.SIGKILL)
        async with looking(settings) as database:
            await database.until_applied(start + 500)
    async with looking(settings) as database:
        assert await database.totals() == totals
    async with asyncio.timeout(30):
        assert await answer(reader, "user1") == totals["user1"]
    assert not processor.done()
    stop.set()
    await processor
    await reader.close()
    log.close()


async def answer(reader: RevenueReader, user: str) -> object:
    while True:
        try:
            return await reader.revenue(user)
        except DatabaseUnavailable:
            await asyncio.sleep(0)
