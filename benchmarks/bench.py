"""What every row works with: a directory, a PostgreSQL, a database and a pipeline per run."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from benchmarks import sources
from benchmarks.pipeline import BenchError, Pipeline
from benchmarks.sources import Source
from benchmarks.usage import Meter
from etl.log import watermark
from etl.sink import schema
from etl.sink.embedded import EmbeddedPostgres

# The end of a run is seen this much late at most: so long, or this share of the time it took. Until
# all is in the log nothing is asked; one look costs 0.2 ms of CPU time, half of it in PostgreSQL.
PROBE_S_MIN = 0.002
PROBE_SHARE = 0.005
APPLIED_TIMEOUT_S = 1200.0
CHECKPOINT = "CHECKPOINT"
APPLIED = "SELECT coalesce(sum(lines), 0)::bigint FROM partition_offsets"
TOTALS = "SELECT user_id, revenue::text FROM users_revenue"
# By all processes that have ended; in units of users, how often the sums were upserted.
ROWS_WRITTEN = """
    SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'users_revenue'
"""
# Nothing may be left over: a total is whole only without these.
LEFT_OVER = """
    SELECT (SELECT count(*) FROM deferred_revenue) + (SELECT count(*) FROM dead_letters)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much is done.

    `runs` is how often each row is (None: as the row says); `scale` multiplies the events.
    """

    runs: int | None = None
    scale: float = 1.0

    def runs_of(self, default: int) -> int:
        """Return how often a row is done."""
        return default if self.runs is None else self.runs

    def events(self, full: int) -> int:
        """Return how many events stand for so many."""
        return max(sources.LINES_PER_ROUND, round(full * self.scale))


class Database:
    """One database, and the connection that looks into it."""

    def __init__(self, dsn: str, connection: asyncpg.Connection, backend: int) -> None:
        self.dsn = dsn
        self._connection = connection
        self.backends = frozenset({backend})

    async def applied(self) -> int:
        """Return how many events are applied and committed."""
        found: int = await self._connection.fetchval(APPLIED)
        return found

    async def totals(self) -> dict[str, Decimal]:
        """Return every user's revenue."""
        return {user: Decimal(text) for user, text in await self._connection.fetch(TOTALS)}

    async def rows_written(self) -> int:
        """Return how many rows of users were inserted or updated."""
        found: int = await self._connection.fetchval(ROWS_WRITTEN)
        return found

    async def make_schema(self) -> None:
        """Make the tables, where no processor does."""

        async def nothing() -> None:
            return None

        await schema.apply(self._connection, log_id="floor", take_over=nothing)

    async def check(self, applied: Mapping[Source, int]) -> list[str]:
        """Say what is wrong with the totals after each source was applied so often."""
        faults = sources.differences(sources.expected(applied), await self.totals())
        left_over = await self._connection.fetchval(LEFT_OVER)
        if left_over:
            faults.append(f"{left_over} deferred revenues and dead letters are left over")
        return faults

    async def check_applied(self, applied: Mapping[Source, int]) -> list[str]:
        """The same, and whether the offsets say that every event was applied once."""
        faults = await self.check(applied)
        events = sum(source.events * times for source, times in applied.items())
        found = await self.applied()
        if found != events:
            faults.append(f"{found} events are applied, not {events}")
        return faults


class Bench:
    """A directory and a PostgreSQL of the benchmark's own."""

    def __init__(self, directory: Path, dsn: str, options: Options) -> None:
        self.directory = directory
        self.options = options
        self._dsn = dsn

    @property
    def postmaster(self) -> int:
        """The process that all backends descend from."""
        pid = self.directory / "postgres" / "cluster" / "postmaster.pid"
        return int(pid.read_text().split()[0])

    def say(self, text: str) -> None:
        """Tell whoever waits."""
        print(f"bench: {text}", file=sys.stderr, flush=True)

    async def source(self, name: str, events: int, *options: str) -> Source:
        """Return a source; `events` before scaling."""
        wanted = self.options.events(events)
        return await asyncio.to_thread(
            sources.make, self.directory, name, events=wanted, options=options
        )

    async def connect(self) -> asyncpg.Connection:
        """Connect to the server's own database."""
        return await asyncpg.connect(self._dsn)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """A new, empty database; it is gone after the block."""
        name = f"bench_{uuid.uuid4().hex}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE template0")
        dsn = urlunsplit(urlsplit(self._dsn)._replace(path=f"/{name}"))
        try:
            connection = await asyncpg.connect(dsn)
            try:
                yield Database(dsn, connection, connection.get_server_pid())
            finally:
                await connection.close()
        finally:
            await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def pipeline(
        self, database: Database, env: Mapping[str, str] | None = None
    ) -> AsyncIterator[Pipeline]:
        """A pipeline without processes yet; all is gone after the block."""
        directory = Path(tempfile.mkdtemp(prefix="run-", dir=self.directory))
        made = Pipeline(directory, database.dsn, env or {})
        try:
            yield made
        finally:
            await made.kill()
            shutil.rmtree(directory, ignore_errors=True)

    async def level(self) -> None:
        """Write back what earlier runs have left, so that each begins alike."""
        await self._execute(CHECKPOINT)
        await asyncio.to_thread(os.sync)

    def meter(self, database: Database, processes: Mapping[str, int]) -> Meter:
        """Measure from now on."""
        return Meter(processes, postmaster=self.postmaster, own_backends=database.backends)

    async def _execute(self, statement: str) -> None:
        connection = await self.connect()
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


async def until_applied(pipeline: Pipeline, database: Database, events: int) -> None:
    """Wait until so many events are committed.

    Raises:
        BenchError: a process has ended, or it takes too long.
    """
    began = time.monotonic()
    try:
        async with asyncio.timeout(APPLIED_TIMEOUT_S):
            while stored(pipeline.data) < events:
                await pipeline.look()
            while await database.applied() < events:
                pipeline.check()
                await asyncio.sleep(max(PROBE_S_MIN, (time.monotonic() - began) * PROBE_SHARE))
    except TimeoutError:
        applied = await database.applied()
        raise BenchError(f"{applied} of {events} events applied, and no end in sight") from None


def stored(data: Path) -> int:
    """Return how many events the log holds durably: one read of a small file."""
    fd = watermark.open_to_read(data)
    if fd is None:
        return 0
    try:
        found = watermark.read(fd)
    finally:
        os.close(fd)
    return found.events if found else 0


@asynccontextmanager
async def opened(options: Options) -> AsyncIterator[Bench]:
    """A bench in a temporary directory; nothing is left of it afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="etl-bench-"))
    postgres = EmbeddedPostgres(directory / "postgres")
    try:
        yield Bench(directory, await postgres.ensure_running(), options)
    finally:
        postgres.release()
        await asyncio.to_thread(_wait_until_stopped, directory / "postgres" / "keeper.lock")
        shutil.rmtree(directory, ignore_errors=True)


def _wait_until_stopped(lock: Path) -> None:
    """Wait until the keeper of the server, and with it the server, is gone."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
