"""The watermark: the position up to which the log is durable.

Format: `server_watermark.json`, one JSON object of a fixed length, padded with spaces and closed
by a line break: `format`, `partition` and `previous` (names or null), `bytes`, `lines`, `events`
(in the whole log since its start), `boot` (the boot id of the machine) and `crc32` (of the object
without that member, in hexadecimal). Valid: the checksum matches.

Invariants:

* It is written after the sync of what it covers and before the acknowledgements, so what lies
  below any valid watermark is durable, whichever boot wrote it.
* It is rewritten in place by one `pwrite`; a reader that catches it half written sees a wrong
  checksum and reads again. It is synced when it is made, never after.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from etl.log import record
from etl.log.position import Position
from etl.runtime.files import FILE_MODE, sync_directory

FILE_NAME = "server_watermark.json"
LENGTH = 512
_READS_MAX = 8


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """How far the log is durable; without a partition the log is empty."""

    partition: str | None = None
    previous: str | None = None
    bytes: int = 0
    lines: int = 0
    events: int = 0
    boot: str = ""
    format: int = record.FORMAT

    @property
    def position(self) -> Position | None:
        """The end of what may be read."""
        if self.partition is None:
            return None
        return Position(partition=self.partition, byte=self.bytes, line=self.lines)


def encode(watermark: Watermark) -> bytes:
    """Return the fixed-length record."""
    return record.encode(watermark).ljust(LENGTH - 1) + b"\n"


def decode(data: bytes) -> Watermark | None:
    """Return what a record says, or None if it is torn or damaged.

    Raises:
        CorruptError: the record is whole, but of a format that this version does not know.
    """
    return record.decode(data, Watermark, name=FILE_NAME)


def read(fd: int) -> Watermark | None:
    """Read the record, again while it is being rewritten; None if it stays damaged."""
    for _ in range(_READS_MAX):
        watermark = decode(os.pread(fd, LENGTH, 0))
        if watermark is not None:
            return watermark
    return None


def open_to_read(directory: Path) -> int | None:
    """Open the watermark of a directory for reading, if there is one."""
    try:
        return os.open(directory / FILE_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def create(directory: Path, watermark: Watermark) -> int:
    """Make the file with a first record, durably, and return it open for `publish`."""
    fd = os.open(directory / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    os.ftruncate(fd, LENGTH)
    publish(fd, watermark)
    os.fsync(fd)
    sync_directory(directory)
    return fd


def publish(fd: int, watermark: Watermark) -> None:
    """Rewrite the record in place.

    Raises:
        OSError: it could not be written whole.
    """
    written = os.pwrite(fd, encode(watermark), 0)
    if written != LENGTH:
        raise OSError(f"{FILE_NAME} took {written} of {LENGTH} bytes")


def boot_id() -> str:
    """Return the id the kernel gave this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
