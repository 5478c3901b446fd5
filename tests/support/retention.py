"""Partitions that were applied, for the tests of retention, and what has to hold of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from etl.apply.retention import Limits, Retention
from etl.log import deleted
from etl.log.identity import read_or_make_log_id
from etl.log.names import list_names
from etl.runtime.files import make_private_directory
from etl.sink import mirror, offsets
from support.database import Database, prepared
from support.partitions import Log, random_events
from support.processing import processor

LINES = 20
KEEP_NOTHING = Limits(age_s=None, size_bytes=1)
KEEP_ALL = Limits(age_s=None, size_bytes=None)
COLUMNS = "log_id, partition, bytes, lines, done, moved_at, deleted"


@dataclass(slots=True, kw_only=True)
class Applied:
    """A log, applied to a database by a processor."""

    directory: Path
    url: str
    database: Database
    log: Log
    totals: dict[str, int]
    lines: int = 0

    async def grow(self, partitions: int) -> None:
        """Append so many partitions, apply them, and keep all."""
        self.append(partitions)
        await self.applied()

    def append(self, partitions: int) -> None:
        """Append so many partitions."""
        for number in range(partitions):
            self.log.begin_partition()
            events, totals = random_events(self.lines + number, count=LINES, users=5)
            self.log.append(events)
            for user, total in totals.items():
                self.totals[user] = self.totals.get(user, 0) + total
        self.lines += partitions * LINES

    def restart(self) -> None:
        """Close the log and recover it, as a start of the server does."""
        self.log.close()
        self.log = Log(self.directory, now_s=self.log.now_s)

    async def applied(self) -> None:
        """Let a processor apply what there is, with all that is to be kept."""
        async with processor(self.directory, self.url):
            await self.database.until_applied(self.lines)

    async def retention(self, connection: asyncpg.Connection, limits: Limits) -> Retention:
        """What a start of the processor makes of retention, checked."""
        log_id = read_or_make_log_id(self.directory)
        known = await offsets.load(connection, log_id)
        names = [n for n in list_names(self.directory) if n <= (known.newest or "")]
        unknown = await offsets.without_row(connection, log_id, names)
        made = Retention(self.directory, connection, log_id=log_id, known=known, limits=limits)
        await made.check(sorted(unknown))
        return made

    async def delete(self, limits: Limits) -> list[str]:
        """Delete until nothing is left to be deleted; return the names."""
        retention = await self.retention(self.database.connection, limits)
        names: list[str] = []
        while some := await retention.run():
            names += some
        return names

    async def backup(self) -> tuple[list[asyncpg.Record], list[asyncpg.Record]]:
        """Copy the database."""
        fetch = self.database.connection.fetch
        return (
            await fetch(f"SELECT {COLUMNS} FROM partition_offsets"),  # noqa: S608  names of ours
            await fetch("SELECT user_id, revenue FROM users_revenue"),
        )

    async def restore(self, backup: tuple[list[asyncpg.Record], list[asyncpg.Record]]) -> None:
        """Put a copy in the place of the database."""
        connection = self.database.connection
        async with connection.transaction():
            await connection.execute("TRUNCATE partition_offsets, users_revenue")
            await connection.copy_records_to_table(
                "partition_offsets", records=backup[0], columns=COLUMNS.split(", ")
            )
            await connection.copy_records_to_table("users_revenue", records=backup[1])

    async def require_laws(self) -> None:
        """See that files, rows, record and mirror agree, and that the totals are exact."""
        rows = await self.database.connection.fetch(
            "SELECT partition, lines, deleted FROM partition_offsets ORDER BY partition"
        )
        kept = [row["partition"] for row in rows if not row["deleted"]]
        assert list_names(self.directory) == kept, "a file without a row, or a row without a file"
        gone = [row for row in rows if row["deleted"]]
        assert len(gone) <= 1
        record = deleted.load(self.directory)
        if gone:
            assert record is not None
            assert (record.partition, record.lines) == (gone[0]["partition"], gone[0]["lines"])
        assert sum(row["lines"] for row in rows) == self.lines
        assert await self.database.totals() == self.totals

    def mirrored(self) -> dict[str, int]:
        """What the mirror says."""
        found: dict[str, int] = json.loads((self.directory / mirror.FILE_NAME).read_bytes())
        assert sum(found.values()) == self.lines
        return found


@asynccontextmanager
async def applied(directory: Path, url: str) -> AsyncIterator[Applied]:
    """An empty log, and a database with the schema."""
    make_private_directory(directory)
    async with prepared(url) as database:
        log = Applied(
            directory=directory, url=url, database=database, log=Log(directory), totals={}
        )
        yield log
        log.log.close()
