"""A log in a directory, written and read without a server around it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from etl.log.files import LogFiles
from etl.log.header import Batch, Identity, encode
from etl.log.identity import read_or_make_log_id
from etl.log.position import Position
from etl.log.producers import Producers
from etl.log.reader import Block, LogReader
from etl.log.recovery import recover

# 2026-11-23 08:09:20 UTC, the first second of window 04.
START_S = 1_795_421_360.0
FIRST = "server_events_261123080904.jsonl"
SECOND = "server_events_261123080905.jsonl"


@dataclass(slots=True)
class Clock:
    """A clock that stands where it was put."""

    now_s: float = START_S

    def __call__(self) -> float:
        return self.now_s


class Log:
    """The writing end, recovered from a directory as a server does it."""

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        read_or_make_log_id(directory)
        self.recovered = recover(directory)
        self.producers = Producers(self.recovered.producers, producers_max=10_000)
        self.clock = clock or Clock()
        self.files = LogFiles(directory, self.recovered, clock=self.clock)

    def append(self, *batches: Batch) -> Position:
        """Write batches with one sync, as the writer's thread does."""
        data = b"".join(map(encode, batches))
        place = self.files.commit(data, sum(b.events for b in batches), self.producers)
        for batch in batches:
            if batch.identity is not None:
                self.producers.commit(batch.identity)
        return place

    def close(self) -> None:
        self.files.close()


def batch(*values: int, sequence: int | None = None, user: str = "u") -> Batch:
    """Return a batch of one event a value; with a sequence, of producer `p` in epoch 1."""
    identity = None
    if sequence is not None:
        identity = Identity(producer="p", epoch=1, sequence=sequence, next=sequence + len(values))
    return Batch(data=lines(values, user), events=len(values), identity=identity)


def lines(values: Iterable[int], user: str = "u") -> bytes:
    """Return events as the client sends them."""
    events = ({"userId": user, "name": "add_revenue", "value": value} for value in values)
    return b"".join(json.dumps(e, separators=(",", ":")).encode() + b"\n" for e in events)


def values_in(data: bytes) -> list[int]:
    """Return the values of the events in a partition or in what a reader returned."""
    return [json.loads(line)["value"] for line in data.splitlines()]


def read_all(directory: Path, *, undone: Iterable[Position] = (), newest: str = "") -> list[Block]:
    """Return all that a new reader finds."""
    reader = LogReader(directory, undone=undone, newest=newest or None)
    blocks: list[Block] = []
    try:
        while found := reader.read(1024 * 1024):
            blocks += found
    finally:
        reader.close()
    return blocks


def values_read(directory: Path) -> list[int]:
    """Return the values of all events that a new reader finds."""
    return [value for block in read_all(directory) for value in values_in(block.data)]
