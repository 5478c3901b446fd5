"""The processor: partitions → one delta per user → PostgreSQL, in one transaction with offsets.

Invariants:

* One rule of recovery: whatever fails, all that is in memory is thrown away, and the work starts
  again from the offsets in the database. Nothing is retried blind, and no attempt is the last.
* No fault of the database, the log or another process ends this one; a stop does, within 3 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from bisect import bisect_right

import asyncpg

from etl.apply.places import count_lag, original_offsets, position_of
from etl.apply.retention import Limits, Retention
from etl.apply.stream import OnCommit, Stream
from etl.log import deleted
from etl.log.identity import read_or_make_log_id
from etl.log.names import names_among
from etl.log.position import start_of
from etl.log.reader import LogReader, has_watermark
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
from etl.sink.offsets import Offset
from etl.sink.turn import Turn

logger = logging.getLogger(__name__)

# A stop waits so long for the work to end: a little longer than for the commit in flight.
STOP_S = 2.0


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
            listed = await asyncio.to_thread(self._list)
            earlier = listed[: bisect_right(listed, known.newest or "")]
            # Another server, with another clock, may have named partitions before our newest.
            missed = await offsets.without_row(connection, log_id, earlier)
        retention = self._retention(connection, log_id, known)
        await retention.check(sorted(missed))
        committer = Committer(connection, log_id=log_id, known=known, deferred=deferred)
        reader = LogReader(
            self._directory,
            undone=[*map(position_of, known.undone), *(start_of(name) for name in missed)],
            newest=known.newest,
            done=() if has_watermark(self._directory) else set(earlier) - missed,
        )
        shown = mirror.Mirror(self._directory, known)
        stream = Stream(reader, committer, shown, retention, self._bound, self._committed)
        try:
            fresh = await asyncio.to_thread(stream.fill)
            if not (fresh and self._complaint):  # else its commit will tell whether all is well
                self._say_working(known, others)
            await stream.run(stop, poll_s=self._settings.poll_interval_ms / 1000, turn=turn)
        finally:
            reader.close()

    def _retention(
        self, connection: asyncpg.Connection, log_id: str, known: offsets.Known
    ) -> Retention:
        return Retention(
            self._directory,
            connection,
            log_id=log_id,
            known=known,
            limits=Limits(
                age_s=self._settings.retention_s, size_bytes=self._settings.retention_bytes
            ),
        )

    def _list(self) -> list[str]:
        """Return all partitions, and remove what a killed process left; in one listing."""
        entries = os.listdir(self._directory)  # noqa: PTH208  it may hold a million
        for name in (mirror.FILE_NAME, deleted.FILE_NAME):
            remove_temporaries(self._directory / name, entries)
        return names_among(entries)

    def _committed(self, chunk: Chunk) -> None:
        if self._complaint:
            logger.info("working again")
        self._bound.widen()
        self._all_is_well()
        self._on_commit(chunk)

    async def _lag(self, undone: list[Offset], newest: str) -> int:
        return await asyncio.to_thread(count_lag, self._directory, undone, newest)

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


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run the processor until the stop."""
    await Processor(settings).run(stop)


if __name__ == "__main__":
    sys.exit(main("processor", run))
