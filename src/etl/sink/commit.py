"""The commit: a chunk becomes visible in PostgreSQL, once.

Invariants:

* Deltas, deferred deltas, dead letters and offsets of a chunk are in one transaction.
* After any error nothing is known about the transaction, and this object is of no more use: load
  the offsets again and begin with a new one. Nothing is ever retried here, with one exception:
  where PostgreSQL itself has said that it refused the transaction for what may be one user's
  affair, it is done again carefully, under the same guard.
* A user who can't be had holds up that user alone; the true total is `users_revenue` plus
  `deferred_revenue`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping

import asyncpg

from etl.core.revenue import new_deltas
from etl.runtime.lifecycle import fields
from etl.sink import offsets, statements
from etl.sink.careful import LOCKED, amounts, upsert, upsert_carefully
from etl.sink.chunk import Chunk
from etl.sink.deferral import Deferred
from etl.sink.faults import database_faults, is_refusal

logger = logging.getLogger(__name__)

# How long a search for the users at fault may hold up the others.
CHUNK_BUDGET_S = 3.0
RETRY_BUDGET_S = 0.1


class Committer:
    """Applies the chunks of one log, one after the other, over one connection."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        *,
        log_id: str,
        known: offsets.Known,
        deferred: Deferred,
    ) -> None:
        self._connection = connection
        self._log_id = log_id
        self._known = {offset.partition for offset in known.undone}
        self._deferred = deferred

    async def commit(self, chunk: Chunk) -> None:
        """Apply a chunk and move its offsets.

        Raises:
            GuardError: another processor has moved an offset; nothing was applied.
            DatabaseUnavailable: nobody knows whether it was applied.
        """
        with database_faults():
            waiting = self._deferred.reasons(chunk.deltas)
            direct: Mapping[str, int] = chunk.deltas
            if waiting:
                direct = {user: d for user, d in direct.items() if user not in waiting}
            if not await self._commit_at_once(chunk, direct, waiting):
                await self._commit_carefully(chunk, direct, waiting)
        for move in chunk.moves.values():
            if move.after.done:
                self._known.discard(move.after.partition)
            else:
                self._known.add(move.after.partition)

    def abort(self) -> None:
        """Cut the connection: what is in flight ends at once, one way or the other."""
        self._connection.terminate()

    @property
    def is_retry_due(self) -> bool:
        """Say whether the time of a deferred user has come."""
        return self._deferred.is_due

    async def retry_deferred(self) -> None:
        """Try the deferred users again whose time has come.

        Raises:
            DatabaseUnavailable: nobody knows what was applied.
        """
        due = self._deferred.due()
        if not due:
            return
        with database_faults():
            async with self._connection.transaction():
                rows = await self._connection.fetch(statements.DEFERRED_TAKE, due)
                ids: defaultdict[str, list[int]] = defaultdict(list)
                deltas = new_deltas()
                for row in rows:
                    ids[row["user_id"]].append(row["id"])
                    deltas[row["user_id"]] += int(row["millionths"])
                refused = await upsert_carefully(self._connection, deltas, budget_s=RETRY_BUDGET_S)
                await self._clear(ids, deltas, refused)
                left = await self._connection.fetch(statements.DEFERRED_LEFT, due)
            waiting = {row["user_id"]: LOCKED for row in left} | refused
            self._deferred.retried(due, waiting)
            applied = len(deltas) - len(refused)
            if applied:
                logger.info("deferred users applied", extra=fields(users=applied))
            await self._deferred.refill(self._connection)

    async def _clear(
        self, ids: Mapping[str, list[int]], deltas: Mapping[str, int], refused: Mapping[str, str]
    ) -> None:
        """Remove what was applied; of a user that has to wait on, keep one row."""
        many = [user for user in refused if len(ids[user]) > 1]
        if many:
            await self._connection.execute(
                statements.DEFERRED_GATHER, [ids[user][0] for user in many], amounts(deltas, many)
            )
        gone = [number for user, rows in ids.items() if user not in refused for number in rows]
        gone += [number for user in many for number in ids[user][1:]]
        await self._connection.execute(statements.DEFERRED_REMOVE, gone)

    async def _commit_at_once(
        self, chunk: Chunk, direct: Mapping[str, int], waiting: Mapping[str, str]
    ) -> bool:
        """Apply a chunk in one go; say whether no user was refused."""
        try:
            async with self._connection.transaction():
                await self._move(chunk)
                await upsert(self._connection, direct)
                await self._defer(chunk, waiting)
        except asyncpg.PostgresError as error:
            # A rival's lock on an offset looks the same here; it will be met again, and be fatal.
            if is_refusal(error):
                return False
            raise
        return True

    async def _commit_carefully(
        self, chunk: Chunk, direct: Mapping[str, int], waiting: Mapping[str, str]
    ) -> None:
        async with self._connection.transaction():
            await self._move(chunk)
            refused = await upsert_carefully(self._connection, direct, budget_s=CHUNK_BUDGET_S)
            await self._defer(chunk, {**waiting, **refused})
        if refused:
            user, reason = next(iter(refused.items()))
            logger.warning(
                "users deferred", extra=fields(users=len(refused), first=user, reason=reason)
            )
        self._deferred.remember(refused)

    async def _move(self, chunk: Chunk) -> None:
        await offsets.move(self._connection, self._log_id, chunk.moves.values(), known=self._known)
        dead = chunk.dead_letters
        if dead:
            await self._connection.execute(
                statements.DEAD_LETTERS_ADD,
                self._log_id,
                [letter.partition for letter in dead],
                [letter.line for letter in dead],
                [letter.reason for letter in dead],
                [letter.text for letter in dead],
                [letter.bytes for letter in dead],
            )

    async def _defer(self, chunk: Chunk, reasons: Mapping[str, str]) -> None:
        if reasons:
            users = sorted(reasons)
            await self._connection.execute(
                statements.DEFERRED_ADD,
                users,
                amounts(chunk.deltas, users),
                [reasons[user] for user in users],
            )
