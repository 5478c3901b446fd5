"""How far the client is: `client_progress.json`, format 1, replaced atomically and synced.

    {"format":1,"source":"events.jsonl","producer":"client-…","run":3,"epoch":1795421360123,"next":1000,
     "byte":53000,"crc32":1234,"head_bytes":65536,"head_crc32":5678,
     "stat":{"inode":1,"size":106000,"mtime_ns":1,"device":1},"file":"/home/u/events.jsonl",
     "end":null,"cut":false,"finished":false,"accepted":998,"rejected":1,"blank":1,"elsewhere":[]}

A record is valid if it is JSON with these members and format 1. Torn or damaged, it counts as
missing, with a warning; with another format it is refused.

Invariants:

* The start of a run is durable before its first request, and its end before its last line is
  taken for a line without a line break. So an epoch and a sequence never mean two lines.
* Every line before `next` is acknowledged, and its dead letter, if it is one, is durable.

* No epoch is used again, also where the record is an older copy: an epoch is the time at which the
  run began, in milliseconds, or one more than the last if the clock says less. Otherwise the server
  would take other lines for known ones.

`run` counts the runs, for people. `next` may lag behind what the server knows: what is sent again
is suppressed there.
`head_*` are the first bytes at the start of the run, which tell another file also while `byte`
is 0. `elsewhere` lists the ranges of lines that were sent without an identity. `file` is where the
source lay, symbolic links resolved, when the run began; `cut` says that it was cut short at `end`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from etl.runtime import files
from etl.runtime.errors import EtlError
from etl.source.lines import Mark
from etl.source.storing import persist
from etl.source.watch import Stat

logger = logging.getLogger(__name__)

FORMAT = 1
SAVE_INTERVAL_S = 0.1


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The record."""

    format: int = FORMAT
    source: str
    producer: str
    run: int
    epoch: int
    next: int = 0
    byte: int = 0
    crc32: int = 0
    head_bytes: int
    head_crc32: int
    stat: Stat
    file: str = ""
    end: int | None = None
    cut: bool = False
    finished: bool = False
    accepted: int = 0
    rejected: int = 0
    blank: int = 0
    elsewhere: tuple[tuple[int, int], ...] = ()

    @property
    def mark(self) -> Mark:
        """Where the run goes on."""
        return Mark(sequence=self.next, byte=self.byte, crc32=self.crc32)

    @property
    def head(self) -> Mark:
        """The first bytes of the source, as a place in it; not one between lines."""
        return Mark(byte=self.head_bytes, crc32=self.head_crc32)


class _Format(msgspec.Struct):
    format: int


def new_epoch(before: int = 0) -> int:
    """Return an epoch that was never used by whoever used `before` last."""
    return max(before + 1, time.time_ns() // 1_000_000)


def new_producer() -> str:
    """Return the identity of a client that has none."""
    return f"client-{secrets.token_hex(16)}"


def load(path: Path) -> Progress | None:
    """Read the record; None when there is none, or none that can be used.

    Raises:
        EtlError: it is of another format, or can't be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EtlError(f"{path} can't be read: {error.strerror}") from error
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found != FORMAT:
            raise EtlError(
                f"{path} has format {found}, this program knows {FORMAT}",
                hint="use the program that wrote it, or remove the file to send everything again",
            )
        return msgspec.json.decode(data, type=Progress)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        logger.warning("%s is damaged: %s; a new producer begins", path, error)
        return None


class Keeper:
    """Keeps the record: at once where it must, else in the background, ten times a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._latest: Progress | None = None
        self._saved: Progress | None = None
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()

    def note(self, progress: Progress) -> None:
        """Take a newer record; it is durable at the next save."""
        self._latest = progress
        self._news.set()

    async def save(self, progress: Progress) -> None:
        """Take a newer record and return when it is durable."""
        self.note(progress)
        await self.flush()

    async def flush(self) -> None:
        """Return when the newest record is durable."""
        async with self._writing:
            latest = self._latest
            if latest is not None and latest is not self._saved:
                await persist(self._path.name, self._replacement(latest))
                self._saved = latest

    async def run(self) -> None:
        """Save what is noted until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self.flush()
            await asyncio.sleep(SAVE_INTERVAL_S)

    def _replacement(self, progress: Progress) -> Callable[[], object]:
        return partial(files.replace, self._path, msgspec.json.encode(progress) + b"\n")
