"""One unbroken stretch of the processor's work, from offsets just loaded to the first failure.

    log ──read, verify, fold (a thread)──▶ pending chunk ──commit──▶ PostgreSQL ──▶ mirror

Invariants:

* One commit is in flight at a time; the next chunk grows meanwhile, within the bounds of a chunk.
* With nothing more to read, what is pending is committed at once; with a backlog, at the pace that
  `sink/pace.py` says.
* After a failure nothing here is used again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from etl.apply.places import move_of
from etl.apply.retention import Retention
from etl.log.reader import LogReader
from etl.runtime.errors import EtlError
from etl.sink import mirror
from etl.sink.chunk import Bound, Chunk
from etl.sink.commit import Committer
from etl.sink.faults import GuardError
from etl.sink.pace import Pace
from etl.sink.report import Report
from etl.sink.turn import Turn

# So much is read and folded at a time: small enough to look at the commit in between (20 ms).
READ_BYTES = 2 * 1024 * 1024
# Without lag the log is looked into so often, for all that is not lag: a damaged partition that was
# repaired, or another server's partitions.
FULL_LOOK_S = 1.0
# A stop waits so long for the commit in flight, then the connection is cut.
COMMIT_STOP_S = 1.5

OnCommit = Callable[[Chunk], None]


class Stream:
    """One unbroken stretch of work: from offsets just loaded to a stop or the first failure."""

    def __init__(
        self,
        reader: LogReader,
        committer: Committer,
        shown: mirror.Mirror,
        retention: Retention,
        bound: Bound,
        on_commit: OnCommit,
    ) -> None:
        self._reader = reader
        self._committer = committer
        self._mirror = shown
        self._retention = retention
        self._on_commit = on_commit
        self._bound = bound
        self._pending = Chunk(users_max=bound.users_max)
        self._commit: asyncio.Task[None] | None = None
        self._pace = Pace()
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
                if self._commit is None and self._is_due(more=fresh):
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

    def _is_due(self, *, more: bool) -> bool:
        return bool(self._pending) and (not more or self._pending.full or self._pace.due)

    def _news(self) -> bool:
        """Say whether a look into the log is due; on the loop, since it is one `pread`.

        A thread for each poll would cost more than all the rest of it.
        """
        return time.monotonic() >= self._look_at or self._reader.lag_events() > 0

    def fill(self) -> bool:
        """Read the next of the log into the pending chunk; say whether there was any."""
        blocks = self._reader.read(READ_BYTES)
        for block in blocks:
            self._pending.add(move_of(block), block.data, judged=block.judged)
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
        self._pace.begin()
        await self._committer.commit(chunk)
        self._pace.end()
        self._mirror.move(move.after for move in chunk.moves.values())
        for move in chunk.moves.values():
            self._retention.moved(move)
        self._on_commit(chunk)
        self._report.add(chunk)
        if self._mirror.due:
            await asyncio.to_thread(self._mirror.write)
        await self._tidy()

    async def _tidy(self) -> None:
        """Do what waits for its time, between two commits."""
        await self._committer.retry_deferred()
        if self._retention.due:
            self._mirror.fold(await self._retention.run())

    async def _idle(self, stopping: asyncio.Task[bool], poll_s: float, turn: Turn) -> None:
        """Nothing new: catch up on what waits, then wait for the next poll."""
        if self._commit is not None:
            await self._settle(stopping, timeout_s=poll_s)
            return
        if self._mirror.due:
            await asyncio.to_thread(self._mirror.write)
        await self._tidy()
        self._report.say()
        turn.try_take()
        await self._rest(stopping, poll_s)

    async def _rest(self, stopping: asyncio.Task[bool], poll_s: float) -> None:
        """Wait for the stop or until a poll finds something to do, at most until a look is due.

        A poll is a timer: to wake this task for each would cost twice as much.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[None] = loop.create_future()
        timer: asyncio.TimerHandle

        def poll() -> None:
            nonlocal timer
            try:
                if self._news() or self._mirror.changed or self._committer.is_retry_due:
                    found.set_result(None)
                else:
                    timer = loop.call_later(poll_s, poll)
            except Exception as error:  # noqa: BLE001  whoever waits gets it
                found.set_exception(error)

        timer = loop.call_later(poll_s, poll)
        waiting: set[asyncio.Future[Any]] = {found, stopping}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        timer.cancel()
        if found.done():
            found.result()

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
