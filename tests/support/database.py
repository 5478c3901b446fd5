"""A test's own view of its database, and of the moments when something changes in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg

from etl.sink import schema

LOG_ID = "0" * 32
# Without any change; and for all of them, as a busy machine may be slow but not for ever.
PATIENCE_S = 60.0
PATIENCE_IN_ALL_S = 300.0
TABLES = ("partition_offsets", "users_revenue", "deferred_revenue")


async def nothing_original() -> None:
    """There is no original program to take over from."""


class Database:
    """One connection that sees every commit which touches our tables."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self._changed = asyncio.Event()

    async def watch(self) -> None:
        """Have PostgreSQL tell of every commit."""
        await self.connection.execute(
            "CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql "
            "AS $$ BEGIN NOTIFY changed; RETURN NULL; END $$"
        )
        for table in TABLES:
            await self.connection.execute(
                f"CREATE OR REPLACE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION tell()"
            )
        await self.connection.add_listener("changed", lambda *_: self._changed.set())

    async def value(self, query: str, *arguments: object) -> Any:
        return await self.connection.fetchval(query, *arguments)

    async def until(self, query: str, expected: object, *arguments: object) -> None:
        """Wait for the commit after which a query gives what is expected."""
        async with asyncio.timeout(PATIENCE_IN_ALL_S):
            while True:
                self._changed.clear()
                if await self.value(query, *arguments) == expected:
                    return
                async with asyncio.timeout(PATIENCE_S):
                    await self._changed.wait()

    async def until_applied(self, lines: int) -> None:
        """Wait until so many lines are applied."""
        await self.until("SELECT sum(lines)::bigint FROM partition_offsets", lines)

    async def applied(self) -> int:
        found = await self.value("SELECT sum(lines)::bigint FROM partition_offsets")
        return int(found or 0)

    async def totals(self) -> dict[str, Decimal]:
        """Every user's revenue, as the table has it."""
        rows = await self.connection.fetch("SELECT user_id, revenue FROM users_revenue")
        return {row["user_id"]: row["revenue"] for row in rows}

    async def true_totals(self) -> dict[str, Decimal]:
        """Every user's revenue, deferred parts included."""
        rows = await self.connection.fetch(
            "SELECT user_id, sum(part) FROM (SELECT user_id, revenue FROM users_revenue "
            "UNION ALL SELECT user_id, delta FROM deferred_revenue) AS parts (user_id, part) "
            "GROUP BY user_id"
        )
        return {row["user_id"]: row["sum"] for row in rows}

    async def deferred(self) -> dict[str, Decimal]:
        rows = await self.connection.fetch(
            "SELECT user_id, sum(delta) AS delta FROM deferred_revenue GROUP BY user_id"
        )
        return {row["user_id"]: row["delta"] for row in rows}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def prepared(url: str) -> AsyncIterator[Database]:
    """A database with our schema, watched."""
    async with connected(url) as connection:
        await schema.apply(connection, log_id=LOG_ID, take_over=nothing_original)
        database = Database(connection)
        await database.watch()
        yield database
