"""Rows: what a network does to requests and answers between client and server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from torture.http_proxy import NO_FAULTS, HttpProxy, Odds, http_proxy, pass_time
from torture.rows import Row
from torture.trial import Trial, Vacuous, World

EVENTS = 40_000
RESET_EVERY_S = 0.2
# Longer than the client waits for an answer, so that it sends again what is still on its way.
TIMED_OUT_S = (15.5, 18.0)


@asynccontextmanager
async def proxied(
    trial: Trial, *, must: str = "", events: int = EVENTS, batch_events: int = 100
) -> AsyncIterator[tuple[World, HttpProxy]]:
    """A pipeline whose client reaches the server through a proxy; settled at the end.

    `must` names what has to have happened. It is asked for after the laws: a duplicate that was
    not suppressed is a violation, and proves nothing about the fault.
    """
    truth = trial.truth(events=events)
    async with trial.world(truth, ETL_BATCH_EVENTS=str(batch_events)) as world, world.watched():
        await world.run.start("server", "processor")
        async with http_proxy(world.run.port, trial.chance) as proxy:
            world.run.server_url = proxy.url
            await world.run.start("client")
            await world.until_part(0.02)
            yield world, proxy
            proxy.odds = NO_FAULTS
            await world.drained()
            await proxy.all_arrived()
            await world.settle()
            trial.counts += proxy.did
            if must and not proxy.did[must]:
                raise Vacuous(f"no {must}")


async def by_chance(trial: Trial, odds: Odds, must: str, events: int = EVENTS) -> None:
    """Let faults strike by chance."""
    async with proxied(trial, must=must, events=events) as (world, proxy):
        proxy.odds = odds
        await world.until_part(0.9)


def _by_chance(odds: Odds, must: str, events: int = EVENTS) -> Callable[[Trial], Awaitable[None]]:
    return lambda trial: by_chance(trial, odds, must, events)


async def resets(trial: Trial) -> None:
    """Reset all connections every 200 ms."""
    async with proxied(trial, batch_events=30) as (world, proxy):
        struck = 0
        while await world.applied() < 0.9 * len(world.truth.good):
            await pass_time(RESET_EVERY_S)
            if await world.midway():
                struck += proxy.reset_all()
        if not struck:
            raise Vacuous("no connection was there to be reset")
        trial.count("connections reset", struck)


async def _interrupt(trial: Trial, what: str, seconds: tuple[float, float], times: int) -> None:
    """Stop all traffic for seconds, again and again, or let the server vanish for so long."""
    async with proxied(trial) as (world, proxy):
        for number in range(times):
            await world.until_part(0.8 * (number + trial.chance.random()) / times)
            if not await world.midway():
                break
            trial.count(what)
            if what == "silences":
                proxy.flowing.clear()
            else:
                proxy.vanish()
            await pass_time(trial.chance.uniform(*seconds))
            if what == "silences":
                proxy.flowing.set()
            else:
                await proxy.start()
        if not trial.counts[what]:
            raise Vacuous("nothing came midway")


async def silence(trial: Trial) -> None:
    """Silence for seconds; then what was held back goes on."""
    await _interrupt(trial, "silences", (1.5, 4.0), times=3)


async def long_silence(trial: Trial) -> None:
    """Silence until the client has given up; then what was held back arrives all the same."""
    await _interrupt(trial, "silences", TIMED_OUT_S, times=1)


async def unreachable(trial: Trial) -> None:
    """The server can't be reached for a while."""
    await _interrupt(trial, "absences", (1.5, 5.0), times=3)


ROWS = [
    Row(
        name="lost-replies",
        run=_by_chance(Odds(lose_reply=0.25), "duplicates"),
        trials=10,
        short=True,
    ),
    Row(name="cut-requests", run=_by_chance(Odds(cut_request=0.2), "requests cut"), trials=10),
    Row(name="cut-replies", run=_by_chance(Odds(cut_reply=0.2), "duplicates"), trials=10),
    Row(
        name="late-requests",
        run=_by_chance(Odds(late=0.1, repeat=0.1), "late duplicates"),
        trials=10,
    ),
    Row(
        name="delays",
        run=_by_chance(Odds(delay_s=0.06), "requests overtaken", events=20_000),
        trials=5,
    ),
    Row(
        name="network-mix",
        run=_by_chance(
            Odds(lose_reply=0.1, cut_request=0.05, cut_reply=0.05, late=0.05, repeat=0.05),
            "duplicates",
        ),
        trials=10,
    ),
    Row(name="resets", run=resets, trials=10),
    Row(name="silence", run=silence, trials=5),
    Row(name="long-silence", run=long_silence, trials=3),
    Row(name="unreachable", run=unreachable, trials=5),
]
