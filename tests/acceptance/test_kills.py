"""Whatever is killed, every event counts exactly once."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from support.database import Database, prepared
from support.oracle import random_source, totals
from support.pipeline import ROLES, Pipeline, pipeline

EVENTS = 200_000
KILLS = 5
# Small requests make the window wide in which some, not all, events are through.
SMALL = {"ETL_BATCH_EVENTS": "400"}

_APPLIED_AT_LEAST = "SELECT coalesce(sum(lines), 0) >= $1 FROM partition_offsets"


async def _check_exact(run: Pipeline, database: Database, source: bytes) -> None:
    """Check the laws that hold when all is drained."""
    sent = source.splitlines()
    assert [line.partition(b',"_batch"')[0].rstrip(b"}") for line in run.stored()] == [
        line.rstrip(b"}") for line in sent
    ]
    assert await database.true_totals() == totals(sent)
    assert await database.deferred() == {}
    assert await database.applied() == len(sent)
    assert (run.data / "dead_letters.jsonl").read_bytes() == b""
    assert run.faults() == []
    assert list(run.data.glob("*.tmp")) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("victims", [("server",), ("processor",), ("client",), ROLES])
async def test_a_killed_process_loses_and_doubles_nothing(
    tmp_path: Path, database_url: str, victims: tuple[str, ...]
) -> None:
    source = random_source(len(victims) * 31 + len(victims[0]), events=EVENTS, users=500)
    async with (
        prepared(database_url) as database,
        pipeline(tmp_path, database_url, **SMALL) as run,
    ):
        run.write_source(source)
        await run.start(*ROLES)
        for kill in range(KILLS):
            await database.until(_APPLIED_AT_LEAST, True, EVENTS * (kill + 1) // (KILLS + 2))
            await run.kill(*victims)
            assert 0 < await database.applied() < EVENTS, "the kill came too late to matter"
            await run.start(*victims)
        await database.until_applied(EVENTS)
        await run.roles["client"].said("is finished")
        await _check_exact(run, database, source)


@pytest.mark.asyncio
async def test_processes_killed_in_turn_while_others_recover_lose_nothing(
    tmp_path: Path, database_url: str
) -> None:
    source = random_source(7, events=EVENTS, users=500)
    async with (
        prepared(database_url) as database,
        pipeline(tmp_path, database_url, **SMALL) as run,
    ):
        run.write_source(source)
        await run.start(*ROLES)
        for step, (first, second) in enumerate(itertools.permutations(ROLES, 2)):
            await database.until(_APPLIED_AT_LEAST, True, EVENTS * (step + 1) // 8)
            await run.kill(first)
            await run.start(first)
            await run.kill(second)
            await run.start(second)
        await database.until_applied(EVENTS)
        await run.roles["client"].said("is finished")
        await _check_exact(run, database, source)


@pytest.mark.asyncio
async def test_a_stop_ends_all_three_cleanly_and_a_start_goes_on(
    tmp_path: Path, database_url: str
) -> None:
    source = random_source(11, events=EVENTS, users=500)
    async with (
        prepared(database_url) as database,
        pipeline(tmp_path, database_url, **SMALL) as run,
    ):
        run.write_source(source)
        await run.start(*ROLES)
        await database.until(_APPLIED_AT_LEAST, True, EVENTS // 4)
        assert await run.stop(*ROLES) == dict.fromkeys(ROLES, 0)
        assert 0 < await database.applied() < EVENTS
        await run.start(*ROLES)
        await database.until_applied(EVENTS)
        await run.roles["client"].said("is finished")
        assert await run.stop(*ROLES) == dict.fromkeys(ROLES, 0)
        await _check_exact(run, database, source)
