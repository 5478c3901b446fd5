"""Retention: done partitions are deleted, the oldest first, when no setting keeps them.

Invariants:

* Deleted is a beginning of the log: the first partition that has to stay keeps all after it.
* A file is removed only when its partition is done, was applied to its last line, and is covered by
  the record in the log; its row goes only when the file is gone, durably.
* A start goes on where a process was killed, also with other settings.
* A database that has not applied all that the log has deleted is refused.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import asyncpg

from etl.log import deleted
from etl.log.deleted import Deleted
from etl.log.reader import OffsetError
from etl.runtime.files import Lock
from etl.runtime.lifecycle import fields
from etl.sink import offsets
from etl.sink.faults import database_faults
from etl.sink.offsets import Known, Move, Oldest

logger = logging.getLogger(__name__)

LOCK_FILE_NAME = "retention.lock"
# No partition is done sooner after the one before; a look is one query for one row.
LOOK_S = 5.0
# At a time, since commits wait meanwhile.
BATCH_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is kept: what was applied within `age_s`, and the newest `size_bytes`; None keeps none.

    Without both, all is kept.
    """

    age_s: int | None
    size_bytes: int | None

    @property
    def any(self) -> bool:
        """Say whether anything is ever deleted."""
        return self.age_s is not None or self.size_bytes is not None


def choose(
    rows: Sequence[Oldest], limits: Limits, *, kept_bytes: int, begun_upto: str
) -> list[Oldest]:
    """Return the first of the oldest partitions, up to one that has to stay.

    What is not newer than `begun_upto` was condemned before, and goes if it is done.
    """

    def goes(row: Oldest) -> bool:
        nonlocal kept_bytes
        kept_bytes -= row.byte
        if row.done and row.partition <= begun_upto:
            return True
        old = limits.age_s is None or row.age_s >= limits.age_s
        beyond = limits.size_bytes is None or kept_bytes >= limits.size_bytes
        return limits.any and row.done and old and beyond

    return list(takewhile(goes, rows))


class Retention:
    """Deletes partitions of one log, over the connection that commits; between two commits."""

    def __init__(
        self,
        directory: Path,
        connection: asyncpg.Connection,
        *,
        log_id: str,
        known: Known,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._connection = connection
        self._log_id = log_id
        self._known = known
        self._kept_bytes = known.kept_bytes
        self._limits = limits
        self._clock = clock
        self._look_at = float("-inf")
        self._complaint = ""

    @property
    def due(self) -> bool:
        """Say whether it is time to look for what may be deleted."""
        return self._clock() >= self._look_at

    def moved(self, move: Move) -> None:
        """Take note of what was committed."""
        self._kept_bytes += move.after.byte - move.before.byte

    async def check(self, unknown: Sequence[str]) -> None:
        """See that log and database agree on what is deleted; `unknown` files have no row.

        Raises:
            OffsetError: the database lacks something that is gone, or a file is back.
            CorruptError: what was deleted can't be read.
        """
        known = self._known.deleted
        if known is not None:
            for name in unknown:
                if name <= known.partition:
                    raise OffsetError(
                        f"{name} is there, but partitions up to {known.partition} are deleted",
                        hint="remove it if it was restored from a copy; "
                        "give it a later name if another server wrote it",
                    )
        record = await asyncio.to_thread(deleted.load, self._directory)
        if known is not None and (record is None or record.partition < known.partition):
            record = Deleted(partition=known.partition, lines=known.line)
            await asyncio.to_thread(self._remove, [], record)
        if record is None:
            return
        with database_faults():
            applied = await offsets.done_upto(self._connection, self._log_id, record.partition)
        if applied < record.lines:
            raise OffsetError(
                f"{record.partition} and all before it are deleted, with {record.lines} lines, "
                f"of which this database has applied {applied}",
                hint="restore a backup of the database that is younger than ETL_RETENTION, "
                "or the whole data directory as it was at the time of this one",
            )

    async def run(self) -> list[str]:
        """Delete the next few partitions, if there are any; return their names.

        Raises:
            DatabaseUnavailable: nobody knows whether their rows are gone.
            CorruptError: what was deleted can't be read.
        """
        self._look_at = self._clock() + LOOK_S if self._limits.any else float("inf")
        record = await asyncio.to_thread(deleted.load, self._directory)
        begun_upto = record.partition if record else ""
        if not await self._chosen(1, begun_upto):
            return []
        rows = await self._chosen(BATCH_MAX, begun_upto)
        rows = await asyncio.to_thread(self._removable, rows)
        if not rows:
            return []
        names = [row.partition for row in rows]
        upto = max(names[-1], begun_upto)
        with database_faults():
            lines = await offsets.done_upto(self._connection, self._log_id, upto)
        condemned = Deleted(partition=upto, lines=lines)
        if not await asyncio.to_thread(self._remove, names, condemned):
            return []
        with database_faults():
            await offsets.delete(self._connection, self._log_id, names)
        self._kept_bytes -= sum(row.byte for row in rows)
        logger.info(
            "partitions deleted",
            extra=fields(partitions=len(names), first=names[0], last=names[-1]),
        )
        self._look_at = self._clock()  # there may be more
        return names

    async def _chosen(self, limit: int, begun_upto: str) -> list[Oldest]:
        with database_faults():
            rows = await offsets.oldest(self._connection, self._log_id, limit)
        return choose(rows, self._limits, kept_bytes=self._kept_bytes, begun_upto=begun_upto)

    def _removable(self, rows: list[Oldest]) -> list[Oldest]:
        """Return those up to one that someone may need, or that is not as it was applied."""
        first_kept = deleted.first_kept(self._directory)

        def goes(row: Oldest) -> bool:
            if row.partition >= first_kept:
                return False
            if deleted.holds_more(self._directory, row.partition, row.byte):
                self._complain(f"{row.partition} is not deleted: it has another end than was read")
                return False
            return True

        return list(takewhile(goes, rows))

    def _remove(self, names: list[str], condemned: Deleted) -> bool:
        """Put on record what goes, then remove it; say whether that was possible.

        Under a lock: a process that was frozen here must not take the record back when it wakes.
        """
        lock = Lock(self._directory / LOCK_FILE_NAME, role="retention")
        if not lock.try_acquire():
            self._complain(f"nothing is deleted: {lock.owner()} is at it")
            return False
        try:
            record = deleted.load(self._directory)
            if record is None or (record.partition, record.lines) < (
                condemned.partition,
                condemned.lines,
            ):
                deleted.save(self._directory, condemned)
            deleted.remove(self._directory, names)
        except OSError as error:
            self._complain(f"partitions can't be deleted: {error}")
            return False
        finally:
            lock.release()
        return True

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            logger.warning("%s", complaint)
        self._complaint = complaint
