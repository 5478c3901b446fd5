"""Which users are deferred, and when each is tried again.

A memory of the table `deferred_revenue`, so that a chunk with one of its users does not wait for
that user's row again: what comes for a user remembered here is deferred at once. It may be
incomplete (a user missing here is found out again, a little later), never needed for the totals.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import asyncpg

from etl.sink import statements

FIRST_PAUSE_S = 1.0
PAUSE_MAX_S = 30.0
# About 20 MB; users beyond it stay in the table until there is room.
REMEMBERED_MAX = 50_000
# So many in one transaction, so that a retry holds up the next chunk for some milliseconds only.
RETRIED_MAX = 200


@dataclass(slots=True)
class _Waiting:
    reason: str
    pause_s: float
    due_at: float


class Deferred:
    """The deferred users, each with its own growing pauses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._users: dict[str, _Waiting] = {}
        self._more = False
        self._next_due_at = float("inf")

    def __len__(self) -> int:
        return len(self._users)

    async def refill(self, connection: asyncpg.Connection) -> None:
        """Read users from the table that are not remembered, where there are some and room is."""
        if self._more and len(self._users) <= REMEMBERED_MAX // 2:
            await self.load(connection)

    async def load(self, connection: asyncpg.Connection) -> None:
        """Read from the table who else is deferred; they are due at once."""
        room = REMEMBERED_MAX - len(self._users)
        rows = await connection.fetch(statements.DEFERRED_USERS, room, list(self._users))
        self._more = len(rows) == room
        now = self._clock()
        for row in rows:
            self._users[row["user_id"]] = _Waiting(row["reason"], FIRST_PAUSE_S, now)
        if rows:
            self._next_due_at = now

    def reasons(self, users: Iterable[str]) -> dict[str, str]:
        """Return those of `users` who are deferred, and why."""
        if not self._users:
            return {}
        return {user: self._users[user].reason for user in users if user in self._users}

    def remember(self, refused: Mapping[str, str]) -> None:
        """Add users that were just deferred."""
        due_at = self._clock() + FIRST_PAUSE_S
        for user, reason in refused.items():
            if user not in self._users and len(self._users) >= REMEMBERED_MAX:
                self._more = True
                continue
            self._users[user] = _Waiting(reason, FIRST_PAUSE_S, due_at)
        if refused:
            self._next_due_at = min(self._next_due_at, due_at)

    @property
    def is_due(self) -> bool:
        """Say whether some are to be tried now."""
        return self._clock() >= self._next_due_at

    def due(self) -> list[str]:
        """Return users to be tried now, some at a time."""
        if not self.is_due:
            return []
        now = self._clock()
        due = [user for user, waiting in self._users.items() if waiting.due_at <= now]
        # At random, so that no user is always behind the same ones that can't be had.
        return random.sample(due, min(len(due), RETRIED_MAX))

    def retried(self, tried: Iterable[str], refused: Mapping[str, str]) -> None:
        """Forget the users that got through; the others wait twice as long as before."""
        now = self._clock()
        for user in tried:
            if user not in refused:
                del self._users[user]
                continue
            waiting = self._users[user]
            waiting.reason = refused[user]
            waiting.pause_s = min(waiting.pause_s * 2, PAUSE_MAX_S)
            waiting.due_at = now + waiting.pause_s
        self._next_due_at = min((w.due_at for w in self._users.values()), default=float("inf"))
