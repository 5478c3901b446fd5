"""Rows of hostile neighbours: what a good sender notices of a flood beside it.

The good sender has one connection and sends at a fixed rate, in turn without and with the flood.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from benchmarks.bench import Bench, stored
from benchmarks.flooder import KINDS
from benchmarks.pipeline import BenchError, Pipeline
from benchmarks.results import Bar, Result, percentile
from benchmarks.rows import Family, Row
from benchmarks.sources import Source
from benchmarks.worker import worker

FLOOD = "flood"
WORK = f"a good sender beside each flood: {', '.join(KINDS)}"
RATE_PER_S = 200
EVENTS = 800
RUNS = 3
# The flood has begun: all its connections are open, or have been refused once.
BEGUN_S = 1.0
P50_MAX, P99_MAX = 2.0, 5.0


async def measure(bench: Bench, names: Sequence[str]) -> list[Result]:
    """Do the rounds of every kind."""
    result = Result(row=names[0], work=WORK)
    source = await bench.source("requests-beside-floods", EVENTS, "--users", "1000")
    runs = bench.options.runs_of(RUNS)
    async with bench.database() as database, bench.pipeline(database) as pipeline:
        try:
            await pipeline.start("server")
            for kind in KINDS:
                await _beside(kind, source, pipeline, result, runs)
            await pipeline.stop()
        except (BenchError, TimeoutError) as error:
            result.faults.append(str(error) or "it took too long")
        expected = source.events * runs * 2 * len(KINDS)
        if not result.faults and stored(pipeline.data) != expected:
            result.faults.append(f"{stored(pipeline.data)} events are stored, not {expected}")
    return [result]


async def _beside(kind: str, source: Source, pipeline: Pipeline, result: Result, runs: int) -> None:
    quiet: list[float] = []
    beside: list[float] = []
    opened = refused = 0
    for _ in range(runs):
        quiet += await _latencies_ms(source, pipeline)
        async with worker("flooder", "--port", str(pipeline.port), "--kind", kind) as flood:
            await flood.go()
            await asyncio.sleep(BEGUN_S)
            beside += await _latencies_ms(source, pipeline)
            await flood.tell("stop")
            report = await flood.answer()
        opened += report["opened"]
        refused += report["refused"]
    if not opened:
        raise BenchError(f"{kind} opened no connection")
    for percent, limit in ((50, P50_MAX), (99, P99_MAX)):
        before, after = percentile(quiet, percent), percentile(beside, percent)
        result.add(**{f"{kind}_p{percent}_ms": after, f"{kind}_quiet_p{percent}_ms": before})
        result.bars.append(
            Bar(text=f"{kind}, p{percent} to quiet", value=after / before, limit=limit)
        )
    result.notes.append(f"{kind}: {opened} connections, {refused} refused")


async def _latencies_ms(source: Source, pipeline: Pipeline) -> list[float]:
    options = ("--port", str(pipeline.port), "--post", str(source.path))
    async with worker("load", *options, "--rate", str(RATE_PER_S), "--sockets", "1") as load:
        await load.go()
        report = await load.answer()
    if report["failed"]:
        raise BenchError(f"a good sender was refused: {report['failed']}")
    return [(ended - began) * 1000 for began, ended in report["times"]]


FAMILY = Family(rows=(Row(name=FLOOD, work=WORK),), measure=measure)
