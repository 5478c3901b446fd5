"""Rows: clocks that jump while events flow, and starts with a clock behind the newest partition.

The law `names`: no partition is named earlier than one written before it, and names are UTC. The
first half follows from the law `log`, which reads the partitions by name and finds the events in
the order in which they were sent; and it is looked at during the run. All processes live in Tokyo,
nine hours ahead of UTC.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from support.pipeline import ROLES
from torture import laws
from torture.faketime import Clock
from torture.rows import Row
from torture.trial import Trial, Truth, World

EVENTS = 12_000
HOUR_S = 3600
DAY_S = 24 * HOUR_S
JUMPS = 4
# Events flow for longer than a window.
SMALLER_REQUESTS = "10"


@dataclass(slots=True, kw_only=True)
class Timed:
    """A world whose clock can jump, and the newest partition at every moment it was looked at."""

    world: World
    clock: Clock
    began_s: float = field(default_factory=time.time)
    seen: list[str] = field(default_factory=list)

    def jump(self, ahead_s: int) -> None:
        """Let the clock jump, and count it."""
        self.look()
        self.clock.set(ahead_s)

    def look(self) -> None:
        """Take note of the partition that is written to."""
        record = json.loads((self.world.run.data / "server_watermark.json").read_bytes())
        self.seen.append(record["partition"])

    def check(self) -> None:
        """Check the law `names`."""
        self.look()
        laws.require(self.seen == sorted(self.seen), "names", f"stepped back: {self.seen}")
        first = laws.partitions(self.world.run.data)[0].name
        bounds = _name(self.began_s), _name(time.time())
        laws.require(bounds[0] <= first <= bounds[1], "names", f"{first} is not within {bounds}")


def _name(unix_s: float) -> str:
    moment = datetime.fromtimestamp(unix_s, UTC)
    return f"server_events_{moment:%y%m%d%H%M}{moment.second // 5:02d}.jsonl"


@asynccontextmanager
async def _timed(trial: Trial, truth: Truth) -> AsyncIterator[Timed]:
    clock = Clock(directory=trial.directory)
    clock.set(0)
    async with trial.world(
        truth,
        database_url="",
        data=None,
        ETL_BATCH_EVENTS=SMALLER_REQUESTS,
        TZ="Asia/Tokyo",
        **clock.environment(),
    ) as world:
        yield Timed(world=world, clock=clock)


async def jump(trial: Trial) -> None:
    """Let the clock of all processes jump again and again while events flow."""
    async with _timed(trial, trial.truth(events=EVENTS)) as timed, timed.world.watched():
        world = timed.world
        await world.run.start(*ROLES)
        for number in range(JUMPS):
            await world.until_part(0.9 * (number + trial.chance.random()) / JUMPS)
            timed.jump(trial.chance.choice((-DAY_S, -HOUR_S, 0, HOUR_S, DAY_S)))
            if await world.midway():
                trial.count("clock jumps")
        await world.require_midway()
        await world.settle()
        timed.check()


async def start_behind(trial: Trial) -> None:
    """Stop or kill processes while events flow, and start them with the clock far behind."""
    async with _timed(trial, trial.truth(events=EVENTS)) as timed, timed.world.watched():
        world = timed.world
        await world.run.start(*ROLES)
        for number in range(JUMPS):
            await world.until_part(0.1 + 0.8 * (number + trial.chance.random()) / JUMPS)
            await world.run.kill("server", "client")
            timed.jump(-HOUR_S * (number + 1))
            await world.require_midway()
            trial.count("starts behind")
            await world.run.start("server", "client")
        await world.settle()
        timed.check()


async def run_behind(trial: Trial) -> None:
    """Begin a second run with the clock behind the first: its lines are no known ones."""
    first = trial.truth(events=EVENTS // 3)
    async with _timed(trial, first) as timed, timed.world.watched():
        world = timed.world
        await world.run.start(*ROLES)
        await world.settle(alive=False)
        code = await world.run.roles["client"].end(signal.SIGTERM)
        laws.require(code == 0, "clean", f"client ends with {code}")
        timed.jump(-trial.chance.choice((HOUR_S, DAY_S)))
        await world.run.kill("server")
        second = trial.truth(events=EVENTS // 3)
        world.run.write_source(second.source)
        world.truth = Truth(
            source=second.source,
            good=first.good + second.good,
            bad_lines=first.bad_lines + second.bad_lines,
        )
        await world.run.start("server", "client")
        await world.run.roles["client"].said("run 2 is finished")
        trial.count("runs behind")
        await world.settle()
        timed.check()


ROWS = [
    Row(name="clock-jump", run=jump, trials=10, needs=("libfaketime",)),
    Row(name="clock-start-behind", run=start_behind, trials=5, needs=("libfaketime",)),
    Row(name="clock-run-behind", run=run_behind, trials=5, needs=("libfaketime",)),
]
