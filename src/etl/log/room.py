"""The disk guard: new events are refused while less than a reserve is free.

Invariants:

* Nothing is admitted while less than the reserve is free, as far as the last look at the disk can
  tell. A look is at most a second old, and what was admitted since, about 1 MiB, is counted.
* Nothing has to be done to be admitted again: the next look after there is room sees it.

Not promised: that the disk never fills. Others write to it, and a look is no reservation; a write
that finds it full is cut back as always. The reserve is for these others: PostgreSQL stops where it
can't write, and client and processor need a little room for their state.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from etl.log.files import WriteFailedError
from etl.runtime.lifecycle import fields

logger = logging.getLogger(__name__)

LOOK_S = 1.0
LOOK_BYTES = 1024 * 1024


class NoRoomError(WriteFailedError):
    """The disk is nearly full; nothing was appended."""


class Room:
    """How much may still be written to the disk that a directory lies on."""

    def __init__(
        self,
        directory: Path,
        *,
        reserve_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._free = 0
        self._admitted = 0
        self._look_at = float("-inf")
        self._short = False

    def take(self, size: int, *, waiting: int = 0) -> None:
        """Admit so many bytes, while `waiting` others are not written yet.

        Raises:
            NoRoomError: there is less than the reserve.
        """
        if complaint := self.complaint(waiting=waiting):
            raise NoRoomError(complaint)
        self._admitted += size

    def complaint(self, *, waiting: int = 0) -> str:
        """Return why nothing is admitted at present, or nothing."""
        if self._clock() >= self._look_at or (self._admitted >= LOOK_BYTES and not self._short):
            self._look(waiting)
        self._note(short=self._free - self._admitted < self._reserve_bytes)
        return self._text() if self._short else ""

    def _look(self, waiting: int) -> None:
        found = os.statvfs(self._directory)
        self._free = found.f_bavail * found.f_frsize
        self._admitted = waiting
        self._look_at = self._clock() + LOOK_S

    def _note(self, *, short: bool) -> None:
        if short != self._short:
            self._short = short
            if short:
                logger.warning("no new events are taken: %s", self._text())
            else:
                logger.info("events are taken again", extra=fields(free_bytes=self._free))

    def _text(self) -> str:
        return (
            f"the disk is nearly full: {self._free} bytes are free, "
            f"of which ETL_DISK_RESERVE_BYTES keeps {self._reserve_bytes}"
        )
