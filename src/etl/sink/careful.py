"""Applying deltas when some users can't be had, so that they hold up nobody else.

Everything happens inside the caller's transaction. First the table is locked as an upsert would
lock it: if that fails, the table is locked as a whole, which is nobody's fault and passes. Then
users whose row is locked by someone else are set aside. The rest is upserted in savepoints; one
that fails is halved until the user at fault stands alone. When that takes too long (thousands of
keys that someone else is just inserting), groups are set aside as they are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import asyncpg

from etl.sink import statements
from etl.sink.faults import is_refusal, reason_of

LOCKED = "row is locked by another transaction"


async def upsert(connection: asyncpg.Connection, deltas: Mapping[str, int]) -> None:
    """Add deltas to the users' revenue, in one statement."""
    if deltas:
        users = sorted(deltas)
        await connection.execute(statements.UPSERT_USERS, users, amounts(deltas, users))


def amounts(deltas: Mapping[str, int], users: Sequence[str]) -> list[str]:
    """Return amounts as PostgreSQL reads them, exactly."""
    return [f"{deltas[user]}e-6" for user in users]


async def upsert_carefully(
    connection: asyncpg.Connection, deltas: Mapping[str, int], *, budget_s: float
) -> dict[str, str]:
    """Add deltas to the revenue of all users who can be had; return the others, with the reason."""
    await connection.execute(statements.TABLE_LOCK)
    await connection.execute(statements.CONSTRAINTS_IMMEDIATE)
    rows = await connection.fetch(statements.USERS_LOCKED, list(deltas))
    refused = {row["user_id"]: LOCKED for row in rows}
    await connection.execute(statements.CAREFUL_LOCK_TIMEOUT)
    halve_until = time.monotonic() + budget_s
    waiting = [[user for user in deltas if user not in refused]]
    while waiting:
        users = waiting.pop()
        reason = await _try(connection, {user: deltas[user] for user in users})
        if reason is None:
            continue
        if len(users) == 1 or time.monotonic() > halve_until:
            refused.update(dict.fromkeys(users, reason))
            continue
        middle = len(users) // 2
        waiting += [users[middle:], users[:middle]]
    return refused


async def _try(connection: asyncpg.Connection, deltas: Mapping[str, int]) -> str | None:
    """Upsert in a savepoint; return why it was refused, if it was."""
    try:
        async with connection.transaction():
            await upsert(connection, deltas)
    except asyncpg.PostgresError as error:
        if not is_refusal(error):
            raise
        return reason_of(error)
    return None
