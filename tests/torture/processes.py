"""Rows: processes killed, frozen, and in each other's way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from support.pipeline import ROLES
from torture.rows import Row
from torture.trial import Trial, Vacuous

KILLS = 10
EVENTS = 40_000


async def kill(trial: Trial, *victims: str) -> None:
    """Kill processes again and again while events flow."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth) as world, world.watched():
        await world.run.start(*ROLES)
        kills = 0
        for number in range(KILLS):
            await world.until_part(0.9 * (number + trial.chance.random()) / KILLS)
            await world.run.kill(*victims)
            if await world.midway():
                kills += 1
                for victim in victims:
                    trial.count(f"{victim} kills")
            await world.run.start(*victims)
        if not kills:
            raise Vacuous("no kill came midway")
        await world.settle()


def _killing(*victims: str) -> Callable[[Trial], Awaitable[None]]:
    return lambda trial: kill(trial, *victims)


ROWS = [
    Row(name="kill-server", run=_killing("server"), trials=30, short=True),
    Row(name="kill-client", run=_killing("client"), trials=20, short=True),
    Row(name="kill-processor", run=_killing("processor"), trials=20, short=True),
    Row(name="kill-all", run=_killing(*ROLES), trials=10),
]
