"""What to send next in follow mode, decided from the progress and from the files that are there.

Each file is a run of its own, from its first line to its end, so a sequence is a line of a file.
Where the last run's file is:

| the last run's file | what follows |
| --- | --- |
| none yet | the source, from its beginning |
| under whatever name, not read to its end | that run goes on |
| has the source's name, read to its end | that run goes on when there is more |
| read to its end, or gone | the oldest file rotated after it, at last the source: a new run |

It is told by its inode and by its bytes up to the place that is acknowledged. If it was cut short
in place, a rotated file with the same bytes is its copy, and the run goes on there. If after a
restart nothing has its inode, a source with the same bytes is taken for it, as after a move.

Not promised: lines that stood in no file any more when they could have been read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from etl.source.lines import Mark, holds
from etl.source.progress import Progress
from etl.source.rotation import Family, File, family
from etl.source.runs import Runs, Start
from etl.source.watch import look, stat_of

logger = logging.getLogger(__name__)

OVERLAP_BYTES = 256


class _MovedError(Exception):
    """A file has another name by now: look again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    file: File
    fd: int


class Follow(Runs):
    """Waits for runs, one after the other, each over a file of its own."""

    _settled: Family | None = None

    def finished(self, progress: Progress) -> None:
        """Take note of how the last run ended."""
        super().finished(progress)
        self._settled = None

    def _compare(self) -> Start | None:
        try:
            if self._progress is not None:
                return self._after(self._progress)
            there = look(self._path)
            return self._begin(File(path=self._path, stat=there)) if there else None
        except (_MovedError, FileNotFoundError):
            return None

    def _after(self, before: Progress) -> Start | None:
        there = self._family(before)
        if there == self._settled:
            return None
        held = self._find(before, there)
        if held is not None:
            size = held.file.stat.size
            if not before.finished or there.is_current(held.file) or size > before.byte:
                self._restarted = False
                return Start(fd=held.fd, stat=held.file.stat, progress=_going_on(before, held.file))
            os.close(held.fd)
        start = self._begin_next(before, there, held.file if held else None)
        if start is None:
            self._settled = there
            return None
        if self._family(before).names != there.names:
            # What was copied or renamed since that look may be older than what was opened.
            os.close(start.fd)
            raise _MovedError
        if held is None and (self._restarted or not before.finished):
            logger.warning(
                "%s of run %d is gone or was rewritten; what stood there from line %d on, byte %d,"
                " and in files that took its place and are gone too, is lost unless it was sent",
                before.file or self._path,
                before.run,
                before.next + 1,
                before.byte,
            )
        self._restarted = False
        return start

    def _family(self, before: Progress) -> Family:
        file = Path(before.file or self._path)
        return family(self._path, file=file, inode=before.stat.inode)

    def _find(self, before: Progress, there: Family) -> _Open | None:
        """Open the last run's file, or what holds its bytes in its stead."""
        for file in _candidates(before, there, restarted=self._restarted):
            held = _open(file)
            found = False
            try:
                found = self._holds(held, before)
            finally:
                if not found:
                    os.close(held.fd)
            if found:
                return held
        return None

    def _holds(self, held: _Open, before: Progress) -> bool:
        if not holds(held.fd, before.head):
            return False
        # Just read to its end; only after a restart, or to read on, is it worth reading it again.
        just_read = before.finished and not self._restarted
        if just_read and held.file.stat.size == before.byte:
            return True
        return holds(held.fd, before.mark)

    def _begin_next(self, before: Progress, there: Family, held: File | None) -> Start | None:
        # What begins like a file that was cut short in place is a copy of it, shorter than it was.
        cut = held is None and _cut(before, there)
        copied = before.head if cut else None
        anew = before.stat.inode if cut else None
        for file in there.newer(held, mtime_ns=before.stat.mtime_ns, anew=anew):
            other = file != there.current and file.stat.inode != anew
            start = self._begin(file, copied if other else None)
            if start is not None:
                return start
        return None

    def _begin(self, file: File, copied: Mark | None = None) -> Start | None:
        held = _open(file)
        start = None
        try:
            progress = self._new(held.fd, held.file.stat, file.path)
            if progress.head_bytes and not (copied and holds(held.fd, copied)):
                start = Start(fd=held.fd, stat=held.file.stat, progress=progress)
        finally:
            if start is None:
                os.close(held.fd)
        return start


def _candidates(before: Progress, there: Family, *, restarted: bool) -> Iterator[File]:
    """Yield what may hold the bytes of the last run, the likeliest first."""
    same = [file for file in there.all if file.stat.inode == before.stat.inode]
    if not before.cut:
        yield from same
    if _cut(before, there):
        yield from (
            file
            for file in reversed(there.others)
            if file not in same and file.stat.mtime_ns >= before.stat.mtime_ns
        )
    elif restarted and not same and there.current:
        yield there.current


def _cut(before: Progress, there: Family) -> bool:
    """Say whether the last run's file was cut short in place, if it doesn't hold its bytes."""
    return before.cut or any(file.stat.inode == before.stat.inode for file in there.all)


def _going_on(before: Progress, file: File) -> Progress:
    """Return the run's progress over the file that holds its bytes now."""
    before = msgspec.structs.replace(
        before, stat=file.stat, file=os.path.realpath(file.path), cut=False
    )
    return msgspec.structs.replace(before, finished=False, end=None) if before.finished else before


def _open(file: File) -> _Open:
    """Open what has a file's name now."""
    fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    return _Open(file=File(path=file.path, stat=stat_of(os.fstat(fd))), fd=fd)
