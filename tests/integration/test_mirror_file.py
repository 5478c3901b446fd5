"""`processor_offset.json` follows the database, whatever stood there before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from watchfiles import awatch

from etl.sink.mirror import FILE_NAME, OLDER
from support.database import Database, prepared
from support.hearing import hearing
from support.partitions import Log, event
from support.processing import processor

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


def total(directory: Path) -> int:
    return sum(json.loads((directory / FILE_NAME).read_bytes()).values())


def temporaries(directory: Path) -> list[Path]:
    return list(directory.glob("*.tmp"))


async def until_total(directory: Path, expected: int) -> None:
    async with asyncio.timeout(30):
        stop = asyncio.Event()
        async for _ in awatch(
            directory, stop_event=stop, step=5, debounce=5, rust_timeout=100, yield_on_timeout=True
        ):
            if total(directory) == expected:
                stop.set()


@pytest.mark.parametrize("text", ["", "{torn", '{"server_events_250101000000.jsonl":999}'])
async def test_start_rewrites_it_from_the_database(
    database: Database, database_url: str, log: Log, tmp_path: Path, text: str
) -> None:
    log.append([event("a", 1)] * 3)
    async with processor(tmp_path, database_url):
        await database.until_applied(3)
    (tmp_path / FILE_NAME).write_text(text)
    with hearing() as heard:
        async with processor(tmp_path, database_url):
            await heard.until("working")
    assert total(tmp_path) == 3
    assert await database.totals() == {"a": 3}


async def test_it_is_true_before_the_processor_is_idle(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    async with processor(tmp_path, database_url):
        for number in range(1, 30):
            log.append([event("a", 1)])
            await database.until_applied(number)
        await until_total(tmp_path, 29)


async def test_its_sum_holds_with_more_partitions_than_it_names(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    count = 1_030
    for _ in range(count):
        log.append([event("a", 1)])
        log.begin_partition()
    async with processor(tmp_path, database_url):
        await database.until_applied(count)
    before = json.loads((tmp_path / FILE_NAME).read_bytes())
    async with processor(tmp_path, database_url):
        log.append([event("a", 1)])
        await database.until_applied(count + 1)
    after = json.loads((tmp_path / FILE_NAME).read_bytes())
    assert (sum(before.values()), sum(after.values())) == (count, count + 1)
    assert (before[OLDER], after[OLDER]) == (count - 1_001, count - 1_000)
    assert len(before) == len(after) == 1_002
    assert temporaries(tmp_path) == []
