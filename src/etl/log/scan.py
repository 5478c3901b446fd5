"""Walking through one partition file, batch by batch.

A partition is ours when its first line carries a batch header: then every batch has one. Otherwise
another server wrote it, and it is taken as it is: every line is an event of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import orjson

from etl.log.header import (
    CHECK,
    FIRST_LINE_BYTES_MAX,
    OPENING,
    Found,
    find,
    find_whole,
    is_headed,
    verify,
)
from etl.log.position import Position
from etl.runtime.errors import CorruptError

_READ_BYTES = 1024 * 1024
HINT = "restore this file from a copy; it is tried again, and the other partitions go on"


def located(name: str, byte: int, error: CorruptError) -> CorruptError:
    """Return the error with the file and the byte it stands at."""
    return CorruptError(f"{name} at byte {byte}: {error.message}", hint=HINT)


def open_partition(path: Path) -> int:
    """Open a partition for reading.

    Raises:
        FileNotFoundError: it is gone.
    """
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def is_ours(fd: int, name: str, *, strict: bool) -> bool:
    """Say whether a partition was written by this server.

    With `strict`, a first line that is neither headed nor JSON is damage: a server of ours has been
    here, so it may be what a torn write left of its first batch.

    Raises:
        CorruptError: the first line is damaged.
    """
    head = os.pread(fd, FIRST_LINE_BYTES_MAX, 0)
    try:
        if find(head, 0) is not None:
            return True
    except CorruptError as error:
        raise located(name, 0, error) from None
    line, line_break, _ = head.partition(b"\n")
    if CHECK in line:
        raise located(name, 0, CorruptError("batch header can't be found, but its end is there"))
    if strict and (not is_json(line) if line_break else OPENING in head or b"\0" in head):
        raise located(name, 0, CorruptError("first line is neither a batch nor JSON"))
    return False


def is_json(line: bytes) -> bool:
    """Say whether a line is JSON of any kind."""
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def hop(fd: int, name: str, start: int, limit: int) -> Iterator[tuple[int, Found]]:
    """Go from header to header, without reading what lies between; yield where each batch begins.

    Raises:
        CorruptError: at some byte there is no header, or one that points beyond `limit`.
    """
    at = start
    while at < limit:
        try:
            found = find_whole(os.pread(fd, FIRST_LINE_BYTES_MAX, at), 0, limit - at)
        except CorruptError as error:
            raise located(name, at, error) from None
        yield at, found
        at += found.stored_bytes


def hop_verified(fd: int, name: str, start: int, limit: int) -> Iterator[tuple[int, Found]]:
    """Go from batch to batch and check each whole.

    Raises:
        CorruptError: at some byte there is no whole batch.
    """
    for at, found in hop(fd, name, start, limit):
        try:
            verify(os.pread(fd, found.stored_bytes, at), 0, found)
        except CorruptError as error:
            raise located(name, at, error) from None
        yield at, found


def take_batches(fd: int, start: Position, limit: int, room: int) -> tuple[bytes, int, int]:
    """Return lines of whole batches without headers, the byte where they end, and their number.

    About `room` bytes, but at least one batch.

    Raises:
        CorruptError: the first batch is damaged; damage further on ends what is returned.
    """
    left = limit - start.byte
    buffer = os.pread(fd, min(left, max(room, FIRST_LINE_BYTES_MAX)), start.byte)
    pieces: list[memoryview] = []
    at = lines = 0
    while at < left and not (pieces and _may_go_on(buffer, at, left)):
        try:
            found = find_whole(buffer, at, left - at)
            if at + found.stored_bytes > len(buffer):
                if pieces:
                    break
                buffer = os.pread(fd, found.stored_bytes, start.byte)
            pieces.extend(verify(buffer, at, found))
        except CorruptError as error:
            if pieces:
                break
            raise located(start.partition, start.byte + at, error) from None
        at += found.stored_bytes
        lines += found.header.lines
    return b"".join(pieces), start.byte + at, lines


def _may_go_on(buffer: bytes, at: int, left: int) -> bool:
    """Say whether the line at `at` ends behind the buffer."""
    return len(buffer) < left and buffer.find(b"\n", at) < 0


def take_lines(fd: int, start: Position, limit: int, room: int) -> tuple[bytes, int, int]:
    """Return whole lines of another server, the byte where they end, and their number.

    Raises:
        CorruptError: as `whole_lines` says.
    """
    name = start.partition
    end, lines = whole_lines(fd, name, start.byte, min(limit, start.byte + room))
    while not lines and start.byte + room < limit:  # one line is longer than the room
        room = max(2 * room, _READ_BYTES)
        end, lines = whole_lines(fd, name, start.byte, min(limit, start.byte + room))
    return os.pread(fd, end - start.byte, start.byte), end, lines


def whole_lines(fd: int, name: str, start: int, limit: int) -> tuple[int, int]:
    """Return the byte after the last line break of another server's lines, and their number.

    Raises:
        CorruptError: a batch stands among them, so the partition is ours, its first line damaged.
    """
    end = at = start
    lines = 0
    while at < limit:
        buffer = os.pread(fd, min(_READ_BYTES, limit - at), at)
        if not buffer:
            break
        _refuse_headers(name, at, buffer)
        last = buffer.rfind(b"\n") + 1
        if last:
            lines += buffer.count(b"\n")
            end = at + last
        at += last or len(buffer)
        if last and at < limit and len(buffer) == limit - at + last:
            break  # what is left holds no line break
    return end, lines


def _refuse_headers(name: str, byte: int, buffer: bytes) -> None:
    at = buffer.find(OPENING)
    while at >= 0:
        line = buffer.rfind(b"\n", 0, at) + 1
        if is_headed(buffer, line):
            reason = CorruptError("a batch stands in a partition that does not begin with one")
            raise located(name, byte + line, reason)
        at = buffer.find(OPENING, at + 1)


def byte_after(fd: int, lines: int) -> int | None:
    """Return the byte after so many lines from the start, or None if there are fewer."""
    at, left = 0, lines
    while left > 0:
        buffer = os.pread(fd, _READ_BYTES, at)
        if not buffer:
            return None
        here = buffer.count(b"\n")
        if here < left:
            left -= here
            at += len(buffer)
            continue
        end = -1
        for _ in range(left):
            end = buffer.find(b"\n", end + 1)
        return at + end + 1
    return at
