"""Rows that send a file: from the change of the source to the last commit.

One round does the chosen workloads in turn, each right after its floor (floor, row, floor, row, …),
so that whatever the machine does meanwhile meets both, and the ratio is one of neighbours.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.bench import Bench, until_applied
from benchmarks.pipeline import BenchError, Pipeline
from benchmarks.results import Bar, Result
from benchmarks.rows import Family, Row
from benchmarks.sources import Source
from benchmarks.worker import worker

EVENTS = 2_000_000
PEAK_MB_MAX = 150.0
ROLES = ("server", "processor", "client")
Meanwhile = Callable[[Pipeline, Result], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _nothing(_: Pipeline, __: Result) -> AsyncIterator[None]:
    yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A file and what is expected of it; `options` are those of the generator."""

    name: str
    work: str
    runs: int
    options: tuple[str, ...] = ()
    floors_max: float | None = None
    seconds_max: float | None = None
    peak_bounded: bool = True


SEED = Workload(
    name="seed",
    work="2,000,000 events, the original's five lines",
    runs=7,
    floors_max=4.0,
    seconds_max=1.5,
)
USERS = Workload(
    name="users",
    work="2,000,000 random events, 100,000 users, 40-bit values",
    runs=5,
    options=("--users", "100000"),
    floors_max=4.0,
)
MONEY = Workload(
    name="money",
    work="as users, half of the values decimal",
    runs=5,
    options=("--users", "100000", "--decimals"),
)
MILLION = Workload(
    name="million",
    work="2,000,000 random events, 1,000,000 users",
    runs=3,
    options=("--users", "1000000"),
    floors_max=2.5,
    peak_bounded=False,
)
WORKLOADS = (SEED, USERS, MONEY, MILLION)
MONEY_USERS_MAX = 1.5
FLOOR = "floor"


@dataclass(slots=True, kw_only=True)
class Measured:
    """The rows of this family while they are measured."""

    floor: Result
    rows: dict[str, Result] = field(default_factory=dict)


async def measure(bench: Bench, names: Sequence[str]) -> list[Result]:
    """Do the rounds of the rows asked for."""
    found = Measured(floor=Result(row=FLOOR, work="DuckDB sums the same files, and upserts"))
    rows = [load for load in WORKLOADS if load.name in names]
    if MONEY in rows and USERS not in rows:
        rows.insert(0, USERS)  # what it is compared with
    chosen = rows or list(WORKLOADS)
    for load in rows:
        found.rows[load.name] = Result(row=load.name, work=load.work)
    sources = {load.name: await bench.source(load.name, EVENTS, *load.options) for load in chosen}
    for number in range(max(bench.options.runs_of(load.runs) for load in chosen)):
        for load in chosen:
            if number < bench.options.runs_of(load.runs):
                await _pair(bench, load, sources[load.name], found)
    for load in rows:
        _judge(load, found, whole=bench.options.scale == 1)
    return [found.floor, *found.rows.values()]


async def _pair(bench: Bench, load: Workload, source: Source, found: Measured) -> None:
    floor_s = await floor_once(bench, load.name, source, found.floor)
    result = found.rows.get(load.name)
    if result is None:
        return
    seconds = await pipeline_once(bench, source, result)
    if seconds is None:
        return
    if floor_s is not None:
        result.add(floor_s=floor_s, floors=seconds / floor_s)
    if load is MONEY and (users := found.rows[USERS.name].figures.get("seconds")):
        result.add(users=seconds / users[-1])


async def floor_once(bench: Bench, name: str, source: Source, result: Result) -> float | None:
    """Do the yardstick once in a database of its own; return its seconds."""
    threads = str(len(os.sched_getaffinity(0)))
    async with bench.database() as database:
        await database.make_schema()
        async with worker("floor", str(source.path), database.dsn, threads) as duckdb:
            await bench.level()
            meter = bench.meter(database, {"duckdb": duckdb.pid})
            await duckdb.go()
            try:
                answer = await duckdb.answer()
            except BenchError as error:
                result.faults.append(f"{name}: {error}")
                return None
            used = meter.read()
            result.uses.append({f"{who} for {name}": used[who] for who in ("duckdb", "postgres")})
        faults = await database.check({source: 1})
    result.faults += [f"{name}: {fault}" for fault in faults]
    seconds = float(answer["seconds"])
    result.add(**{f"{name}_s": seconds, f"{name}_summed_s": answer["summed_s"]})
    bench.say(f"floor of {name}: {seconds:.3f} s")
    return seconds


async def pipeline_once(
    bench: Bench,
    source: Source,
    result: Result,
    env: Mapping[str, str] | None = None,
    meanwhile: Meanwhile = _nothing,
) -> float | None:
    """Send a source through a new pipeline; return the seconds from its change to the last commit.

    `meanwhile` is entered when the pipeline is ready, and left after the commit.
    """
    async with bench.database() as database, bench.pipeline(database, env) as pipeline:
        try:
            await pipeline.start(*ROLES)
            await bench.level()
            await pipeline.idle()
            async with meanwhile(pipeline, result):
                meter = bench.meter(database, pipeline.pids)
                began = time.perf_counter()
                pipeline.put(source.path)
                await until_applied(pipeline, database, source.events)
                seconds = time.perf_counter() - began
                result.uses.append(meter.read())
            await pipeline.stop()
        except (BenchError, TimeoutError) as error:
            result.faults.append(str(error) or "it took too long")
            return None
        faults = await database.check_applied({source: 1})
        rows_written = await database.rows_written()
    result.faults += faults
    result.add(seconds=seconds, events_per_s=source.events / seconds, rows_written=rows_written)
    bench.say(f"{result.row}: {seconds:.3f} s{'; '.join(['', *faults])}")
    return seconds


def _judge(load: Workload, found: Measured, *, whole: bool) -> None:
    result = found.rows[load.name]
    if load.floors_max is not None:
        result.bars.append(
            Bar(text="in floors", value=result.median("floors"), limit=load.floors_max)
        )
    if load.seconds_max is not None and whole:  # seconds are for all of its events
        result.bars.append(
            Bar(text="seconds", value=result.median("seconds"), limit=load.seconds_max)
        )
    if load is MONEY:
        result.bars.append(
            Bar(text="in users", value=result.median("users"), limit=MONEY_USERS_MAX)
        )
    if load.peak_bounded:
        peaks = [use.peak_mb for name, use in result.processes().items() if name in ROLES]
        result.bars.append(
            Bar(text="largest peak, MB", value=max(peaks, default=float("nan")), limit=PEAK_MB_MAX)
        )


FAMILY = Family(
    rows=(
        Row(name=FLOOR, work="DuckDB sums the same files and upserts: the yardstick"),
        *(Row(name=load.name, work=load.work) for load in WORKLOADS),
    ),
    measure=measure,
)
