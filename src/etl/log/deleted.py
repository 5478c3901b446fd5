"""What retention has deleted of a log, and which partitions may not be deleted.

Format: `log_deleted.json`: `format`, `partition`, `lines` and `crc32` (of the object without that
member, in hexadecimal). Partitions up to the one it names may be gone; those that were done when it
was written, and only such are, had so many `lines`.

Invariants:

* It is durable before the first of the partitions that it covers is removed.
* A database whose done partitions up to there have fewer lines lacks one of them; one that has as
  many lacks none, because what is done stays done.
* It never goes back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from etl.log import producers as snapshots
from etl.log import record
from etl.log import watermark as watermark_file
from etl.runtime.errors import CorruptError
from etl.runtime.files import replace, sync_directory

FILE_NAME = "log_deleted.json"
_READ_BYTES = 1024 * 1024


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """The newest partition that was deleted, and the lines of all up to it."""

    partition: str
    lines: int
    format: int = record.FORMAT


def load(directory: Path) -> Deleted | None:
    """Return what was deleted; None if nothing was.

    Raises:
        CorruptError: the file is damaged, or of a format that this version does not know.
    """
    path = directory / FILE_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    found = record.decode(data, Deleted, name=FILE_NAME)
    if found is None:
        raise CorruptError(
            f"{path} is damaged",
            hint="restore it from a copy; or remove it if the database is not an older backup",
        )
    return found


def save(directory: Path, deleted: Deleted) -> None:
    """Replace the record, atomically and durably."""
    replace(directory / FILE_NAME, record.encode(deleted) + b"\n")


def first_kept(directory: Path) -> str:
    """Return the first partition that someone may still need; nothing before an empty name is.

    A reader that keeps up needs the one before the newest, and a start of the server all from the
    one on that the snapshot of producers names. Both only move on, so an older look is safe.
    """
    snapshot = snapshots.load(directory)
    fd = watermark_file.open_to_read(directory)
    if snapshot is None or fd is None:
        return ""
    try:
        mark = watermark_file.read(fd)
    finally:
        os.close(fd)
    return min(snapshot.partition, (mark.previous or "") if mark else "")


def holds_more(directory: Path, partition: str, byte: int) -> bool:
    """Say whether a partition is not just what is applied of it: its file has another end.

    A torn line that another server left at the end is not more: nobody will ever apply it.
    """
    path = directory / partition
    try:
        size = path.stat().st_size
        if size <= byte:
            return size < byte
        with path.open("rb") as file:
            file.seek(byte)
            while data := file.read(_READ_BYTES):
                if b"\n" in data:
                    return True
    except FileNotFoundError:
        return False  # removed by hand
    return False


def remove(directory: Path, partitions: Iterable[str]) -> None:
    """Remove partitions that the record covers, durably; one may be gone already."""
    for partition in partitions:
        (directory / partition).unlink(missing_ok=True)
    sync_directory(directory)
