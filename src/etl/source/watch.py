"""Notices that the source may have changed: by notification, and once a second without one.

Not promised: that anything changed. Whoever is nudged looks for himself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from watchfiles import Change, awatch

from etl.source.storing import in_thread

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
_STEP_MS = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """What tells that a source has changed."""

    inode: int
    size: int
    mtime_ns: int
    device: int = 0

    def same_file(self, other: Stat) -> bool:
        """Say whether both are of one file; not across restarts: numbers are given again."""
        return (self.device, self.inode) == (other.device, other.inode)


def stat_of(found: os.stat_result) -> Stat:
    """Return what counts of a file's status."""
    return Stat(
        inode=found.st_ino,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        device=found.st_dev,
    )


def look(path: Path) -> Stat | None:
    """Return the status of the source, None while there is no regular file.

    Raises:
        OSError: it can't be looked at.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat_of(found) if stat.S_ISREG(found.st_mode) else None


class Watch:
    """Watches one file through its directory, which may be missing or replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._nudge = asyncio.Event()

    async def nudged(self, within_s: float) -> None:
        """Wait until the source may have changed, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(within_s, LOOK_INTERVAL_S)):
                await self._nudge.wait()
        self._nudge.clear()

    async def run(self) -> None:
        """Take notifications until cancelled."""
        while True:
            # A missing directory, or one that can't be watched, is looked at all the same. When
            # the kernel has no more watches to give, watchfiles raises a kind of RuntimeError.
            try:
                await self._take_notifications()
            except (OSError, RuntimeError) as error:
                logger.debug("%s/ is not watched: %s", self._path.parent, error)
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def _take_notifications(self) -> None:
        directory = self._path.parent
        inode = await in_thread(lambda: directory.stat().st_ino)
        changes = awatch(
            directory,
            watch_filter=self._concerns,
            debounce=_STEP_MS,
            step=_STEP_MS,
            rust_timeout=int(LOOK_INTERVAL_S * 1000),
            yield_on_timeout=True,
            recursive=False,
        )
        async for change in changes:
            if change:
                self._nudge.set()
            elif await in_thread(lambda: directory.stat().st_ino) != inode:
                return

    def _concerns(self, _: Change, path: str) -> bool:
        return Path(path).name == self._path.name
