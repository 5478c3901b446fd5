"""Whose turn it is, where two processors work on one directory.

One holds the lock of the directory and works; the other stands by until the kernel frees it. A
holder that is frozen keeps the lock: when there is lag and no offset has moved for a while, the
one that stands by works without it. That is safe, since it is the guard of the offsets that makes
it exact; the lock only keeps two from doing the same work. The one whose guard fails steps back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from etl.runtime.files import Lock
from etl.runtime.lifecycle import fields, stopped_within
from etl.sink import offsets
from etl.sink.faults import database_faults

logger = logging.getLogger(__name__)

LOCK_FILE_NAME = "processor.lock"
LOOK_S = 0.25
# Who stepped back leaves the lock alone for so long, so that the other one can take it.
STEP_BACK_S = 2.0

# How many events lie between such offsets and the end of the log.
Lag = Callable[[list[offsets.Offset], str], Awaitable[int]]


class Turn:
    """This processor's right to work."""

    def __init__(self, directory: Path, *, log_id: str, takeover_s: float) -> None:
        self._lock = Lock(directory / LOCK_FILE_NAME, role="processor")
        self._log_id = log_id
        self._takeover_s = takeover_s
        self._taken_over = False
        self._back_until = float("-inf")

    def try_take(self) -> bool:
        """Say whether it is this processor's turn; takes the lock if that is free."""
        if time.monotonic() < self._back_until:
            return False
        return self._lock.try_acquire() or self._taken_over

    async def stand_by(
        self, connection: asyncpg.Connection, stop: asyncio.Event, *, lag: Lag
    ) -> bool:
        """Wait for the turn; say whether it came, and not the stop.

        Raises:
            DatabaseUnavailable: nobody can say whether the other one works.
        """
        logger.info("standing by", extra=fields(working=self._lock.owner()))
        with database_faults():
            seen = await offsets.load_undone(connection, self._log_id)
        quiet_since = time.monotonic()
        while not await stopped_within(stop, LOOK_S):
            if self.try_take():
                logger.info("the lock is free: taking over")
                return True
            with database_faults():
                now = await offsets.load_undone(connection, self._log_id)
            if now != seen or not await lag(*now):
                seen, quiet_since = now, time.monotonic()
            elif time.monotonic() - quiet_since >= self._takeover_s:
                logger.warning(
                    "there is lag, but no offset moves: taking over without the lock",
                    extra=fields(held=self._lock.owner(), seconds=self._takeover_s),
                )
                self._taken_over = True
                return True
        return False

    def step_back(self) -> None:
        """Leave the work to the other one, for now."""
        self._lock.release()
        self._taken_over = False
        self._back_until = time.monotonic() + STEP_BACK_S

    def release(self) -> None:
        """Give the turn up."""
        self._lock.release()
