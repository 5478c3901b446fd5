"""Opening a log: what stands in its files after any stop, and what of it is kept.

Invariants:

* All that was acknowledged is kept: it lies below the last watermark that was written, and what
  stands above a stale watermark (an older copy, a power cut) is whole batches.
* Above the watermark whole batches are kept. The first torn one ends the log; from there on the
  bytes are set aside in `<partition>.<byte>.torn`, never thrown away.
* What is kept above the watermark is written again and synced before it is published, because the
  page cache may show bytes that a failed sync never wrote. So one rule serves every boot.
* Of ours only the newest partition can end torn: the one before was synced before the next was
  made. Partitions of another server may follow it.
* Where the events below the watermark are fewer than it says, partitions are missing, and with
  them the sequences of producers: then nothing is started on a guess. So it is where retention has
  deleted partitions, and no snapshot of producers covers them.
"""

from __future__ import annotations

import itertools
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from etl.log import deleted as deletions
from etl.log import producers as snapshots
from etl.log import watermark as watermark_file
from etl.log.header import FIRST_LINE_BYTES_MAX, OPENING, Found
from etl.log.names import names_among
from etl.log.scan import (
    byte_after,
    hop,
    hop_verified,
    is_json,
    is_ours,
    open_partition,
    whole_lines,
)
from etl.log.watermark import Watermark, boot_id
from etl.runtime.errors import CorruptError
from etl.runtime.files import FILE_MODE, remove_temporaries, sync_directory, write_all

logger = logging.getLogger(__name__)

_COPY_BYTES = 1024 * 1024
_HINT = "restore the file from a copy, then start again; nothing was changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The end of the log, and who may send what next.

    `appendable` says whether the newest partition is ours, so that batches may follow in it.
    `earliest` is what the snapshot names: no earlier partition may be appended to, because none
    is scanned again.
    """

    watermark: Watermark
    producers: dict[str, tuple[int, int]]
    appendable: bool
    earliest: str


def recover(directory: Path) -> Recovered:
    """Bring the files of a log into order and return where it ends; the caller holds the lock.

    Raises:
        CorruptError: something that was durable is missing or damaged.
        OSError: the files can't be read, or what is kept can't be made durable.
    """
    return _Recovery(directory).run()


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How far a partition is kept."""

    ours: bool
    byte: int
    lines: int


class _Recovery:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mark = _read_watermark(directory)
        snapshot = snapshots.load(directory)
        self._first = snapshot.partition if snapshot else ""
        self._events = snapshot.events if snapshot else 0
        self._producers = dict(snapshot.producers) if snapshot else {}

    def run(self) -> Recovered:
        self._check_deleted()
        entries = os.listdir(self._directory)  # noqa: PTH208  once: it may hold a million
        remove_temporaries(self._directory / snapshots.FILE_NAME, entries)
        names = names_among(entries)
        self._check_present(names)
        newest = self._newest_ours(names)
        ends = {n: self._scan(n, newest=n >= newest) for n in names if n >= self._first}
        while names and _is_nothing(ends.get(names[-1])):
            (self._directory / names.pop()).unlink()
        sync_directory(self._directory)
        if not names:
            mark = Watermark(events=self._events, boot=boot_id())
            return self._recovered(mark, appendable=False)
        # A snapshot is saved before the partition it names is made, so there may be none to scan.
        last = ends.get(names[-1]) or self._synced_end(names[-1])
        mark = Watermark(
            partition=names[-1],
            previous=names[-2] if len(names) > 1 else None,
            bytes=last.byte,
            lines=last.lines,
            events=self._events,
            boot=boot_id(),
        )
        return self._recovered(mark, appendable=last.ours)

    def _recovered(self, mark: Watermark, *, appendable: bool) -> Recovered:
        return Recovered(
            watermark=mark,
            producers=self._producers,
            appendable=appendable,
            earliest=self._first,
        )

    def _check_deleted(self) -> None:
        deleted = deletions.load(self._directory)
        if deleted is not None and deleted.partition >= self._first:
            raise CorruptError(
                f"{deleted.partition} and all before it are deleted, but {snapshots.FILE_NAME} "
                f"{'is an older copy' if self._first else 'is missing or damaged'}",
                hint="restore it from a newer copy; "
                "without it a repeated request would count again",
            )

    def _check_present(self, names: list[str]) -> None:
        mark = self._mark
        if mark is None or mark.partition is None or mark.partition < self._first:
            return  # what a snapshot covers, it covers whole
        if mark.partition not in names:
            raise CorruptError(f"{mark.partition} is durable, but the file is gone", hint=_HINT)

    def _newest_ours(self, names: list[str]) -> str:
        """Return the last partition that a server of ours wrote: another may have followed it."""
        for name in reversed(names):
            fd = open_partition(self._directory / name)
            try:
                if is_ours(fd, name, strict=self._mark is not None):
                    return name
            except CorruptError:
                return name
            finally:
                os.close(fd)
        return ""

    def _scan(self, name: str, *, newest: bool) -> _End:
        """Count the batches of a partition; of the newest one, repair the end."""
        path = self._directory / name
        fd = open_partition(path)
        try:
            size = os.fstat(fd).st_size
            durable = self._durable_bytes(name, size)
            ours, torn = self._is_ours(fd, name, size, durable, newest=newest)
            byte, lines = self._count(fd, name, 0, durable, ours=ours, torn=False)
            self._check_events(name)
            more = 0
            if not torn:
                byte, more = self._count(fd, name, durable, size, ours=ours, torn=True)
        finally:
            os.close(fd)
        if ours and byte < size and not newest:
            raise CorruptError(f"{name} at byte {byte}: no whole batch", hint=_HINT)
        if newest:
            if ours and byte < size:
                _refuse_lines_of_another(path, byte)
                _set_aside(path, byte, size)
            _make_durable(path, durable, byte)
        return _End(ours=ours, byte=byte, lines=lines + more)

    def _durable_bytes(self, name: str, size: int) -> int:
        """Return how much of a partition the watermark covers."""
        mark = self._mark
        if mark is None or mark.partition is None or name > mark.partition:
            return 0
        if name < mark.partition:
            return size
        if mark.bytes > size:
            raise CorruptError(f"{name} has {size} bytes, but {mark.bytes} are durable", hint=_HINT)
        return mark.bytes

    def _is_ours(
        self, fd: int, name: str, size: int, durable: int, *, newest: bool
    ) -> tuple[bool, bool]:
        """Say whose a partition is, and whether its first batch is torn."""
        if size and newest and not durable and byte_after(fd, 1) is None:
            return True, True  # no line of it was finished, whoever began it
        try:
            return not size or is_ours(fd, name, strict=self._mark is not None), False
        except CorruptError as error:
            if durable:
                raise CorruptError(error.message, hint=_HINT) from None
            return True, True

    def _count(
        self, fd: int, name: str, start: int, limit: int, *, ours: bool, torn: bool
    ) -> tuple[int, int]:
        """Count lines from `start` on; return where whole ones end, and their number.

        With `torn`, batches are checked and may end early; else an early end is corruption.
        """
        if not ours:
            end, lines = whole_lines(fd, name, start, limit)
            self._events += lines
            return end, lines
        end, lines = start, 0
        try:
            for at, found in (hop_verified if torn else hop)(fd, name, start, limit):
                self._add(found)
                end, lines = at + found.stored_bytes, lines + found.header.lines
        except CorruptError as error:
            if not torn:
                raise CorruptError(error.message, hint=_HINT) from None
        return end, lines

    def _add(self, found: Found) -> None:
        self._events += found.header.lines
        who = found.header.identity
        if who is not None:
            self._producers[who.producer] = (who.epoch, who.next)

    def _check_events(self, name: str) -> None:
        """Check, at the watermark, that nothing is missing below it."""
        mark = self._mark
        if mark is not None and name == mark.partition and self._events != mark.events:
            raise CorruptError(
                f"the partitions in {self._directory}/ hold {self._events} events up to the "
                f"watermark, which counts {mark.events}",
                hint="restore the missing partitions or server_producers.json from a copy; "
                "without them a repeated request would count again",
            )

    def _synced_end(self, name: str) -> _End:
        fd = open_partition(self._directory / name)
        try:
            size = os.fstat(fd).st_size
            if not is_ours(fd, name, strict=True):
                byte, lines = whole_lines(fd, name, 0, size)
                return _End(ours=False, byte=byte, lines=lines)
            lines = sum(found.header.lines for _, found in hop(fd, name, 0, size))
            return _End(ours=True, byte=size, lines=lines)
        finally:
            os.close(fd)


def _is_nothing(end: _End | None) -> bool:
    return end is not None and end.ours and not end.byte


def _read_watermark(directory: Path) -> Watermark | None:
    fd = watermark_file.open_to_read(directory)
    if fd is None:
        return None
    try:
        mark = watermark_file.read(fd)
    finally:
        os.close(fd)
    if mark is None:
        logger.warning("%s is damaged; the log is scanned instead", watermark_file.FILE_NAME)
    return mark


def _refuse_lines_of_another(path: Path, byte: int) -> None:
    """Refuse whole events without a header behind our batches: a torn write does not leave them.

    Raises:
        CorruptError: there are such, which another server has acknowledged.
    """
    with path.open("rb") as file:
        file.seek(byte)
        line = file.readline(FIRST_LINE_BYTES_MAX)
    if line.endswith(b"\n") and OPENING not in line and is_json(line):
        raise CorruptError(
            f"{path.name} at byte {byte}: lines of another server follow our batches",
            hint="move them to a partition of their own, named later, then start again",
        )


def _set_aside(path: Path, start: int, size: int) -> None:
    """Copy the bytes from `start` on to a file of their own, durably, then cut them off."""
    source = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    target, copy = _new_file(path.with_name(f"{path.name}.{start}.torn"))
    try:
        for at in range(start, size, _COPY_BYTES):
            write_all(target, os.pread(source, min(_COPY_BYTES, size - at), at))
        os.fsync(target)
        sync_directory(path.parent)
        os.ftruncate(source, start)
        os.fsync(source)
    except BaseException:
        if os.fstat(source).st_size == size:
            copy.unlink(missing_ok=True)  # a full disk: it would keep what little room there is
        raise
    finally:
        os.close(target)
        os.close(source)
    logger.warning("%s was torn at byte %d; %d bytes are set aside", path.name, start, size - start)


def _new_file(path: Path) -> tuple[int, Path]:
    """Make a file that was not there; a number is added to the name where it is taken."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    for number in itertools.count(2):
        try:
            return os.open(path, flags, FILE_MODE), path
        except FileExistsError:
            path = path.with_suffix(f".torn{number}")
    raise AssertionError("numbers don't end")


def _make_durable(path: Path, start: int, end: int) -> None:
    """Write `[start, end)` once more and sync it."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for at in range(start, end, _COPY_BYTES):
            data = os.pread(fd, min(_COPY_BYTES, end - at), at)
            if os.pwrite(fd, data, at) != len(data):
                raise OSError(f"{path} took less than was written")
        os.fsync(fd)
    finally:
        os.close(fd)
