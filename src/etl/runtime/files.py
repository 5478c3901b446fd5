"""Small files, kept safely: whole replacement, private directories, and locks that name an owner.

Invariants:

* After `replace` returned, the file holds the new bytes also after a power cut; at no instant
  does it hold anything but the old or the new ones.
* A lock is held exactly as long as the process lives, however it dies: the kernel frees it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from etl.runtime.errors import EtlError, InUseError

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


def make_private_directory(path: Path) -> None:
    """Create `path`, readable by its owner alone, with its parents; or take it if it is ours.

    One that others may write in is refused: they could have put anything there, and a lock or a
    partition under another name in its place. So is one of another user, even for root: what root
    makes there its owner can't go on with, and the owner can change what root relies on. One that
    others can only list is taken: the files in it are readable by their owner alone.

    Raises:
        EtlError: it can't be created, is no directory, or not ours alone to write in.
    """
    try:
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise EtlError(
            f"{path}/ can't be used as data directory: {error.strerror}",
            hint="give another ETL_DATA_DIR",
        ) from error
    if found.st_uid != os.geteuid():
        raise EtlError(
            f"{path}/ belongs to the user with id {found.st_uid}, not to {os.geteuid()}",
            hint="start as that user, or give another ETL_DATA_DIR",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EtlError(
            f"{path}/ can be written by others, mode {stat.S_IMODE(found.st_mode):04o}",
            hint=f"look through it, then: chmod 700 {path}",
        )


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`, in as many calls as it takes; `os.write` may write less than asked."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(path: Path, data: bytes, *, durable: bool = True) -> os.stat_result:
    """Replace the file `path` by `data`, atomically; with `durable`, also for a power cut.

    Return the status of the new file, whoever replaces it next.

    Raises:
        OSError: it could not be written, or not made durable; the file holds the old or the new
            bytes, whole.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
        try:
            write_all(fd, data)
            if durable:
                os.fsync(fd)
            written = os.fstat(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)
    return written


def remove_temporaries(path: Path, entries: Iterable[str] | None = None) -> None:
    """Remove what a process that was killed inside `replace` left; the caller holds the lock.

    `entries` are the names in its directory, where the caller has listed that already: it may hold
    a million.
    """
    if entries is None:
        entries = os.listdir(path.parent)  # noqa: PTH208
    prefix = f"{path.name}."
    for name in [name for name in entries if name.startswith(prefix)]:
        if name.endswith(".tmp"):
            path.with_name(name).unlink(missing_ok=True)


class Lock:
    """An advisory lock on a file that holds the pid of its owner."""

    def __init__(self, path: Path, *, role: str) -> None:
        self._path = path
        self._role = role
        self._fd: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free; say whether it is held now."""
        if self._fd is not None:
            return True
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        # Who holds it is for people; on a full disk it stays unsaid.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{self._role} {os.getpid()}\n".encode(), 0)
        return True

    def acquire(self) -> Self:
        """Take the lock.

        Raises:
            InUseError: another process holds it; the message names that process.
        """
        if not self.try_acquire():
            raise InUseError(
                f"{self._path.parent}/ is in use by {self.owner()}",
                hint=f"stop it, or give this {self._role} another ETL_DATA_DIR",
            )
        return self

    def owner(self) -> str:
        """Return who holds the lock, as that process wrote it down."""
        with contextlib.suppress(OSError):
            role, _, pid = self._path.read_text().strip().partition(" ")
            if pid:
                return f"{role} with pid {pid}"
        return "another process"

    def release(self) -> None:
        """Give the lock up; harmless when it isn't held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
