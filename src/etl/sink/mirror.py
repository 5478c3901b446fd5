"""The mirror: `processor_offset.json`, for people and scripts that want to see the progress.

Format: `{"server_events_….jsonl": lines}`, compact JSON, sorted by name. The newest 1,000 done
partitions have entries of their own; all older ones, and those that were deleted, are one entry,
`older_partitions`.

Invariants:

* The sum of its values is the number of lines applied as of one commit.
* It is written after that commit, from what was committed, and never read as the truth.

Not promised: that it survives a power cut. A start writes it anew from the database.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import orjson

from etl.runtime.files import replace
from etl.sink.offsets import RECENT_MAX, Known, Offset

logger = logging.getLogger(__name__)

FILE_NAME = "processor_offset.json"
OLDER = "older_partitions"
INTERVAL_S = 0.05  # at most 20 writes a second


class Mirror:
    """What the file says, and whether it says so yet."""

    def __init__(
        self, directory: Path, known: Known, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = directory / FILE_NAME
        self._clock = clock
        self._undone = {offset.partition: offset.line for offset in known.undone}
        self._done = dict(known.recent_done)
        self._older = known.older_done_lines
        self._changed = True
        self._written: tuple[int, int] | None = None
        self._writing = threading.Lock()
        self._written_at = float("-inf")
        self._complaint = ""

    @property
    def due(self) -> bool:
        """Say whether there is something to write, and the last write is long enough ago."""
        return self._changed and self._clock() - self._written_at >= INTERVAL_S

    @property
    def changed(self) -> bool:
        """Say whether there is something to write."""
        return self._changed

    def is_anothers(self) -> bool:
        """Say whether another process has replaced the file; a removed one is written again."""
        with self._writing:
            if self._written is None:
                return False
            try:
                return _identity(self._path.stat()) != self._written
            except OSError:
                self._changed = True
                return False

    def give_up(self) -> None:
        """Write no more: another processor has moved on, and its file is the newer one."""
        self._changed = False

    def move(self, offsets: Iterable[Offset]) -> None:
        """Take over what was just committed."""
        for offset in offsets:
            if offset.done:
                self._undone.pop(offset.partition, None)
                self._done[offset.partition] = offset.line
            else:
                self._undone[offset.partition] = offset.line
        self._changed = True
        if len(self._done) > RECENT_MAX:
            for partition in sorted(self._done)[:-RECENT_MAX]:
                self._older += self._done.pop(partition)

    def fold(self, partitions: Iterable[str]) -> None:
        """Show partitions no more one by one: they were deleted."""
        for partition in partitions:
            self._older += self._done.pop(partition, 0)
            self._changed = True

    def write(self) -> None:
        """Write the file; a disk that takes nothing is reported and tried again later."""
        self._written_at = self._clock()
        entries = {OLDER: self._older} if self._older else {}
        entries |= dict(sorted((self._done | self._undone).items()))
        try:
            with self._writing:
                # Not by a look at the path: another one may have replaced the file by then.
                self._written = _identity(replace(self._path, orjson.dumps(entries), durable=False))
        except OSError as error:
            self._complain(f"{self._path} can't be written: {error.strerror}")
            return
        self._changed = False
        self._complain("")

    def _complain(self, complaint: str) -> None:
        if complaint and complaint != self._complaint:
            logger.warning(complaint)
        self._complaint = complaint


def _identity(found: os.stat_result) -> tuple[int, int]:
    """Return what tells one file from the next; inodes alone come back."""
    return found.st_ino, found.st_mtime_ns
