"""How far each partition of a log has been applied: the table `partition_offsets`.

Invariants:

* An offset moves only inside the transaction that applies the events it covers: `move` takes a
  connection that is in one.
* An offset moves only from the values that this processor last read or wrote; otherwise
  `GuardError`, and the transaction must end without effect. So of two processors that apply the
  same events one gets through.
* The rows of deleted partitions become one, so the sum of all lines stays that of what was applied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import asyncpg

from etl.sink import statements
from etl.sink.faults import GuardError

# Entries that the mirror shows one by one; older ones are one sum.
RECENT_MAX = 1_000
NAMES_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """So many bytes and lines of a partition are applied; with `done`, nothing will follow."""

    partition: str
    byte: int
    line: int
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What one transaction applies of a partition: everything between two places."""

    before: Offset
    after: Offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The offsets of one log, as one snapshot of the database has them.

    `deleted` stands for all that retention has deleted; `kept_bytes` are applied of all others.
    """

    undone: tuple[Offset, ...]
    newest: str | None
    recent_done: dict[str, int]
    older_done_lines: int
    deleted: Offset | None = None
    kept_bytes: int = 0

    @property
    def lines(self) -> int:
        """The number of lines applied, in all partitions."""
        recent = sum(self.recent_done.values())
        return recent + self.older_done_lines + sum(o.line for o in self.undone)


async def load(connection: asyncpg.Connection, log_id: str) -> Known:
    """Read the offsets of a log; only those not done, and the newest done ones, one by one."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        undone = await connection.fetch(statements.OFFSETS_UNDONE, log_id)
        newest = await connection.fetchval(statements.OFFSETS_NEWEST, log_id)
        recent = await connection.fetch(statements.OFFSETS_DONE_NEWEST, log_id, RECENT_MAX)
        deleted = await connection.fetchrow(statements.OFFSETS_DELETED, log_id)
        sums = await connection.fetchrow(statements.OFFSETS_SUMS, log_id)
    recent_done = {row["partition"]: row["lines"] for row in reversed(recent)}
    return Known(
        undone=tuple(
            Offset(partition=row["partition"], byte=row["bytes"], line=row["lines"], done=False)
            for row in undone
        ),
        newest=newest,
        recent_done=recent_done,
        older_done_lines=sums["done_lines"] - sum(recent_done.values()),
        deleted=_deleted(deleted) if deleted else None,
        kept_bytes=sums["kept_bytes"],
    )


def _deleted(row: asyncpg.Record) -> Offset:
    return Offset(partition=row["partition"], byte=row["bytes"], line=row["lines"], done=True)


async def load_undone(connection: asyncpg.Connection, log_id: str) -> tuple[list[Offset], str]:
    """Read only what says whether and how far a log has moved."""
    rows = await connection.fetch(statements.OFFSETS_UNDONE, log_id)
    newest = await connection.fetchval(statements.OFFSETS_NEWEST, log_id)
    undone = [
        Offset(partition=row["partition"], byte=row["bytes"], line=row["lines"], done=False)
        for row in rows
    ]
    return undone, newest or ""


async def without_row(
    connection: asyncpg.Connection, log_id: str, names: Sequence[str]
) -> set[str]:
    """Return those of some partitions, in order, that no transaction has applied anything of.

    Those that were deleted have no row of their own either.
    """
    found: set[str] = set()
    for start in range(0, len(names), NAMES_MAX):
        some = names[start : start + NAMES_MAX]
        bounds = some[0], some[-1]
        with_row = await connection.fetchval(statements.OFFSETS_WITH_ROW, log_id, *bounds)
        if with_row == "".join(some):
            continue
        rows = await connection.fetch(statements.OFFSETS_WITHOUT_ROW, log_id, some, *bounds)
        found |= {row["partition"] for row in rows}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Oldest:
    """A partition that has not been deleted; `age_s` after its offset last moved."""

    partition: str
    byte: int
    done: bool
    age_s: float


async def oldest(connection: asyncpg.Connection, log_id: str, limit: int) -> list[Oldest]:
    """Return the oldest partitions that have a row and were not deleted, in order."""
    return [
        Oldest(partition=row["partition"], byte=row["bytes"], done=row["done"], age_s=row["age_s"])
        for row in await connection.fetch(statements.OFFSETS_OLDEST, log_id, limit)
    ]


async def done_upto(connection: asyncpg.Connection, log_id: str, partition: str) -> int:
    """Return the lines of all partitions up to one that are done, deleted ones too."""
    found: int = await connection.fetchval(statements.OFFSETS_DONE_UPTO, log_id, partition)
    return found


async def delete(connection: asyncpg.Connection, log_id: str, names: Collection[str]) -> None:
    """Let the rows of done partitions become one with that of all that were deleted before."""
    await connection.execute(statements.OFFSETS_DELETE, log_id, names)


async def other_logs(connection: asyncpg.Connection, log_id: str) -> list[str]:
    """Return the first few other logs that have offsets in this database."""
    return [row["log_id"] for row in await connection.fetch(statements.OTHER_LOGS, log_id)]


async def move(
    connection: asyncpg.Connection, log_id: str, moves: Iterable[Move], *, known: Collection[str]
) -> None:
    """Move offsets, inside the caller's transaction; `known` are the partitions that have a row.

    Raises:
        GuardError: a row is not as expected; nothing of this transaction may be kept.
    """
    moves = sorted(moves, key=lambda m: m.after.partition)
    changed = [m for m in moves if m.after.partition in known]
    if changed:
        rows = await connection.fetch(
            statements.OFFSETS_MOVE,
            log_id,
            [m.after.partition for m in changed],
            [m.before.byte for m in changed],
            [m.before.line for m in changed],
            [m.after.byte for m in changed],
            [m.after.line for m in changed],
            [m.after.done for m in changed],
        )
        _check_all_moved(changed, rows)
    fresh = [m for m in moves if m.after.partition not in known]
    if fresh:
        rows = await add(connection, log_id, [m.after for m in fresh])
        _check_all_moved(fresh, rows)


async def add(
    connection: asyncpg.Connection, log_id: str, offsets: Collection[Offset]
) -> list[asyncpg.Record]:
    """Write first rows; return those that were not there yet."""
    rows: list[asyncpg.Record] = await connection.fetch(
        statements.OFFSETS_ADD,
        log_id,
        [o.partition for o in offsets],
        [o.byte for o in offsets],
        [o.line for o in offsets],
        [o.done for o in offsets],
    )
    return rows


def _check_all_moved(moves: Collection[Move], rows: Collection[asyncpg.Record]) -> None:
    moved = {row["partition"] for row in rows}
    for one in moves:
        if one.after.partition not in moved:
            raise GuardError(
                f"offset of {one.after.partition} is not byte {one.before.byte}, "
                f"line {one.before.line} any more: another processor has moved it"
            )
