"""The processor, from the partitions to the totals."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import pytest_asyncio

from etl.sink.mirror import FILE_NAME
from support.database import Database, prepared
from support.partitions import Log, event, random_events, write_original
from support.processing import processor, processor_process

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


async def test_events_become_exact_totals(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    lines, totals = random_events(1, count=5000, users=700)
    async with processor(tmp_path, database_url):
        for start in range(0, 5000, 500):
            log.append(lines[start : start + 500])
            log.begin_partition()
        await database.until_applied(5000)
    assert await database.totals() == totals


async def test_decimals_are_never_rounded(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    log.append(
        [
            event("ten", "0.1"),
            event("ten", "0.2"),
            event("large", "999999999999999999.999999"),
            event("large", "999999999999999999.999999"),
            event("small", "0.000001", name="subtract_revenue"),
            event("whole", "1e2"),
        ]
    )
    async with processor(tmp_path, database_url):
        await database.until_applied(6)
    assert await database.totals() == {
        "ten": Decimal("0.3"),
        "large": Decimal("1999999999999999999.999998"),
        "small": Decimal("-0.000001"),
        "whole": Decimal(100),
    }
    shown = await database.value("SELECT revenue::text FROM users_revenue WHERE user_id = 'whole'")
    assert shown == "100"


async def test_restart_with_nothing_new_changes_nothing(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    log.append([event("a", 1)])
    log.begin_partition()
    log.append([event("a", 2)])
    async with processor(tmp_path, database_url):
        await database.until_applied(2)
    snapshot = "SELECT json_agg(t ORDER BY t::text)::text FROM (SELECT xmin::text, * FROM {}) AS t"
    tables = ("users_revenue", "partition_offsets", "deferred_revenue", "dead_letters")
    before = [await database.value(snapshot.format(table)) for table in tables]
    async with processor(tmp_path, database_url) as running:
        log.append([event("b", 1)])
        await database.until_applied(3)
    assert [chunk.lines for chunk in running.chunks] == [1]
    assert await database.totals() == {"a": 3, "b": 1}
    assert before[0] is not None
    assert before[0][1:-1] in await database.value(snapshot.format("users_revenue"))


async def test_processor_killed_at_random_moments_counts_every_event_once(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    lines, totals = random_events(2, count=4000, users=50)
    for start in range(0, 4000, 400):
        log.append(lines[start : start + 200])
        log.begin_partition()
        with processor_process(tmp_path, database_url) as process:
            await database.until_applied(start + 200)
            log.append(lines[start + 200 : start + 400])
            process.send_signal(signal.SIGKILL)
    async with processor(tmp_path, database_url):
        await database.until_applied(4000)
    assert await database.totals() == totals


async def test_sigterm_ends_it_with_exit_code_0_and_a_true_mirror(
    database: Database, database_url: str, log: Log, tmp_path: Path
) -> None:
    log.append([event("a", 1)] * 100)
    with processor_process(tmp_path, database_url) as process:
        await database.until_applied(100)
        process.terminate()
        assert process.wait(timeout=3) == 0
    assert sum(json.loads((tmp_path / FILE_NAME).read_text()).values()) == 100


async def test_lines_of_the_original_server_that_are_no_events_become_dead_letters(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    path = write_original(
        tmp_path,
        [event("a", 1), b"not json\n", b"\n", event("a", "true"), event("a", 5), b'{"torn":'],
    )
    async with processor(tmp_path, database_url):
        await database.until_applied(5)
    rows = await database.connection.fetch(
        "SELECT partition, line, reason, text, bytes FROM dead_letters ORDER BY line"
    )
    assert [(row["partition"], row["line"], row["bytes"]) for row in rows] == [
        (path.name, 2, 8),
        (path.name, 4, len(event("a", "true")) - 1),
    ]
    assert rows[0]["text"] == b"not json"
    assert "boolean" in rows[1]["reason"] or "true" in rows[1]["reason"]
    assert await database.totals() == {"a": 6}


async def test_two_logs_in_one_database_are_told_apart(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        log = Log(directory)
        log.append([event("a", 1)])
        log.close()
        async with processor(directory, database_url):
            await database.until_applied(1 if name == "one" else 2)
    assert await database.totals() == {"a": 2}
    assert await database.value("SELECT count(DISTINCT log_id) FROM partition_offsets") == 2
