"""Row of a long life: what a poll, a start, a commit and retention cost after so many partitions.

Time is lapsed: partitions of one event each are made by the clock in their names, their rows by
COPY, all of them done but the newest. What the log's own start checks of them (headers, checksums,
the events up to the watermark) holds. Files that nothing reads or deletes are links to a few, so a
million take no room; the first ones, which retention deletes, are files of their own.

The two smaller sizes are always measured; `--scale 100` adds a million, which takes some minutes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from benchmarks.bench import Bench, Database
from benchmarks.pipeline import Pipeline
from benchmarks.results import Bar, Result
from benchmarks.rows import Family, Row
from etl.apply.places import move_of, position_of
from etl.apply.retention import Limits, Retention
from etl.log import producers, watermark
from etl.log.files import LogFiles
from etl.log.header import Batch, encode
from etl.log.identity import read_or_make_log_id
from etl.log.names import WINDOW_S, list_names, name_at
from etl.log.producers import Producers, Snapshot
from etl.log.reader import LogReader
from etl.log.recovery import recover
from etl.log.watermark import Watermark
from etl.processor import Processor
from etl.runtime.settings import Settings
from etl.sink import offsets, schema
from etl.sink.chunk import Chunk
from etl.sink.commit import Committer
from etl.sink.deferral import Deferred
from etl.sink.mirror import Mirror

LONGLIFE = "longlife"
WORK = "the cost of a life after {} partitions"
SMALL, LARGE = 100, 10_000
RUNS = 5
POLLS, COMMITS, PASSES, LOOKS = 5_000, 40, 3, 20
# Retention deletes so many at a time; of the smallest log it takes most in all runs.
PASS_PARTITIONS = 5
OWN_FILES = 2_000
LINKS_MAX = 50_000
IDLE_S = 20.0
RATIO_MAX = 1.2
IDLE_PERCENT_MAX = 1.0
# 2020-01-01, so that the years end before today, from when the log goes on.
FIRST_S = 1_577_836_800.0
EVENT = b'{"userId":"user1","name":"add_revenue","value":98}\n'
COLUMNS = ("log_id", "partition", "bytes", "lines", "done", "moved_at")


class Life:
    """A log of so many partitions, applied, and what is measured of it."""

    def __init__(self, bench: Bench, database: Database, pipeline: Pipeline, size: int) -> None:
        self.size = size
        self._bench = bench
        self._database = database
        self._pipeline = pipeline
        self._directory = pipeline.data
        self._log_id = ""
        self._now_s = FIRST_S

    async def make(self) -> None:
        """Make files and rows."""
        self._directory.mkdir(mode=0o700)
        self._log_id = read_or_make_log_id(self._directory)
        names = await asyncio.to_thread(self._make_files)
        size, long_ago = len(_BATCH), datetime.now(UTC) - timedelta(days=1)
        rows = [
            (self._log_id, name, size, 1, number < self.size - 1, long_ago)
            for number, name in enumerate(names)
        ]
        connection = await self._connect()
        try:
            await schema.apply(connection, log_id=self._log_id, take_over=_nothing)
            await connection.copy_records_to_table(
                "partition_offsets", records=rows, columns=COLUMNS
            )
            await connection.execute("VACUUM ANALYZE partition_offsets")
        finally:
            await connection.close()

    def _make_files(self) -> list[str]:
        names: list[str] = []
        source: Path | None = None
        for number in range(self.size):
            path = self._directory / name_at(self._now_s)
            self._now_s += WINDOW_S
            names.append(path.name)
            if source is None or number < OWN_FILES or number % LINKS_MAX == 0:
                path.write_bytes(_BATCH)
                path.chmod(0o600)
                source = path
            else:
                os.link(source, path)
        newest = names[-1]
        (self._directory / newest).unlink()  # it is appended to
        (self._directory / newest).write_bytes(_BATCH)
        snapshot = Snapshot(partition=newest, events=self.size - 1, producers={})
        producers.save(self._directory, snapshot)
        mark = Watermark(
            partition=newest,
            previous=names[-2],
            bytes=len(_BATCH),
            lines=1,
            events=self.size,
            boot=watermark.boot_id(),
        )
        os.close(watermark.create(self._directory, mark))
        return names

    async def measure(self, result: Result) -> None:
        """Do each thing some times; keep the median of each in microseconds or milliseconds."""
        figures: dict[str, float] = {}
        with _timed(figures, "listing_ms", 1e3):
            list_names(self._directory)
        with _timed(figures, "server_start_ms", 1e3):
            recovered = recover(self._directory)
            files = LogFiles(self._directory, recovered, clock=lambda: self._now_s)
        try:
            figures["processor_start_ms"] = await self._start_processor() * 1e3
            await self._work(files, figures)
        finally:
            files.close()
        result.add(**{f"{name}_{self.size}": value for name, value in figures.items()})

    async def _start_processor(self) -> float:
        """Return how long a processor takes from its start until it works."""
        stop, heard = asyncio.Event(), _Heard()
        settings = Settings(data_dir=str(self._directory), database_url=self._database.dsn)
        with heard.hearing():
            began = time.perf_counter()
            running = asyncio.create_task(Processor(settings).run(stop))
            await heard.working.wait()
            took = heard.at - began
        stop.set()
        await running
        return took

    async def _work(self, files: LogFiles, figures: dict[str, float]) -> None:
        connection = await self._connect()
        try:
            known = await offsets.load(connection, self._log_id)
            reader = LogReader(
                self._directory, undone=map(position_of, known.undone), newest=known.newest
            )
            try:
                reader.read(1)
                figures["poll_us"] = _median(POLLS, reader.lag_events) * 1e6
                await self._commit(files, reader, connection, known, figures)
            finally:
                reader.close()
            await self._delete(connection, figures)
        finally:
            await connection.close()

    async def _commit(
        self,
        files: LogFiles,
        reader: LogReader,
        connection: asyncpg.Connection,
        known: offsets.Known,
        figures: dict[str, float],
    ) -> None:
        """Append, read and commit, each time in a new partition, so that one is done each time."""
        committer = Committer(connection, log_id=self._log_id, known=known, deferred=Deferred())
        shown = Mirror(self._directory, known)
        nobody = Producers({}, producers_max=1)
        times: dict[str, list[float]] = {"append_ms": [], "read_ms": [], "commit_ms": []}
        for _ in range(COMMITS):
            self._now_s += WINDOW_S
            began = time.perf_counter()
            files.commit(_BATCH, 1, nobody)
            appended = time.perf_counter()
            chunk = Chunk()
            while blocks := reader.read(1 << 20):
                for block in blocks:
                    chunk.add(move_of(block), block.data)
            read = time.perf_counter()
            await committer.commit(chunk)
            committed = time.perf_counter()
            shown.move(move.after for move in chunk.moves.values())
            times["append_ms"].append(appended - began)
            times["read_ms"].append(read - appended)
            times["commit_ms"].append(committed - read)
        with _timed(figures, "mirror_ms", 1e3):
            shown.write()
        figures |= {name: statistics.median(found) * 1e3 for name, found in times.items()}

    async def _delete(self, connection: asyncpg.Connection, figures: dict[str, float]) -> None:
        times: list[float] = []
        for _ in range(PASSES):
            known = await offsets.load(connection, self._log_id)
            kept = known.kept_bytes - PASS_PARTITIONS * len(_BATCH)
            limits = Limits(age_s=3600, size_bytes=kept)
            retention = Retention(
                self._directory, connection, log_id=self._log_id, known=known, limits=limits
            )
            began = time.perf_counter()
            names = await retention.run()
            times.append(time.perf_counter() - began)
            if len(names) != PASS_PARTITIONS:
                raise AssertionError(f"{len(names)} partitions were deleted")
        figures["retention_ms"] = statistics.median(times) * 1e3
        looks: list[float] = []
        for _ in range(LOOKS):
            began = time.perf_counter()
            await retention.run()
            looks.append(time.perf_counter() - began)
        figures["retention_look_ms"] = statistics.median(looks) * 1e3

    async def idle(self, result: Result) -> None:
        """Let all three processes wait, and see what that costs; the source stays empty."""
        (self._pipeline.directory / "events.jsonl").touch()
        await self._pipeline.start("server", "processor", "client")
        await self._pipeline.idle()
        meter = self._bench.meter(self._database, self._pipeline.pids)
        await asyncio.sleep(IDLE_S)
        uses = meter.read()
        await self._pipeline.stop()
        roles = ("server", "processor", "client")
        percent = {role: uses[role].cpu_s / IDLE_S * 100 for role in roles}
        result.add(**{f"idle_percent_{self.size}": sum(percent.values())})
        told = ", ".join(f"{role} {percent[role]:.2f} %" for role in roles)
        result.notes.append(f"idle after {self.size} partitions: {told} of a core")

    async def check(self) -> list[str]:
        """Say what is wrong: every event has to be applied once."""
        applied, stored = await self._database.applied(), recover(self._directory).watermark.events
        return [] if applied == stored else [f"{applied} events are applied, {stored} are stored"]

    async def _connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self._database.dsn)


_BATCH = encode(Batch(data=EVENT, events=1))


async def _nothing() -> None:
    return None


@contextmanager
def _timed(figures: dict[str, float], name: str, unit: float) -> Iterator[None]:
    began = time.perf_counter()
    yield
    figures[name] = (time.perf_counter() - began) * unit


def _median(times: int, work: Callable[[], object]) -> float:
    found: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


class _Heard(logging.Handler):
    """The moment in which a processor says that it works."""

    def __init__(self) -> None:
        super().__init__()
        self.working = asyncio.Event()
        self.at = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "working":
            self.at = time.perf_counter()
            self.working.set()

    @contextmanager
    def hearing(self) -> Iterator[None]:
        logger = logging.getLogger("etl.processor")
        before = logger.level
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.setLevel(before)


@asynccontextmanager
async def _life(bench: Bench, size: int) -> AsyncIterator[Life]:
    async with bench.database() as database, bench.pipeline(database) as pipeline:
        life = Life(bench, database, pipeline, size)
        bench.say(f"{LONGLIFE}: making {size} partitions")
        await life.make()
        yield life


def _bars(result: Result, sizes: Sequence[int]) -> Iterator[Bar]:
    first = sizes[0]
    for size in sizes[1:]:
        for name in ("poll_us", "append_ms", "read_ms", "commit_ms", "retention_ms"):
            ratio = result.median(f"{name}_{size}") / result.median(f"{name}_{first}")
            yield Bar(text=f"{name}, {size} / {first}", value=ratio, limit=RATIO_MAX)
        listing = result.median(f"listing_ms_{size}")
        for name in ("server_start_ms", "processor_start_ms"):
            more = result.median(f"{name}_{size}") - result.median(f"{name}_{first}")
            text = f"{name}, {size} - {first}, in listings"
            yield Bar(text=text, value=more / listing, limit=1.0)
    for size in sizes:
        percent = result.median(f"idle_percent_{size}")
        yield Bar(text=f"idle after {size}, % of a core", value=percent, limit=IDLE_PERCENT_MAX)


async def measure(bench: Bench, names: Sequence[str]) -> list[Result]:
    """Measure all sizes in turn."""
    sizes = sorted({SMALL, LARGE, max(SMALL, round(LARGE * bench.options.scale))})
    result = Result(row=names[0], work=WORK.format(", ".join(map(str, sizes))))
    async with AsyncExitStack() as stack:
        lives = [await stack.enter_async_context(_life(bench, size)) for size in sizes]
        await bench.level()
        for number in range(bench.options.runs_of(RUNS)):
            bench.say(f"{LONGLIFE}: round {number + 1}")
            for life in lives:
                await life.measure(result)
        for life in lives:
            await life.idle(result)
            result.faults += await life.check()
    result.figures = dict(sorted(result.figures.items(), key=_by_name_and_size))
    result.bars += _bars(result, sizes)
    return [result]


def _by_name_and_size(figure: tuple[str, list[float]]) -> tuple[str, int]:
    name, _, size = figure[0].rpartition("_")
    return name, int(size)


FAMILY = Family(rows=(Row(name=LONGLIFE, work=WORK.format("many")),), measure=measure)
