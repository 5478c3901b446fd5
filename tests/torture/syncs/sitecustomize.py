"""Loaded by Python before a server under test: writes down what was synced, and lets one sync fail.

`TORTURE_SYNCS` names the file that gets one line a sync, `inode size`. Where the file named by
`TORTURE_FAIL_SYNC` exists, the sync whose number it holds fails, once: the file is removed.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path


def _noting(sync: Callable[[int], None], notes: int) -> Callable[[int], None]:
    def noted(fd: int) -> None:
        found = os.fstat(fd)
        sync(fd)
        os.write(notes, b"%d %d\n" % (found.st_ino, found.st_size))

    return noted


def _failing(sync: Callable[[int], None], order: Path) -> Callable[[int], None]:
    left = int(order.read_text())

    def failed_once(fd: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            order.unlink()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(fd)

    return failed_once


def _install() -> None:
    path = Path(os.environ["TORTURE_SYNCS"])
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.fdatasync = _noting(os.fdatasync, notes)  # type: ignore[assignment]
    os.fsync = _noting(os.fsync, notes)  # type: ignore[assignment]
    order = Path(os.environ["TORTURE_FAIL_SYNC"])
    if order.exists():
        os.fdatasync = _failing(os.fdatasync, order)  # type: ignore[assignment]


if "etl.server" in sys.orig_argv and "TORTURE_SYNCS" in os.environ:
    _install()
