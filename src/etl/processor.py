"""The processor: partitions → one delta per user → PostgreSQL, in one transaction with offsets.

    log ──read, verify, fold (a thread)──▶ pending chunk ──commit──▶ PostgreSQL ──▶ mirror

Invariants:

* One rule of recovery: whatever fails, all that is in memory is thrown away, and the work starts
  again from the offsets in the database. Nothing is retried blind, and no attempt is the last.
* One commit is in flight at a time; the next chunk grows meanwhile, within the bounds of a chunk.
* No fault of the database, the log or another process ends this one; a stop does, within 3 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg

from etl.log.identity import read_or_make_log_id
from etl.log.names import is_name, list_names
from etl.log.position import Position, start_of
from etl.log.reader import Block, LogReader, has_watermark, position_after
from etl.runtime.backoff import Backoff
from etl.runtime.errors import EtlError
from etl.runtime.files import make_private_directory, remove_temporaries
from etl.runtime.lifecycle import fields, main, stopped_within
from etl.runtime.settings import Settings
from etl.sink import mirror, offsets, schema
from etl.sink.chunk import Bound, Chunk
from etl.sink.commit import Committer
from etl.sink.connection import Connector, close
from etl.sink.deferral import Deferred
from etl.sink.faults import GuardError, database_faults
from etl.sink.offsets import Move, Offset
from etl.sink.original import TakeoverError, read_counts
from etl.sink.report import Report
from etl.sink.turn import Turn

logger = logging.getLogger(__name__)

# So much is read and folded at a time: small enough to look at the commit in between (20 ms).
READ_BYTES = 2 * 1024 * 1024
# Without lag the log is looked into so often, for all that is not lag: a damaged partition that was
# repaired, or another server's partitions.
FULL_LOOK_S = 1.0
# A stop waits so long for the commit in flight, then the connection is cut; and a little longer
# for everything.
COMMIT_STOP_S = 1.5
STOP_S = 2.0

OnCommit = Callable[[Chunk], None]


def _ignore(_: Chunk) -> None:
    """Nobody waits for commits."""


class Processor:
    """Applies the log of one directory, for as long as it is told."""

    def __init__(self, settings: Settings, *, on_commit: OnCommit = _ignore) -> None:
        self._settings = settings
        self._directory = settings.data_path
        self._connector = Connector(settings, role="processor")
        self._on_commit = on_commit
        self._backoff = Backoff()
        self._bound = Bound()
        self._complaint = ""
        self._others: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Work until the stop."""
        make_private_directory(self._directory)
        log_id = await self._log_id(stop)
        if log_id is None:
            return
        turn = Turn(self._directory, log_id=log_id, takeover_s=self._settings.takeover_s)
        working = asyncio.create_task(self._keep_working(turn, log_id, stop))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({working}, timeout=STOP_S)
        finally:
            stopping.cancel()
            working.cancel()  # if it is still connecting; nothing happens if it has ended
            with contextlib.suppress(asyncio.CancelledError):
                await working
            turn.release()
            self._connector.close()

    async def _log_id(self, stop: asyncio.Event) -> str | None:
        """Return the id of the log, as soon as it can be had; None after a stop."""
        while not stop.is_set():
            try:
                return await asyncio.to_thread(read_or_make_log_id, self._directory)
            except EtlError as error:
                self._complain(str(error))
                await stopped_within(stop, self._backoff.next_s())
        return None

    async def _keep_working(self, turn: Turn, log_id: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._work(turn, log_id, stop)
            except GuardError as error:
                logger.warning("stepping back: %s", error)
                turn.step_back()
            except (EtlError, OSError) as error:
                self._bound.narrow()
                self._complain(str(error))
                await stopped_within(stop, self._backoff.next_s())

    async def _work(self, turn: Turn, log_id: str, stop: asyncio.Event) -> None:
        """Connect, find out how far everything is, and go on from there until something fails."""
        connection = await self._connector.connect()
        try:
            await schema.apply(connection, log_id=log_id, take_over=self._original_offsets)
            if not turn.try_take() and not await turn.stand_by(connection, stop, lag=self._lag):
                return
            await self._stream(connection, turn, log_id, stop)
        finally:
            await close(connection)

    async def _stream(
        self, connection: asyncpg.Connection, turn: Turn, log_id: str, stop: asyncio.Event
    ) -> None:
        deferred = Deferred()
        with database_faults():
            known = await offsets.load(connection, log_id)
            others = await offsets.other_logs(connection, log_id)
            await deferred.load(connection)
            listed = await asyncio.to_thread(list_names, self._directory)
            earlier = [name for name in listed if name <= (known.newest or "")]
            # Another server, with another clock, may have named partitions before our newest.
            missed = await offsets.without_row(connection, log_id, earlier)
        committer = Committer(connection, log_id=log_id, known=known, deferred=deferred)
        reader = LogReader(
            self._directory,
            undone=[*map(_position, known.undone), *(start_of(name) for name in missed)],
            newest=known.newest,
            done=() if has_watermark(self._directory) else set(earlier) - missed,
        )
        remove_temporaries(self._directory / mirror.FILE_NAME)
        shown = mirror.Mirror(self._directory, known)
        stream = Stream(reader, committer, shown, self._bound, self._committed)
        try:
            fresh = await asyncio.to_thread(stream.fill)
            if not (fresh and self._complaint):  # else its commit will tell whether all is well
                self._say_working(known, others)
            await stream.run(stop, poll_s=self._settings.poll_interval_ms / 1000, turn=turn)
        finally:
            reader.close()

    def _committed(self, chunk: Chunk) -> None:
        if self._complaint:
            logger.info("working again")
        self._bound.widen()
        self._all_is_well()
        self._on_commit(chunk)

    async def _lag(self, undone: list[Offset], newest: str) -> int:
        return await asyncio.to_thread(_count_lag, self._directory, undone, newest)

    async def _original_offsets(self) -> list[Offset] | None:
        return await asyncio.to_thread(original_offsets, self._directory)

    def _say_working(self, known: offsets.Known, others: list[str]) -> None:
        self._all_is_well()
        if others != self._others:
            logger.info("other logs have offsets in this database", extra=fields(logs=others))
            self._others = others
        logger.info("working", extra=fields(applied=known.lines, newest=known.newest))

    def _all_is_well(self) -> None:
        self._complaint = ""
        self._backoff.reset()

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            logger.error("%s", complaint)
        self._complaint = complaint


class Stream:
    """One unbroken stretch of work: from offsets just loaded to a stop or the first failure."""

    def __init__(
        self,
        reader: LogReader,
        committer: Committer,
        shown: mirror.Mirror,
        bound: Bound,
        on_commit: OnCommit,
    ) -> None:
        self._reader = reader
        self._committer = committer
        self._mirror = shown
        self._on_commit = on_commit
        self._bound = bound
        self._pending = Chunk(users_max=bound.users_max)
        self._commit: asyncio.Task[None] | None = None
        self._report = Report()
        self._look_at = 0.0

    async def run(self, stop: asyncio.Event, *, poll_s: float, turn: Turn) -> None:
        """Apply what comes; returns after a stop, raises the first failure."""
        await asyncio.to_thread(self._mirror.write)
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                fresh = self._news() and await asyncio.to_thread(self.fill)
                await self._settle(stopping, timeout_s=None if self._pending.full else 0)
                if self._commit is None and self._pending:
                    self._commit = asyncio.create_task(self._apply(self._pending))
                    self._pending = Chunk(users_max=self._bound.users_max)
                elif not fresh:
                    await self._idle(stopping, poll_s, turn)
        except GuardError:
            self._mirror.give_up()
            raise
        finally:
            stopping.cancel()
            await self._finish()

    def _news(self) -> bool:
        """Say whether a look into the log is due; on the loop, since it is one `pread`.

        A thread for each poll would cost more than all the rest of it.
        """
        return time.monotonic() >= self._look_at or self._reader.lag_events() > 0

    def fill(self) -> bool:
        """Read the next of the log into the pending chunk; say whether there was any."""
        blocks = self._reader.read(READ_BYTES)
        for block in blocks:
            self._pending.add(_move(block), block.data)
        if not blocks and self._mirror.is_anothers():
            raise GuardError(f"another processor has written {mirror.FILE_NAME}")
        # Where there was something there may be more.
        self._look_at = 0.0 if blocks else time.monotonic() + FULL_LOOK_S
        return bool(blocks)

    async def _settle(self, stopping: asyncio.Task[bool], *, timeout_s: float | None) -> None:
        """Wait for the commit in flight, at most so long, or the stop; raise what it raised."""
        if self._commit is None:
            return
        await asyncio.wait(
            {self._commit, stopping}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if self._commit.done():
            commit, self._commit = self._commit, None
            commit.result()

    async def _apply(self, chunk: Chunk) -> None:
        await self._committer.commit(chunk)
        self._mirror.move(move.after for move in chunk.moves.values())
        self._on_commit(chunk)
        self._report.add(chunk)
        if self._mirror.due:
            await asyncio.to_thread(self._mirror.write)
        await self._committer.retry_deferred()

    async def _idle(self, stopping: asyncio.Task[bool], poll_s: float, turn: Turn) -> None:
        """Nothing new: catch up on what waits, then wait for the next poll."""
        if self._commit is not None:
            await self._settle(stopping, timeout_s=poll_s)
            return
        if self._mirror.due:
            await asyncio.to_thread(self._mirror.write)
        await self._committer.retry_deferred()
        self._report.say()
        turn.try_take()
        await asyncio.wait({stopping}, timeout=poll_s)

    async def _finish(self) -> None:
        """Let the commit in flight end, and show how far it is."""
        if self._commit is not None:
            _, running = await asyncio.wait({self._commit}, timeout=COMMIT_STOP_S)
            if running:
                self._committer.abort()
            try:
                await self._commit
            except GuardError:
                self._mirror.give_up()
            except EtlError:
                pass  # nobody knows; the next start finds out
        if self._mirror.changed:
            await asyncio.to_thread(self._mirror.write)


def original_offsets(directory: Path) -> list[Offset] | None:
    """Return how far the original program was, by its own file, or None where there is none.

    Raises:
        EtlError: the file does not fit the partitions.
    """
    counts = read_counts(directory)
    if counts is None:
        return None
    found: list[Offset] = []
    for partition, lines in sorted(counts.items()):
        if not is_name(partition):
            raise TakeoverError(
                f"{directory / mirror.FILE_NAME} names {partition!r}, which is no partition",
                hint="remove that member if it stands for nothing that was applied",
            )
        if not (directory / partition).exists():
            # Deleted by hand: what was applied stays applied, and nothing can follow.
            found.append(Offset(partition=partition, byte=0, line=lines, done=True))
            continue
        place = position_after(directory, partition, lines)
        found.append(Offset(partition=partition, byte=place.byte, line=lines, done=False))
    return found


def _count_lag(directory: Path, undone: list[Offset], newest: str) -> int:
    reader = LogReader(
        directory, undone=[_position(offset) for offset in undone], newest=newest or None
    )
    try:
        return reader.lag_events()
    finally:
        reader.close()


def _position(offset: Offset) -> Position:
    return Position(partition=offset.partition, byte=offset.byte, line=offset.line)


def _move(block: Block) -> Move:
    start, end = block.start, block.end
    return Move(
        before=Offset(partition=start.partition, byte=start.byte, line=start.line, done=False),
        after=Offset(partition=end.partition, byte=end.byte, line=end.line, done=block.done),
    )


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run the processor until the stop."""
    await Processor(settings).run(stop)


if __name__ == "__main__":
    sys.exit(main("processor", run))
