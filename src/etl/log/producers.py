"""Which sequence each producer may send next: what makes a repeated request count once.

Format: `server_producers.json`: `format`, `partition`, `events`, `producers` (producer → [epoch,
next]) and `crc32` (of the object without that member). It is the state as of the synced end of all
partitions before the one it names; from that one on, batch headers are scanned.

Invariants:

* A line is appended only if its sequence is the producer's next one; known ones are skipped.
* What is admitted but not yet durable (`_pending`) is forgotten when its write fails, so the
  sequence goes back to where the log is.
* No producer is ever forgotten: a forgotten one would be counted again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import msgspec

from etl.core.wire import Producer
from etl.log import record
from etl.log.header import Identity
from etl.runtime.files import replace

FILE_NAME = "server_producers.json"
WAITERS_MAX = 256
WAIT_S = 2.0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Producers before a partition, and the events before it."""

    partition: str
    events: int
    producers: dict[str, tuple[int, int]]
    format: int = record.FORMAT


def save(directory: Path, snapshot: Snapshot) -> None:
    """Replace the snapshot, atomically and durably."""
    replace(directory / FILE_NAME, record.encode(snapshot) + b"\n")


def load(directory: Path) -> Snapshot | None:
    """Return the snapshot; None if it is missing or damaged.

    Raises:
        CorruptError: it is whole, but of a format that this version does not know.
    """
    try:
        data = (directory / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return None
    return record.decode(data, Snapshot, name=FILE_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The request may go on: its first `known` lines are duplicates."""

    known: int
    next: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Lines before this request are missing."""

    expected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced:
    """A newer epoch of the same producer has begun."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowded:
    """There are as many producers as may be."""

    limit: int


Verdict = Admitted | Gap | Fenced | Crowded


class Producers:
    """The next sequence of every producer, as far as durable and as far as admitted."""

    def __init__(self, durable: dict[str, tuple[int, int]], *, producers_max: int) -> None:
        self._durable = dict(durable)
        self._pending: dict[str, tuple[int, int]] = {}
        self._producers_max = producers_max
        self._waiters: dict[str, list[tuple[int, asyncio.Future[None]]]] = {}
        self._waiting = 0

    def durable(self) -> dict[str, tuple[int, int]]:
        """Return a copy of the durable state, for a snapshot."""
        return dict(self._durable)

    def judge(self, sent: Producer, lines: int) -> Verdict:
        """Decide on a request of `lines` lines, without changing anything."""
        state = self._pending.get(sent.producer) or self._durable.get(sent.producer)
        if state is None:
            if len(self._durable.keys() | self._pending.keys()) >= self._producers_max:
                return Crowded(limit=self._producers_max)
            state = (sent.epoch, 0)
        epoch, expected = state
        if sent.epoch < epoch:
            return Fenced(epoch=epoch)
        if sent.epoch > epoch:
            expected = 0
        if sent.first > expected:
            return Gap(expected=expected)
        known = min(lines, expected - sent.first)
        return Admitted(known=known, next=max(expected, sent.first + lines))

    async def judge_in_turn(self, sent: Producer, lines: int) -> Verdict:
        """Decide, after waiting a little for the predecessor of a request that came too early."""
        verdict = self.judge(sent, lines)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_S
        while isinstance(verdict, Gap) and self._waiting < WAITERS_MAX:
            if not await self._moved(sent, deadline):
                return self.judge(sent, lines)
            verdict = self.judge(sent, lines)
        return verdict

    async def _moved(self, sent: Producer, deadline: float) -> bool:
        moved = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(sent.producer, [])
        entry = (sent.first, moved)
        waiters.append(entry)
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await moved
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
            if entry in waiters:
                waiters.remove(entry)
            if not waiters:
                self._waiters.pop(sent.producer, None)
        return True

    def admit(self, identity: Identity) -> None:
        """Count the lines of a request as taken, until its write succeeds or fails."""
        self._pending[identity.producer] = (identity.epoch, identity.next)
        for first, moved in self._waiters.get(identity.producer, []):
            if first <= identity.next and not moved.done():
                moved.set_result(None)

    def commit(self, identity: Identity) -> None:
        """Count the lines of a request as durable."""
        state = (identity.epoch, identity.next)
        self._durable[identity.producer] = state
        if self._pending.get(identity.producer) == state:
            del self._pending[identity.producer]

    def roll_back(self) -> None:
        """Forget all that was admitted and is not durable."""
        self._pending.clear()
