"""A disk that loses what was not synced: what a power cut may leave, decided by chance.

`os.write`, `os.pwrite`, `os.fdatasync` and `os.fsync` go through it while it is patched in. A file
is on the platter as it was at its last sync that succeeded; a name, as of the last sync of its
directory. A failed sync leaves its bytes clean in memory, so a later sync that succeeds does not
write them either, unless they were written again.

It can also fail: one call, counted from now, raises what it is told, a write after having written
some of its bytes.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from pathlib import Path

import pytest


def _chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  no secret


class Killed(BaseException):
    """The process ends here, at this call."""


class Platter:
    """The disk under one directory."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._synced: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        # Every inode that was synced is kept by another name, so that none is given out twice.
        self._kept = directory.parent / "inodes"
        self._kept.mkdir()
        self._lost: dict[int, tuple[int, int]] = {}
        self._left = 0
        self._fault: BaseException | None = None
        self._chance = _chance(0)
        self._write, self._pwrite = os.write, os.pwrite
        self._fdatasync, self._fsync = os.fdatasync, os.fsync
        patch.setattr(os, "write", self._writes)
        patch.setattr(os, "pwrite", self._pwrites)
        patch.setattr(os, "fdatasync", self._syncs)
        patch.setattr(os, "fsync", self._syncs)

    def fail_at(self, call: int, fault: BaseException, seed: int) -> None:
        """Let the call of that number, from now, raise."""
        self._left, self._fault, self._chance = call, fault, _chance(seed)

    @property
    def armed(self) -> bool:
        """Say whether a call is still to fail."""
        return self._fault is not None

    def heal(self) -> None:
        """Let no call fail any more."""
        self._fault = None

    def cut_power(self, seed: int) -> None:
        """Leave what is on the platter, and of the rest what chance has written back."""
        chance = _chance(seed)
        here = {path.name: path for path in self._directory.iterdir()}
        for name, path in sorted(here.items()):
            if name not in self._names and chance.random() < 0.5:
                path.unlink()
            else:
                self._tear(path, chance)
        for name in sorted(self._names.keys() - here.keys()):
            if chance.random() < 0.5:
                synced = self._synced.get(self._names[name], b"")
                (self._directory / name).write_bytes(synced)
        for path in self._directory.iterdir():
            self._sync(path.stat(), path.read_bytes())
        self.keep_inodes()
        self._lost.clear()
        self._names = {path.name: path.stat().st_ino for path in self._directory.iterdir()}

    def _tear(self, path: Path, chance: random.Random) -> None:
        current, synced = path.read_bytes(), self._synced.get(path.stat().st_ino, b"")
        if current == synced:
            return
        if current.startswith(synced):
            rest = current[len(synced) :]
            part = chance.randrange(len(rest) + 1)
            nothing = bytes(len(rest) - part) if chance.random() < 0.5 else b""
            found = synced + chance.choice((b"", rest, rest[:part] + nothing, bytes(part)))
        else:
            part = chance.randrange(len(current) + 1)
            found = chance.choice((synced, current, current[:part] + synced[part:]))
        with path.open("rb+") as file:
            file.write(found)
            file.truncate(len(found))

    def _due(self) -> bool:
        self._left -= 1
        return self._fault is not None and self._left == 0

    def _raise(self) -> None:
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def _mine(self, fd: int) -> bool:
        return Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(self._directory)

    def _writes(self, fd: int, data: bytes) -> int:
        if self._mine(fd) and self._due():
            self._write(fd, memoryview(data)[: self._chance.randrange(len(data) + 1)])
            self._raise()
        return self._write(fd, data)

    def _pwrites(self, fd: int, data: bytes, offset: int) -> int:
        if self._mine(fd):
            if self._due():
                self._raise()
            inode = os.fstat(fd).st_ino
            start, end = self._lost.get(inode, (0, 0))
            if offset <= start and end <= offset + len(data):
                self._lost.pop(inode, None)
        return self._pwrite(fd, data, offset)

    def _syncs(self, fd: int) -> None:
        found = os.fstat(fd)
        if not self._mine(fd):
            self._fsync(fd)
            return
        data = b"" if stat.S_ISDIR(found.st_mode) else self._content(fd)
        if self._due():
            before = len(self._synced.get(found.st_ino, b""))
            named = found.st_nlink > 0  # the inode of a nameless file is given out again
            if isinstance(self._fault, OSError) and named and not stat.S_ISDIR(found.st_mode):
                self._lost[found.st_ino] = (before, len(data))
            self._raise()
        if stat.S_ISDIR(found.st_mode):
            self._names = {p.name: p.stat().st_ino for p in self._directory.iterdir()}
        else:
            start, end = self._lost.get(found.st_ino, (0, 0))
            self._sync(
                found, data[:start] + bytes(max(0, min(end, len(data)) - start)) + data[end:]
            )

    def _sync(self, found: os.stat_result, data: bytes) -> None:
        self._synced[found.st_ino] = data

    def keep_inodes(self) -> None:
        """Give every inode that is there now another name."""
        for path in self._directory.iterdir():
            other = self._kept / str(path.stat().st_ino)
            if not other.exists():
                other.hardlink_to(path)

    def _content(self, fd: int) -> bytes:
        self.keep_inodes()
        return Path(f"/proc/self/fd/{fd}").read_bytes()


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken_disk() -> OSError:
    return OSError(errno.EIO, os.strerror(errno.EIO))
