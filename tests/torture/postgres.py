"""Rows: PostgreSQL that loses replies, ends sessions, refuses, and is in the way."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from support.database import connected
from torture.commit_proxy import CommitProxy, commit_proxy
from torture.http_proxy import Odds, http_proxy, pass_time
from torture.rows import Row
from torture.trial import Trial, Vacuous, World

EVENTS = 40_000
# Slow and in small pieces, so that there are many commits to strike.
SMALLEST = "10"
SLOW = Odds(delay_s=0.06)
TERMINATE_EVERY_S = 0.05
TERMINATIONS = 120

TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name LIKE 'etl %' AND datname = current_database()
"""


@contextlib.asynccontextmanager
async def flowing(
    trial: Trial, *, events: int = EVENTS, url: str = "", seen_url: str = ""
) -> AsyncIterator[World]:
    """A pipeline in which events flow slowly; `seen_url` is where it finds its database."""
    url = url or await trial.new_database()
    truth = trial.truth(events=events)
    async with trial.world(
        truth, database_url=url, ETL_BATCH_EVENTS=SMALLEST, DATABASE_URL=seen_url or url
    ) as world:
        await world.run.start("server", "processor")
        async with http_proxy(world.run.port, trial.chance) as slow:
            slow.odds = SLOW
            world.run.server_url = slow.url
            await world.run.start("client")
            await world.until_part(0.01)
            yield world


@contextlib.asynccontextmanager
async def _proxied(trial: Trial) -> AsyncIterator[tuple[World, CommitProxy]]:
    """A pipeline that reaches its database through a proxy; settled at the end."""
    url = await trial.new_database()
    async with (
        commit_proxy(url, trial.chance) as proxy,
        flowing(trial, url=url, seen_url=proxy.url) as world,
        world.watched(),
    ):
        yield world, proxy
        await world.until_part(0.9)
        proxy.odds = proxy.cut_odds = 0.0
        await world.settle()
        trial.counts += proxy.did


async def lost_commits(trial: Trial) -> None:
    """Commits of which the processor never hears: half of them happened, half did not."""
    async with _proxied(trial) as (world, proxy):
        proxy.odds = 0.4
        await world.until_part(0.9)
        if not proxy.did["COMMIT replies lost"] or not proxy.did["COMMITs lost"]:
            raise Vacuous("no commit was lost")


async def cut_messages(trial: Trial) -> None:
    """The connection ends in the middle of a message, either way."""
    async with _proxied(trial) as (world, proxy):
        proxy.cut_odds = 0.02
        await world.until_part(0.9)
        if not proxy.did["messages cut"]:
            raise Vacuous("no message was cut")


async def terminated(trial: Trial) -> None:
    """Every session of the pipeline is ended every 50 ms."""
    async with flowing(trial) as world, world.watched():
        async with connected(world.url) as admin:
            for _ in range(TERMINATIONS):
                if await world.midway():
                    trial.count("backends terminated", await admin.fetchval(TERMINATE))
                await pass_time(TERMINATE_EVERY_S)
        if not trial.counts["backends terminated"]:
            raise Vacuous("no backend was there to be terminated")
        await world.settle()


ROWS = [
    Row(name="lost-commit-replies", run=lost_commits, trials=10, short=True),
    Row(name="cut-messages", run=cut_messages, trials=10),
    Row(name="backends-terminated", run=terminated, trials=10),
]
