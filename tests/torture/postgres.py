"""Rows: PostgreSQL that loses replies, ends sessions, refuses, and is in the way."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from support.database import connected
from torture.commit_proxy import CommitProxy, commit_proxy
from torture.databases import ROWS as DATABASES
from torture.flow import flowing
from torture.http_proxy import pass_time
from torture.own_postgres import own_postgres
from torture.rivals import ROWS as RIVALS
from torture.rivals import TERMINATE
from torture.rows import Row
from torture.trial import Trial, Vacuous, World

EVENTS = 40_000
TERMINATE_EVERY_S = 0.05
TERMINATIONS = 120
KILLS = 6
FREEZES = 2
FROZEN_S = (1.5, 4.0)


@contextlib.asynccontextmanager
async def _proxied(trial: Trial) -> AsyncIterator[tuple[World, CommitProxy]]:
    """A pipeline that reaches its database through a proxy; settled at the end."""
    url = await trial.new_database()
    async with (
        commit_proxy(url, trial.chance) as proxy,
        flowing(trial, events=EVENTS, url=url, seen_url=proxy.url) as world,
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
        proxy.odds = 0.6
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
    async with flowing(trial, events=EVENTS) as world, world.watched():
        async with connected(world.url) as admin:
            for _ in range(TERMINATIONS):
                if await world.midway():
                    trial.count("backends terminated", await admin.fetchval(TERMINATE))
                await pass_time(TERMINATE_EVERY_S)
        if not trial.counts["backends terminated"]:
            raise Vacuous("no backend was there to be terminated")
        await world.settle()


async def killed(trial: Trial) -> None:
    """The postmaster is killed again and again while transactions are under way."""
    async with (
        own_postgres(trial.directory / "postgres") as server,
        contextlib.AsyncExitStack() as connections,
        flowing(trial, events=EVENTS, url=server.url) as world,
    ):
        for number in range(KILLS):
            await world.until_part(0.9 * (number + trial.chance.random()) / KILLS)
            trial.count("PostgreSQL kills", int(await world.midway()))
            await server.kill()
            await server.answers()
            await connections.enter_async_context(world.looking_at(server.url))
            await world.online()
        if not trial.counts["PostgreSQL kills"]:
            raise Vacuous("no kill came midway")
        await world.settle()


async def frozen(trial: Trial) -> None:
    """All processes of PostgreSQL stand still for seconds."""
    async with (
        own_postgres(trial.directory / "postgres") as server,
        flowing(trial, events=EVENTS, url=server.url) as world,
        world.watched(),
    ):
        for number in range(FREEZES):
            await world.until_part(0.9 * (number + trial.chance.random()) / FREEZES)
            trial.count("PostgreSQL freezes", int(await world.midway()))
            with server.frozen():
                await pass_time(trial.chance.uniform(*FROZEN_S))
        if not trial.counts["PostgreSQL freezes"]:
            raise Vacuous("no freeze came midway")
        await world.settle()


ROWS = [
    Row(name="postgres-kills", run=killed, trials=10),
    Row(name="postgres-frozen", run=frozen, trials=5),
    Row(name="lost-commit-replies", run=lost_commits, trials=10, short=True),
    Row(name="cut-messages", run=cut_messages, trials=10),
    Row(name="backends-terminated", run=terminated, trials=10),
    *RIVALS,
    *DATABASES,
]
