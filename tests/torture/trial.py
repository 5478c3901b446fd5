"""One trial: a pipeline with a truth of its own, a fault, and the laws at the end.

A row is a coroutine that takes a `Trial`; it starts processes, provokes its fault and calls
`settle`, which waits until all is drained and checks every law. It counts what it did
(`count("server kills")`), and a trial in which the fault struck nothing is `Vacuous`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import asyncpg

from support.database import Database, connected, prepared
from support.pipeline import ROLES, Pipeline, pipeline
from torture import laws

APPLIED = "SELECT coalesce(sum(lines), 0)::bigint FROM partition_offsets"
APPLIED_AT_LEAST = "SELECT coalesce(sum(lines), 0) >= $1 FROM partition_offsets"
# Small requests make the window wide in which some, not all, events are through.
SMALL_REQUESTS = {"ETL_BATCH_EVENTS": "100"}

# Long enough for a processor that finds another one's mirror to step back and begin anew.
MIRROR_LOOKS, MIRROR_LOOK_S = 100, 0.1

_BAD = (
    b'{"userId":"u","name":"add_revenue","value":"1"}',
    b'{"userId":"u","name":"add_revenue"',
    b'{"userId":"","name":"add_revenue","value":1}',
    b'{"userId":"u","name":"add","value":1}',
    b"\xff\xfe",
    b'{"userId":"u","name":"add_revenue","value":0.0000001}',
)


class Vacuous(Exception):  # noqa: N818  no error: the trial proves nothing
    """The fault came too early or too late to matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A source, and what must become of its lines."""

    source: bytes
    good: list[bytes]
    bad_lines: list[int]

    @property
    def lines(self) -> int:
        return len(self.good) + len(self.bad_lines)


def make_truth(
    chance: random.Random, *, events: int, users: int = 50, bad_every: int = 37
) -> Truth:
    """Random 40-bit amounts, so that a loss and a duplicate can't cancel out."""
    lines: list[bytes] = []
    good: list[bytes] = []
    bad_lines: list[int] = []
    for number in range(1, events + 1):
        if bad_every and number % bad_every == 0:
            lines.append(chance.choice(_BAD))
            bad_lines.append(number)
            continue
        name = chance.choice(("add_revenue", "subtract_revenue"))
        cents = f".{chance.randrange(1, 10**6):06d}" if chance.random() < 0.3 else ""
        line = (
            f'{{"userId":"user{chance.randrange(users)}","name":"{name}",'
            f'"value":{chance.getrandbits(40)}{cents}}}'
        ).encode()
        lines.append(line)
        good.append(line)
    return Truth(source=b"\n".join(lines) + b"\n", good=good, bad_lines=bad_lines)


@dataclass(slots=True, kw_only=True)
class Trial:
    """What a row gets: chance, places, and where to count what it did."""

    seed: int
    directory: Path
    postgres_url: str
    new_database: Callable[[], Awaitable[str]]
    env: Mapping[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311  no secret

    def count(self, what: str, times: int = 1) -> None:
        self.counts[what] += times

    def truth(self, *, events: int, users: int = 50, bad_every: int = 37) -> Truth:
        return make_truth(self.chance, events=events, users=users, bad_every=bad_every)

    @asynccontextmanager
    async def world(
        self, truth: Truth, *, database_url: str = "", data: Path | None = None, **env: str
    ) -> AsyncIterator[World]:
        """A database, a source and a pipeline without processes yet."""
        url = database_url or await self.new_database()
        settings = {**SMALL_REQUESTS, **self.env, **env}
        if data is not None:
            settings["ETL_DATA_DIR"] = str(data)
            # It may be a disk of a few MiB, which is to fill up.
            settings.setdefault("ETL_DISK_RESERVE_BYTES", "0")
        async with (
            prepared(url) as database,
            connected(url) as snapshots,
            pipeline(self.directory, url, **settings) as run,
        ):
            if data is not None:
                run.data = data
            run.write_source(truth.source)
            world = World(
                trial=self, truth=truth, run=run, url=url, database=database, snapshots=snapshots
            )
            try:
                yield world
            except BaseException:
                run.write_logs()
                raise


@dataclass(slots=True, kw_only=True)
class World:
    """A trial under way."""

    trial: Trial
    truth: Truth
    run: Pipeline
    url: str
    database: Database
    snapshots: asyncpg.Connection
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def looking_at(self, url: str) -> AsyncIterator[None]:
        """Look at another database, or at this one over new connections."""
        async with prepared(url) as self.database, connected(url) as self.snapshots:
            self.url = url
            yield

    async def applied(self) -> int:
        return int(await self.database.value(APPLIED))

    async def until_part(self, part: float) -> None:
        """Wait until such a part of all events is applied."""
        wanted = int(len(self.truth.good) * part)
        try:
            await self.database.until(APPLIED_AT_LEAST, True, wanted)
        except TimeoutError:
            applied = await self.applied()
            raise laws.ViolationError(
                f"alive: {applied} events are applied, not {wanted}"
            ) from None

    async def midway(self) -> bool:
        """Say whether some, not all, events are applied now."""
        return 0 < await self.applied() < len(self.truth.good)

    async def require_midway(self) -> None:
        """Raise `Vacuous` unless some, not all, events are applied now."""
        if not await self.midway():
            raise Vacuous("the fault did not strike midway")

    async def online(self) -> None:
        """Check the online law now."""
        async with self._reading:
            await laws.online(self.run.data, self.snapshots)
        self.trial.count("online checks")

    async def drained(self) -> None:
        """Wait until every line of the source is applied or a dead letter."""
        # A client that was killed after its last line finds nothing more to send.
        await self.run.roles["client"].said("is finished", "is as run")
        await self.until_part(1.0)  # more are another law's affair

    async def settle(self, *, alive: bool = True) -> None:
        """Drain, then check all laws."""
        await self.drained()
        laws.log(self.run.data, self.truth.good)
        laws.dead_letters(self.run.data, self.truth.bad_lines)
        await self._settled_totals(self.truth.good)
        await self.online()
        await self.mirrored()
        if alive:
            await self.alive()
        laws.clean(self.run.data, self._all_logged())

    async def mirrored(self) -> None:
        """The mirror says what is applied, soon after nothing happens any more."""
        for _ in range(MIRROR_LOOKS):
            try:
                return laws.mirror(self.run.data, await self.applied())
            except (laws.ViolationError, OSError):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(MIRROR_LOOK_S):
                        await asyncio.Event().wait()
        laws.mirror(self.run.data, await self.applied())
        return None

    async def alive(self) -> None:
        """A fresh event comes through."""
        before = await self.applied()
        event = b'{"userId":"fresh","name":"add_revenue","value":1}'
        headers = {"Authorization": "secret", "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self.run.port}/liveEvent"
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(url, data=event) as reply,
        ):
            laws.require(reply.status == 201, "alive", f"status {reply.status}")
        await self.database.until_applied(before + 1)
        await self._settled_totals([*self.truth.good, event])

    async def _settled_totals(self, lines: list[bytes]) -> None:
        """Compare totals; what is deferred counts too."""
        laws.compare_totals("final", await self.database.true_totals(), laws.totals(lines))

    def _all_logged(self) -> list[str]:
        return [line for role in ROLES for line in self.run.log_of(role)]

    @contextlib.asynccontextmanager
    async def watched(self, every_s: float = 0.2) -> AsyncIterator[None]:
        """Check the online law again and again while the body runs; a violation ends the body."""
        stop = asyncio.Event()

        async def watch() -> None:
            while not stop.is_set():
                await self.online()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(every_s):
                        await stop.wait()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(watch())
                yield
                stop.set()
        except BaseExceptionGroup as both:
            raise both.exceptions[0] from None


def remove(directory: Path) -> None:
    """Remove what a good trial left."""
    shutil.rmtree(directory, ignore_errors=True)
