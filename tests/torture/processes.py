"""Rows: processes killed, frozen, stopped, and in each other's way."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable

from support.pipeline import ROLES, Role
from torture import laws
from torture.rows import Row
from torture.trial import Trial, Vacuous, World

KILLS = 10
EVENTS = 40_000
STARTS = 6
# From the first log line of a start until well after the work goes on.
START_S = 0.15
STOP_S_MAX = 5.0
FREEZE_S_MAX = 2.0
# Events flow for longer.
SMALLER_REQUESTS = "20"


async def goes_on(role: Role, seconds: float) -> None:
    """Let a process go on for a while, or until it ends."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await role.process.wait()


async def kill(trial: Trial, *victims: str) -> None:
    """Kill processes again and again while events flow."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth) as world, world.watched():
        await world.run.start(*ROLES)
        kills = 0
        for number in range(KILLS):
            await world.until_part(0.9 * (number + trial.chance.random()) / KILLS)
            await world.run.kill(*victims)
            kills += await _count_midway(world, "kills", *victims)
            await world.run.start(*victims)
        if not kills:
            raise Vacuous("no kill came midway")
        await world.settle()
    _count_repairs(world)


async def kill_starting(trial: Trial, victim: str) -> None:
    """Kill a process while events flow, and again and again while it starts."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth, ETL_BATCH_EVENTS=SMALLER_REQUESTS) as world, world.watched():
        await world.run.start(*ROLES)
        kills = 0
        for number in range(KILLS):
            await world.until_part(0.9 * (number + trial.chance.random()) / KILLS)
            await world.run.kill(victim)
            kills += await _count_midway(world, "kills", victim)
            client = world.run.roles["client"]
            for _ in range(STARTS):
                if victim == "processor":
                    client.send_signal(signal.SIGSTOP)  # else all would be in the log too soon
                role = world.run.roles[victim] = await world.run.launch(victim)
                await role.said("starting")
                if victim == "processor":
                    client.send_signal(signal.SIGCONT)
                await goes_on(role, START_S * trial.chance.random())
                await world.run.kill(victim)
                kills += await _count_midway(world, "kills in a start", victim)
            await world.run.start(victim)
        if not kills:
            raise Vacuous("no kill came midway")
        await world.settle()
    _count_repairs(world)


async def _count_midway(world: World, what: str, *victims: str) -> bool:
    """Count kills that came while some, not all, events were applied; say whether they did."""
    midway = await world.midway()
    if midway:
        for victim in victims:
            world.trial.count(f"{victim} {what}")
    return midway


def _count_repairs(world: World) -> None:
    torn = sum("was torn at byte" in line for line in world.run.log_of("server"))
    if torn:
        world.trial.count("torn tails repaired", torn)


async def freeze_server(trial: Trial) -> None:
    """Freeze the server until the client has given up waiting, sends again, and some more."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth) as world, world.watched():
        await world.run.start(*ROLES)
        await world.until_part(0.1 + 0.5 * trial.chance.random())
        server, client = world.run.roles["server"], world.run.roles["client"]
        server.send_signal(signal.SIGSTOP)
        await world.require_midway()
        await client.said("no answer in time")
        await goes_on(client, FREEZE_S_MAX * trial.chance.random())
        server.send_signal(signal.SIGCONT)
        trial.count("server freezes")
        await client.said("the server takes events again")
        await world.settle()


async def zombie_processor(trial: Trial) -> None:
    """Freeze the processor midway; another takes over and applies; then the first one wakes."""
    truth = trial.truth(events=EVENTS)
    async with (
        trial.world(truth, ETL_TAKEOVER_S="1", ETL_BATCH_EVENTS=SMALLER_REQUESTS) as world,
        world.watched(),
    ):
        await world.run.start(*ROLES)
        await world.until_part(0.05 + 0.3 * trial.chance.random())
        zombie = world.run.roles["processor"]
        zombie.send_signal(signal.SIGSTOP)
        await world.require_midway()
        frozen_at = await world.applied()
        second = await world.run.launch("processor")
        await second.said("taking over without the lock")
        await world.until_part(min(1.0, frozen_at / len(truth.good) + 0.1))
        before = {id(role): len(role.log) for role in (zombie, second)}
        zombie.send_signal(signal.SIGCONT)
        await _one_steps_back(zombie, second)
        trial.count("zombies woken")
        if any("stepping back" in line for line in zombie.log[before[id(zombie)] :]):
            trial.count("zombies refused by the guard")
        await world.settle()
        codes = [await role.end(signal.SIGTERM) for role in (zombie, second)]
        laws.require(codes == [0, 0], "clean", f"processors end with {codes}")


async def _one_steps_back(zombie: Role, second: Role) -> None:
    """Wait until the guard has told the two apart."""
    told = [asyncio.create_task(role.said("stepping back")) for role in (zombie, second)]
    try:
        done, _ = await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
    finally:
        for one in told:
            one.cancel()
        await asyncio.gather(*told, return_exceptions=True)


async def stop_each(trial: Trial) -> None:
    """Ask each process to stop, in any order, while events flow."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth) as world, world.watched():
        await world.run.start(*ROLES)
        stops = 0
        for number in range(KILLS):
            await world.until_part(0.9 * (number + trial.chance.random()) / KILLS)
            name = trial.chance.choice(ROLES)
            await world.run.roles[name].said("starting")  # before that Python itself ends it
            number_sent = trial.chance.choice((signal.SIGTERM, signal.SIGINT))
            async with asyncio.timeout(STOP_S_MAX):
                code = await world.run.roles[name].end(number_sent)
            laws.require(code == 0, "clean", f"{name} ends with {code} on {number_sent.name}")
            stops += await _count_midway(world, "stops", name)
            await world.run.start(name)
        if not stops:
            raise Vacuous("no stop came midway")
        await world.settle()


async def second_of_each(trial: Trial) -> None:
    """Start a second server and client on a directory that is in use: they end, saying so."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth, ETL_BATCH_EVENTS=SMALLER_REQUESTS) as world, world.watched():
        await world.run.start(*ROLES)
        await world.until_part(0.02)
        for second in [await world.run.launch(name) for name in ("server", "client")]:
            name = second.name
            code = await second.ended()
            told = [line for line in second.log if "is in use by" in line]
            laws.require(code == 1 and len(told) == 1, "clean", f"second {name} ends with {code}")
            trial.count(f"second {name}s")
        await world.require_midway()
        await world.settle()


def _killing(*victims: str) -> Callable[[Trial], Awaitable[None]]:
    return lambda trial: kill(trial, *victims)


def _starting(victim: str) -> Callable[[Trial], Awaitable[None]]:
    return lambda trial: kill_starting(trial, victim)


ROWS = [
    Row(name="kill-server", run=_killing("server"), trials=30, short=True),
    Row(name="kill-client", run=_killing("client"), trials=20, short=True),
    Row(name="kill-processor", run=_killing("processor"), trials=20, short=True),
    Row(name="kill-all", run=_killing(*ROLES), trials=10),
    Row(name="kill-server-starting", run=_starting("server"), trials=5),
    Row(name="kill-client-starting", run=_starting("client"), trials=5),
    Row(name="kill-processor-starting", run=_starting("processor"), trials=5),
    Row(name="freeze-server", run=freeze_server, trials=5),
    Row(name="zombie-processor", run=zombie_processor, trials=20, short=True),
    Row(name="stop-each", run=stop_each, trials=10),
    Row(name="second-of-each", run=second_of_each, trials=3),
]
