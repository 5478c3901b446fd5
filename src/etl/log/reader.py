"""Reading the log from given offsets up to the watermark.

Invariants:

* Nothing past the watermark is ever returned. In a directory without one (another server's), a
  partition ends at its last line break, and none is ever sealed.
* What is returned of a partition of ours has passed its checksum.
* A partition whose bytes are damaged stops where the damage is; the others go on.
* A poll with nothing new costs one `pread`. A sealed partition that was read to its end is not
  opened again; the directory is listed only where the watermark has moved more than one partition.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from etl.log import watermark as watermark_file
from etl.log.names import list_names
from etl.log.position import Position, start_of
from etl.log.scan import (
    byte_after,
    hop,
    is_ours,
    open_partition,
    take_batches,
    take_lines,
    whole_lines,
)
from etl.log.watermark import Watermark
from etl.runtime.errors import CorruptError, EtlError

logger = logging.getLogger(__name__)

DAMAGED_RETRY_S = 10.0
FOREIGN_SCAN_S = 1.0
WATERMARK_LOOK_S = 1.0


class OffsetError(EtlError):
    """An offset does not fit the directory: nothing is applied on a guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Lines that may be applied: all of a partition between two positions.

    `done` says that `end` is the end of a sealed partition; then `data` may be empty. `judged` says
    that a server of ours has found every line to be an event.
    """

    start: Position
    end: Position
    done: bool
    data: bytes
    judged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """The partition being read."""

    name: str
    fd: int
    ours: bool


def has_watermark(directory: Path) -> bool:
    """Say whether a server of ours has opened this directory."""
    return (directory / watermark_file.FILE_NAME).exists()


def position_after(directory: Path, partition: str, lines: int) -> Position:
    """Return the position after so many lines of a partition.

    Raises:
        OffsetError: the partition is gone or has fewer lines.
    """
    try:
        fd = open_partition(directory / partition)
    except FileNotFoundError:
        raise _misfit(partition, f"{lines} lines are applied, but the file is gone") from None
    try:
        byte = byte_after(fd, lines)
    finally:
        os.close(fd)
    if byte is None:
        raise _misfit(partition, f"{lines} lines are applied, but the file has fewer")
    return Position(partition=partition, byte=byte, line=lines)


def _misfit(partition: str, what: str) -> OffsetError:
    return OffsetError(
        f"{partition}: {what}",
        hint="restore the file, or use the database that belongs to this data directory",
    )


class LogReader:
    """Reads on from the offsets of one log. Blocking: call it in a thread."""

    def __init__(
        self,
        directory: Path,
        *,
        undone: Iterable[Position],
        newest: str | None,
        done: Collection[str] = (),
    ) -> None:
        self._directory = directory
        self._undone = {p.partition: p for p in sorted(undone)}
        self._unchecked = {name for name, p in self._undone.items() if p.byte or p.line}
        self._newest = newest or ""
        self._done = frozenset(done)
        self._current: _Open | None = None
        self._damaged: dict[str, tuple[float, str]] = {}
        self._watermark_fd: int | None = None
        self._looked_at = float("-inf")
        self._seen: Watermark | None = None
        self._reached = b""
        self._behind = True
        self._scanned_at = float("-inf")

    def read(self, bytes_max: int) -> list[Block]:
        """Return the next blocks, in order, about `bytes_max` bytes; none if nothing is new.

        Raises:
            OffsetError: an offset does not fit the directory.
        """
        mark = self._watermark()
        if mark is None:
            if not self._foreign_scan_due():
                return []
        elif mark == self._seen and not self._behind and not self._damage_due():
            return []
        before = dict(self._undone), self._newest
        blocks = self._read_on(mark, bytes_max)
        if mark is None and has_watermark(self._directory):
            # A server of ours has begun here meanwhile, and only what it has synced counts.
            self._undone, self._newest = before
            self._reached = b""
            self._looked_at = float("-inf")
            self._close()
            return []
        self._seen = mark
        return blocks

    def _read_on(self, mark: Watermark | None, room: int) -> list[Block]:
        blocks: list[Block] = []
        self._discover(mark)
        self._behind = False
        for name in list(self._undone):
            if room <= 0:
                self._behind = True
                break
            block = self._next_block(name, mark, room)
            if block is not None:
                blocks.append(block)
                room -= block.end.byte - block.start.byte
                self._behind = True
        return blocks

    def lag_events(self) -> int:
        """Return at least how many events lie between what was read and the watermark."""
        if self._watermark_fd is not None:
            # Where there was no lag there is none as long as the same bytes stand there.
            record = os.pread(self._watermark_fd, watermark_file.LENGTH, 0)
            if record == self._reached:
                return 0
            self._reached = b""
            if not (lag := self._lag_of(self._watermark())):
                self._reached = record
            return lag
        return self._lag_of(self._watermark())

    def _lag_of(self, mark: Watermark | None) -> int:
        if mark is None or mark.partition is None or mark.partition < self._newest:
            return 0
        place = self._undone.get(mark.partition)
        if place is None:
            return mark.lines if mark.partition > self._newest else 0
        return max(0, mark.lines - place.line)

    def close(self) -> None:
        """Close all files."""
        self._close()
        if self._watermark_fd is not None:
            os.close(self._watermark_fd)
            self._watermark_fd = None

    def _watermark(self) -> Watermark | None:
        self._open_watermark()
        if self._watermark_fd is None:
            return None
        # Unreadable until its server has recovered: what was seen still holds.
        return watermark_file.read(self._watermark_fd) or self._seen or Watermark()

    def _open_watermark(self) -> None:
        """Open the watermark, and once a second look whether it is another file by now."""
        now = time.monotonic()
        if now - self._looked_at < WATERMARK_LOOK_S:
            return
        self._looked_at = now
        fd = watermark_file.open_to_read(self._directory)
        if self._watermark_fd is not None:
            os.close(self._watermark_fd)
        self._watermark_fd = fd

    def _foreign_scan_due(self) -> bool:
        now = time.monotonic()
        if not self._behind and now - self._scanned_at < FOREIGN_SCAN_S:
            return False
        self._scanned_at = now
        return True

    def _damage_due(self) -> bool:
        now = time.monotonic()
        return any(retry_at <= now for retry_at, _ in self._damaged.values())

    def _discover(self, mark: Watermark | None) -> None:
        """Add the partitions that have come since the last look."""
        if mark is None:
            known = self._done | self._undone.keys()
            names = [n for n in list_names(self._directory) if n not in known]
        elif mark.partition is None or mark.partition <= self._newest:
            return
        elif mark.previous == (self._newest or None):
            names = [mark.partition]
        else:
            names = [n for n in list_names(self._directory) if self._newest < n <= mark.partition]
        for name in names:
            self._undone[name] = start_of(name)
            self._newest = max(self._newest, name)
        if mark is None and names:
            self._undone = dict(sorted(self._undone.items()))

    def _next_block(self, name: str, mark: Watermark | None, room: int) -> Block | None:
        retry_at, reason = self._damaged.get(name, (0.0, ""))
        if retry_at > time.monotonic():
            return None
        try:
            block = self._read_partition(name, mark, room)
        except CorruptError as error:
            if str(error) != reason:
                logger.error("%s", error)  # noqa: TRY400  a fact about a file; the stack says nothing
            self._damaged[name] = (time.monotonic() + DAMAGED_RETRY_S, str(error))
            self._close()
            return None
        self._damaged.pop(name, None)
        if block is not None:
            self._undone[name] = block.end
            if block.done:
                del self._undone[name]
        return block

    def _read_partition(self, name: str, mark: Watermark | None, room: int) -> Block | None:
        start = self._undone[name]
        size = self._size(start)
        if mark is not None and (mark.partition is None or name > mark.partition):
            return None  # a watermark from before a power cut: the server has not recovered yet
        sealed = mark is not None and name != mark.partition
        limit = size if mark is None or sealed else min(mark.bytes, size)
        if start.byte >= limit and not sealed:
            return None
        if start.byte == size:
            return Block(start=start, end=start, done=True, data=b"")
        opened = self._opened(name, strict=mark is not None)
        if name in self._unchecked:
            _check_edge(start, opened, size)
            self._unchecked.discard(name)
        take = take_batches if opened.ours else take_lines
        data, end, lines = take(opened.fd, start, limit, room)
        rest_is_torn = end == start.byte and not opened.ours
        done = sealed and (end == size or rest_is_torn)
        if end == start.byte and not done:
            return None
        place = Position(partition=name, byte=end, line=start.line + lines)
        return Block(start=start, end=place, done=done, data=data, judged=opened.ours)

    def _size(self, start: Position) -> int:
        try:
            size = (self._directory / start.partition).stat().st_size
        except FileNotFoundError:
            raise _misfit(start.partition, "it is not done, but the file is gone") from None
        if start.byte > size:
            raise _misfit(
                start.partition, f"{start.byte} bytes are applied, but the file has {size}"
            )
        return size

    def _opened(self, name: str, *, strict: bool) -> _Open:
        if self._current is None or self._current.name != name:
            self._close()
            fd = open_partition(self._directory / name)
            try:
                ours = is_ours(fd, name, strict=strict)
            except CorruptError:
                os.close(fd)
                raise
            self._current = _Open(name=name, fd=fd, ours=ours)
        return self._current

    def _close(self) -> None:
        if self._current is not None:
            os.close(self._current.fd)
            self._current = None


def _check_edge(start: Position, opened: _Open, size: int) -> None:
    """Refuse an offset that does not stand between two batches with so many lines before it."""
    byte = lines = 0
    if opened.ours:
        batches = hop(opened.fd, start.partition, 0, size)
        while byte < start.byte:
            at, found = next(batches)
            byte, lines = at + found.stored_bytes, lines + found.header.lines
    else:
        byte, lines = whole_lines(opened.fd, start.partition, 0, start.byte)
    if (byte, lines) != (start.byte, start.line):
        raise _misfit(
            start.partition,
            f"the offset is byte {start.byte}, line {start.line}, "
            f"but lines end at byte {byte}, line {lines}",
        )
