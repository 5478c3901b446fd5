"""The end of the log on disk: appending to the newest partition, and beginning the next.

Invariants:

* `commit` returns only when the bytes, the name of their file and the watermark are written, the
  first two durably, in this order.
* After a failed write the file is cut back to its last good end, durably, before anyone is told:
  no power cut brings back what was refused.
* A failed sync is never retried: the error ends the process, and recovery sorts the files out.
* A partition is never named earlier than the newest, nor than the one that the producer snapshot
  names, whatever the clock says: what a snapshot covers never grows.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from etl.log import producers as snapshots
from etl.log import watermark as watermark_file
from etl.log.names import name_after, name_at
from etl.log.position import Position
from etl.log.producers import Producers, Snapshot
from etl.log.recovery import Recovered
from etl.log.watermark import Watermark
from etl.runtime.errors import EtlError
from etl.runtime.files import FILE_MODE, write_all

logger = logging.getLogger(__name__)


class WriteFailedError(EtlError):
    """Nothing was appended, and the log is as it was: the sender may try again later."""


class SyncFailedError(EtlError):
    """What is on disk is unknown: the process has to stop."""


class LogFiles:
    """Owns the files of the log. Blocking; one thread at a time."""

    def __init__(
        self,
        directory: Path,
        recovered: Recovered,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._mark = recovered.watermark
        self._appendable = recovered.appendable
        self._earliest = recovered.earliest
        self._watermark_fd = watermark_file.create(directory, self._mark)
        self._fd: int | None = None
        # Held open: a process out of descriptors must not take that for a failed sync.
        self._directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def watermark(self) -> Watermark:
        """How far the log is durable."""
        return self._mark

    def commit(self, data: bytes, events: int, producers: Producers) -> Position:
        """Append `data` to the log, make it durable, publish it, and return where it ends.

        Raises:
            WriteFailedError: nothing was appended.
            SyncFailedError: stop the process.
        """
        before = self._mark
        name = self._name_now()
        try:
            fd = self._open(name, producers)
            write_all(fd, data)
        except OSError as error:
            self._cut_back(name)
            raise WriteFailedError(f"{name} can't be written: {error.strerror}") from error
        same = name == before.partition
        mark = Watermark(
            partition=name,
            previous=before.previous if same else before.partition,
            bytes=len(data) + (before.bytes if same else 0),
            lines=events + (before.lines if same else 0),
            events=before.events + events,
            boot=before.boot,
        )
        self._sync(fd, name, new=not same)
        self._publish(mark)
        return Position(partition=name, byte=mark.bytes, line=mark.lines)

    def close(self) -> None:
        """Close the files."""
        if self._fd is not None:
            os.close(self._fd)
        os.close(self._watermark_fd)
        os.close(self._directory_fd)

    def _name_now(self) -> str:
        name = max(name_at(self._clock()), self._earliest)
        newest = self._mark.partition
        if newest is None or name > newest:
            return name
        return newest if self._appendable else name_after(newest)

    def _open(self, name: str, producers: Producers) -> int:
        if self._fd is not None and name == self._mark.partition:
            return self._fd
        if name != self._mark.partition:
            self._close_partition()
            self._save_producers(name, producers)
        self._fd = os.open(
            self._directory / name,
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC,
            FILE_MODE,
        )
        return self._fd

    def _save_producers(self, partition: str, producers: Producers) -> None:
        # Before the save: one that fails may have replaced the file all the same.
        self._earliest = partition
        snapshots.save(
            self._directory,
            Snapshot(partition=partition, events=self._mark.events, producers=producers.durable()),
        )

    def _close_partition(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _cut_back(self, name: str) -> None:
        try:
            if name == self._mark.partition:
                if self._fd is not None:
                    os.ftruncate(self._fd, self._mark.bytes)
                    os.fsync(self._fd)
            else:
                self._close_partition()
                (self._directory / name).unlink(missing_ok=True)
                os.fsync(self._directory_fd)
        except OSError as error:
            raise SyncFailedError(f"{name} can't be cut back: {error.strerror}") from error

    def _sync(self, fd: int, name: str, *, new: bool) -> None:
        try:
            os.fdatasync(fd)
            if new:
                os.fsync(self._directory_fd)
        except OSError as error:
            raise SyncFailedError(f"{name} can't be synced: {error.strerror}") from error

    def _publish(self, mark: Watermark) -> None:
        try:
            watermark_file.publish(self._watermark_fd, mark)
        except OSError as error:
            raise SyncFailedError(f"the watermark can't be written: {error}") from error
        self._mark = mark
        self._appendable = True
