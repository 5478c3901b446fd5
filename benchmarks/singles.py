"""Rows of single requests: how many a second, and how long one takes, beside a bare handler.

The same lines go to the bare handler and to the server in turn (bare, ours, bare, ours, …). The
whole pipeline runs meanwhile: the server shares the machine with the processor and PostgreSQL,
which apply what it takes in; the bare handler has it for itself. `alone` is the server without a
processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.bench import Bench, Database, until_applied
from benchmarks.bulk import pipeline_once
from benchmarks.pipeline import BenchError, Pipeline
from benchmarks.results import Bar, Result, percentile
from benchmarks.rows import Family, Row
from benchmarks.sources import Source
from benchmarks.worker import worker

RUNS = 3
MANY_IN_FLIGHT = 64
EVENTS = 20_000
EVENTS_ONE_BY_ONE = 2_000
CLIENT_EVENTS = 20_000
USERS = ("--users", "1000")
SINGLE, ACK = "single", "ack"
BARE_MIN = 0.6
ACK_MAX = 2.0
WORK = {
    SINGLE: f"one event per request, {MANY_IN_FLIGHT} in flight",
    ACK: f"latency of one durable POST, 1 and {MANY_IN_FLIGHT} in flight",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a load found."""

    latencies_ms: list[float]
    per_s: float


async def send(source: Source, port: int, in_flight: int) -> Answers:
    """POST every line of a source once.

    Raises:
        BenchError: something else than a success was answered.
    """
    options = ("--port", str(port), "--post", str(source.path), "--in-flight", str(in_flight))
    async with worker("load", *options) as load:
        await load.go()
        report = await load.answer()
    if report["failed"] or len(report["times"]) != source.events:
        raise BenchError(
            f"{len(report['times'])} of {source.events} requests answered; {report['failed']}"
        )
    times = report["times"]
    span = max(ended for _, ended in times) - min(began for began, _ in times)
    return Answers(
        latencies_ms=[(ended - began) * 1000 for began, ended in times],
        per_s=len(times) / span,
    )


class Rounds:
    """A server, a bare handler, and what they did in turn."""

    def __init__(
        self, bench: Bench, pipeline: Pipeline, database: Database, results: dict[str, Result]
    ) -> None:
        self._bench = bench
        self._pipeline = pipeline
        self._database = database
        self._results = results
        self._sent = 0

    async def alone(self, source: Source, bare_port: int) -> None:
        """Compare without a processor."""
        bare, ours = await self._both(source, bare_port, MANY_IN_FLIGHT)
        self._results[SINGLE].add(alone_per_s=ours.per_s, alone_bares=ours.per_s / bare.per_s)

    async def many(self, source: Source, bare_port: int) -> None:
        """Compare with many requests in flight."""
        meter = self._bench.meter(self._database, self._pipeline.pids)
        bare, ours = await self._both(source, bare_port, MANY_IN_FLIGHT)
        await until_applied(self._pipeline, self._database, self._sent)
        if SINGLE in self._results:
            result = self._results[SINGLE]
            result.uses.append(meter.read())
            result.add(events_per_s=ours.per_s, bare_per_s=bare.per_s)
            result.add(bares=ours.per_s / bare.per_s)
        self._add_latencies("64", bare, ours)
        self._bench.say(f"{MANY_IN_FLIGHT} in flight: {ours.per_s:.0f}/s, bare {bare.per_s:.0f}/s")

    async def one_by_one(self, source: Source, bare_port: int) -> None:
        """Compare with one request at a time."""
        bare, ours = await self._both(source, bare_port, 1)
        await until_applied(self._pipeline, self._database, self._sent)
        self._add_latencies("1", bare, ours)

    async def _both(
        self, source: Source, bare_port: int, in_flight: int
    ) -> tuple[Answers, Answers]:
        await self._bench.level()
        await self._pipeline.idle()
        bare = await send(source, bare_port, in_flight)
        ours = await send(source, self._pipeline.port, in_flight)
        self._sent += source.events
        return bare, ours

    def _add_latencies(self, name: str, bare: Answers, ours: Answers) -> None:
        if ACK not in self._results:
            return
        found = {}
        for percent in (50, 99):
            found[f"p{percent}_{name}_ms"] = percentile(ours.latencies_ms, percent)
            found[f"bare_p{percent}_{name}_ms"] = percentile(bare.latencies_ms, percent)
        bares = found[f"p50_{name}_ms"] / found[f"bare_p50_{name}_ms"]
        self._results[ACK].add(**found, **{f"p50_{name}_bares": bares})


async def measure(bench: Bench, names: Sequence[str]) -> list[Result]:
    """Do the rounds of the rows asked for."""
    results = {name: Result(row=name, work=WORK[name]) for name in WORK if name in names}
    many = await bench.source("requests", EVENTS, *USERS)
    few = await bench.source("requests-one-by-one", EVENTS_ONE_BY_ONE, *USERS)
    runs = bench.options.runs_of(RUNS)
    faults: list[str] = []
    async with bench.database() as database, bench.pipeline(database) as pipeline:
        rounds = Rounds(bench, pipeline, database, results)
        try:
            async with worker("bare", str(bench.directory / "bare.jsonl")) as bare:
                port = int(bare.ready[1])
                alone_runs = runs if SINGLE in names else 0
                await pipeline.start("server")
                for _ in range(alone_runs):
                    await rounds.alone(many, port)
                await pipeline.start("processor", "client")
                for _ in range(runs):
                    await rounds.many(many, port)
                    if ACK in names:
                        await rounds.one_by_one(few, port)
            await pipeline.stop()
            sent = {many: runs + alone_runs, few: runs * (ACK in names)}
            faults += await database.check_applied(sent)
        except (BenchError, TimeoutError) as error:
            faults.append(str(error) or "it took too long")
    for result in results.values():
        result.faults += faults
    if SINGLE in names:
        await _own_client(bench, results[SINGLE], runs)
    _judge(results)
    return list(results.values())


async def _own_client(bench: Bench, result: Result, runs: int) -> None:
    """The pipeline's own client, which sends one line per request; a figure without a bar."""
    source = await bench.source("requests", EVENTS, *USERS)
    own = Result(row="own client", work="ETL_BATCH_EVENTS=1")
    for _ in range(runs):
        await pipeline_once(bench, source, own, {"ETL_BATCH_EVENTS": "1"})
    result.faults += own.faults
    for seconds in own.figures.get("seconds", []):
        result.add(client_per_s=source.events / seconds)


def _judge(results: dict[str, Result]) -> None:
    if single := results.get(SINGLE):
        single.bars.append(
            Bar(
                text="of the bare handler's",
                value=single.median("bares"),
                limit=BARE_MIN,
                at_least=True,
            )
        )
    if ack := results.get(ACK):
        ack.bars += [
            Bar(
                text=f"p50 to bare, {n} in flight",
                value=ack.median(f"p50_{n}_bares"),
                limit=ACK_MAX,
            )
            for n in ("1", "64")
        ]


FAMILY = Family(
    rows=tuple(Row(name=name, work=work) for name, work in WORK.items()), measure=measure
)
