"""What to send next, decided from the progress and from what the source is now.

| progress | the source | what follows |
| --- | --- | --- |
| none | any | a new producer, the whole source |
| unfinished, after a restart | the same, moved, or longer | the same run goes on |
| unfinished, after a restart | another | a new run, with a warning |
| finished, after a restart | the same bytes | nothing |
| finished, after a restart | other bytes, or more | a new run |
| finished, while running | any change of inode, size or mtime | a new run |
"""

from __future__ import annotations

import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from etl.source.lines import holds
from etl.source.progress import Progress, new_epoch, new_producer
from etl.source.storing import in_thread
from etl.source.watch import LOOK_INTERVAL_S, Stat, Watch, look, stat_of

logger = logging.getLogger(__name__)

HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A run that begins, or goes on, and the open source; whoever gets it closes `fd`."""

    fd: int
    stat: Stat
    progress: Progress


class Runs:
    """Waits for runs, one after the other."""

    def __init__(self, *, path: Path, watch: Watch, progress: Progress | None) -> None:
        self._path = path
        self._watch = watch
        self._progress = progress
        self._sent: Stat | None = None
        self._restarted = progress is not None
        self._unreadable = False

    async def next(self) -> Start:
        """Return the next run as soon as the source calls for one."""
        while True:
            start = await in_thread(self.start)
            if start is not None:
                return start
            await self._watch.nudged(LOOK_INTERVAL_S)

    def finished(self, progress: Progress) -> None:
        """Take note of how the last run ended."""
        self._progress = progress
        self._sent = progress.stat

    def start(self) -> Start | None:
        """Return the run that the source calls for now, if it does; blocks."""
        try:
            start = self._compare()
        except OSError as error:
            if not self._unreadable:
                logger.warning("%s can't be read, waiting: %s", self._path, error.strerror)
            self._unreadable = True
            return None
        self._unreadable = False
        return start

    def _compare(self) -> Start | None:
        seen = look(self._path)
        if seen is None or seen == self._sent:
            return None
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        start = None
        try:
            stat = stat_of(os.fstat(fd))
            progress = self._after_restart(fd, stat) if self._restarted else self._new(fd, stat)
            self._restarted = False
            self._sent = stat
            if progress is not None:
                start = Start(fd=fd, stat=stat, progress=progress)
        finally:
            if start is None:
                os.close(fd)
        return start

    def _after_restart(self, fd: int, stat: Stat) -> Progress | None:
        before = self._progress
        if before is None:
            return self._new(fd, stat)
        if before.finished:
            if stat == before.stat or (stat.size == before.byte and holds(fd, before.mark)):
                logger.info("%s is as run %d sent it", self._path, before.run)
                return None
            return self._new(fd, stat)
        if stat == before.stat or (holds(fd, before.head) and holds(fd, before.mark)):
            return before
        logger.warning(
            "run %d was not finished, and %s is another file now; lines from %d on are not sent",
            before.run,
            self._path,
            before.next + 1,
        )
        return self._new(fd, stat)

    def _new(self, fd: int, stat: Stat, path: Path | None = None) -> Progress:
        """Return the progress of a run over an open file, which is the source or lies at `path`."""
        head = os.pread(fd, HEAD_BYTES, 0)
        before = self._progress
        return Progress(
            source=str(self._path),
            producer=before.producer if before else new_producer(),
            run=before.run + 1 if before else 1,
            epoch=new_epoch(before.epoch if before else 0),
            head_bytes=len(head),
            head_crc32=zlib.crc32(head),
            stat=stat,
            file=os.path.realpath(path or self._path),
        )
