"""The pieces of one run: the source as it grows, until it is quiet.

Invariants:

* A run ends once, at a byte that `ended` was told before a line without a line break was read.
* A source that was replaced is read to its end; one that was cut short ends the run there.
* A source that is followed ends only when it was quiet and a file written after it holds something,
  or when it was cut short or rewritten. Until then its last line has a line break.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from etl.source.lines import Lines, Mark, Piece, RewrittenError
from etl.source.storing import in_thread
from etl.source.watch import LOOK_INTERVAL_S, Stat, Watch, look, stat_of

logger = logging.getLogger(__name__)


class Ended(Protocol):
    """Makes durable where the run ends, and whether because the source was cut short there."""

    def __call__(self, byte: int, stat: Stat, *, cut: bool) -> Awaitable[None]:
        """Return when that is durable."""


class Feed:
    """Reads one run through an open file, so that a rename can't take the old lines away."""

    def __init__(
        self,
        *,
        lines: Lines,
        path: Path,
        stat: Stat,
        watch: Watch,
        quiet_s: float,
        succeeded: Callable[[Stat], bool] | None = None,
        ended: Ended,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines = lines
        self._path = path
        self._stat = self._read_at = stat
        self._watch = watch
        self._quiet_s = quiet_s
        self._succeeded = succeeded
        self._ended = ended
        self._unreadable = False
        self._clock = clock
        self._still_since = clock()

    @property
    def fd(self) -> int:
        """The open source."""
        return self._lines.fd

    def cut(self) -> Piece | None:
        """Return a piece that is in memory already."""
        return self._lines.cut()

    def seek(self, mark: Mark) -> None:
        """Go back to `mark`; nobody waits in `next`."""
        self._lines.seek(mark)

    async def next(self) -> Piece | None:
        """Return the next piece as soon as there is one; None at the end of the run."""
        while True:
            try:
                piece = self._lines.cut() or await in_thread(self._lines.read)
                if piece is not None or await self._at_end():
                    self._unreadable = False
                    return piece
            except RewrittenError:
                self._stat = self._read_at
                await self._cut_short()
                return None
            except OSError as error:
                if not self._unreadable:
                    logger.warning("%s can't be read, waiting: %s", self._path, error.strerror)
                self._unreadable = True
                await self._watch.nudged(LOOK_INTERVAL_S)

    async def _at_end(self) -> bool:
        """Say whether the run is over; when it may go on, return after something happened."""
        while (ended := await self._ended_by_now()) is None:
            await self._watch.nudged(max(0, self._quiet_in_s()) or LOOK_INTERVAL_S)
        return ended

    def _quiet_in_s(self) -> float:
        return self._still_since + self._quiet_s - self._clock()

    async def _ended_by_now(self) -> bool | None:
        """Say whether the run is over, or has more to read: False; None: neither."""
        lines = self._lines
        if lines.end is not None and lines.mark.byte >= lines.end:
            return True
        stat, replaced = await in_thread(self._look)
        if stat.size < lines.seen or (lines.end is not None and stat.size < lines.end):
            await self._cut_short()
            return True
        if lines.end is not None:
            return False
        if stat != self._stat:
            # Read again: a file can change and be as long as before.
            self._read_at, self._stat, self._still_since = self._stat, stat, self._clock()
            return False
        if stat.size > lines.seen:
            return False
        quiet = self._quiet_in_s() <= 0
        if (replaced and quiet) if self._succeeded else (replaced or quiet):
            await self._end_at(stat.size)
            return lines.mark.byte == stat.size
        return None

    async def _end_at(self, byte: int, *, cut: bool = False) -> None:
        await self._ended(byte, self._stat, cut=cut)
        self._lines.end = byte

    async def _cut_short(self) -> None:
        mark = self._lines.mark
        logger.warning(
            "%s was cut short while it was read; the run ends before line %d",
            self._path,
            mark.sequence + 1,
        )
        await self._end_at(mark.byte, cut=True)

    def _look(self) -> tuple[Stat, bool]:
        """Return what the open file is like, and whether another one took its place."""
        # In this order: what its writer wrote before it wrote to another one is seen.
        if self._succeeded:
            replaced = self._succeeded(self._stat)
        else:
            there = look(self._path)
            replaced = there is not None and not there.same_file(self._stat)
        return stat_of(os.fstat(self.fd)), replaced
