"""Rows of what a user waits for: until an event counts, and until a question is answered.

`fresh` sends single events at a fixed rate. The k-th acknowledged event is taken to be visible when
k events are: the log keeps the order of the answers, but for those that shared one sync.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from benchmarks.bench import Bench, Database
from benchmarks.bulk import EVENTS, ROLES, SEED, pipeline_once
from benchmarks.pipeline import BenchError, Pipeline
from benchmarks.results import Bar, Result, percentile
from benchmarks.rows import Family, Row
from benchmarks.sources import Source
from benchmarks.worker import worker

FRESH, READ = "fresh", "read"
RATE_PER_S = 1000
FRESH_S = 20
FRESH_RUNS = 1
# A look at the database every so often; an event is visible at most this much earlier than seen.
LOOK_S = 0.002
FRESH_P50_MS_MAX, FRESH_P99_MS_MAX = 30.0, 150.0
UNSEEN_S = 30.0

GETS_PER_S = 50
READ_RUNS = 5
READ_P99_MS_MAX = 50.0

WORK = {
    FRESH: f"{RATE_PER_S} single events/s for {FRESH_S} s: from acknowledged to visible",
    READ: f"GET /userEvents, {GETS_PER_S}/s, while seed runs",
}


async def measure(bench: Bench, names: Sequence[str]) -> list[Result]:
    """Do the rows asked for."""
    results = []
    if FRESH in names:
        results.append(await _fresh(bench))
    if READ in names:
        results.append(await _read(bench))
    return results


async def _fresh(bench: Bench) -> Result:
    result = Result(row=FRESH, work=WORK[FRESH])
    source = await bench.source("fresh", RATE_PER_S * FRESH_S, "--users", "1000")
    for _ in range(bench.options.runs_of(FRESH_RUNS)):
        async with bench.database() as database, bench.pipeline(database) as pipeline:
            try:
                await pipeline.start(*ROLES)
                await bench.level()
                await pipeline.idle()
                meter = bench.meter(database, pipeline.pids)
                lags_ms = await _lags_ms(source, pipeline, database)
                result.uses.append(meter.read())
                await pipeline.stop()
            except (BenchError, TimeoutError) as error:
                result.faults.append(str(error) or "it took too long")
                continue
            result.faults += await database.check_applied({source: 1})
        result.add(p50_ms=percentile(lags_ms, 50), p99_ms=percentile(lags_ms, 99))
        result.add(worst_ms=max(lags_ms))
        bench.say(f"fresh: p50 {percentile(lags_ms, 50):.1f} ms")
    result.bars += [
        Bar(text="p50, ms", value=result.median("p50_ms"), limit=FRESH_P50_MS_MAX),
        Bar(text="p99, ms", value=result.median("p99_ms"), limit=FRESH_P99_MS_MAX),
    ]
    return result


async def _lags_ms(source: Source, pipeline: Pipeline, database: Database) -> list[float]:
    """Return how long after its acknowledgement each event was visible.

    Raises:
        BenchError: one was not acknowledged.
        TimeoutError: one was never seen.
    """
    options = ("--port", str(pipeline.port), "--post", str(source.path), "--rate", str(RATE_PER_S))
    async with worker("load", *options) as load:
        await load.go()
        looking = asyncio.create_task(_seen(pipeline, database, source.events))
        try:
            report = await load.answer()
            if report["failed"]:
                raise BenchError(f"not all was acknowledged: {report['failed']}")
            async with asyncio.timeout(UNSEEN_S):
                seen = await looking
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
    acknowledged = sorted(ended for _, ended in report["times"])
    return lags_ms(acknowledged, seen)


async def _seen(pipeline: Pipeline, database: Database, events: int) -> list[tuple[float, int]]:
    """Return when how many events were visible, until all are.

    Raises:
        BenchError: a process has ended.
    """
    found = [(time.monotonic(), 0)]
    while found[-1][1] < events:
        pipeline.check()
        applied = await database.applied()
        if applied != found[-1][1]:
            found.append((time.monotonic(), applied))
        await asyncio.sleep(LOOK_S)
    return found


def lags_ms(acknowledged: Sequence[float], seen: Sequence[tuple[float, int]]) -> list[float]:
    """Return the time from the k-th acknowledgement to the first look that saw k events.

    An event may be visible before its answer has arrived; then it is 0.
    """
    found, looks = [], iter(seen)
    when, applied = next(looks)
    for number, at in enumerate(acknowledged, start=1):
        while applied < number:
            when, applied = next(looks)
        found.append(max(0.0, when - at) * 1000)
    return found


async def _read(bench: Bench) -> Result:
    result = Result(row=READ, work=WORK[READ])
    source = await bench.source(SEED.name, EVENTS, *SEED.options)
    latencies_ms: list[float] = []

    @asynccontextmanager
    async def asking(pipeline: Pipeline, _: Result) -> AsyncIterator[None]:
        options = ("--port", str(pipeline.port), "--get", "/userEvents/user1")
        async with worker("load", *options, "--rate", str(GETS_PER_S)) as load:
            await load.go()
            yield
            await load.tell("stop")
            report = await load.answer()
        if report["failed"]:
            raise BenchError(f"not all was answered: {report['failed']}")
        latencies_ms.extend((ended - began) * 1000 for began, ended in report["times"])

    for _ in range(bench.options.runs_of(READ_RUNS)):
        await pipeline_once(bench, source, result, meanwhile=asking)
    if latencies_ms:
        # Of all runs together: one is too short for a 99th percentile.
        result.add(p50_ms=percentile(latencies_ms, 50), p99_ms=percentile(latencies_ms, 99))
        result.add(worst_ms=max(latencies_ms))
        result.notes.append(f"{len(latencies_ms)} questions")
    result.bars.append(Bar(text="p99, ms", value=result.median("p99_ms"), limit=READ_P99_MS_MAX))
    return result


FAMILY = Family(
    rows=tuple(Row(name=name, work=work) for name, work in WORK.items()), measure=measure
)
