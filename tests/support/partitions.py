"""Logs for tests: written by our own writer, or as the original program leaves them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import orjson

from etl.log.files import LogFiles
from etl.log.header import Batch, encode
from etl.log.identity import read_or_make_log_id
from etl.log.names import WINDOW_S
from etl.log.producers import Producers
from etl.log.recovery import recover

CLOCK_START_S = 1_800_000_000.0
ORIGINAL_PARTITION = "server_events_261124090000.jsonl"


def event(user_id: str, value: object, *, name: str = "add_revenue") -> bytes:
    """One line; `value` is written as it is if it is text."""
    shown = value if isinstance(value, str) else str(value)
    return b'{"userId":%s,"name":"%s","value":%s}\n' % (
        orjson.dumps(user_id),
        name.encode(),
        shown.encode(),
    )


def random_events(seed: int, *, count: int, users: int) -> tuple[list[bytes], dict[str, int]]:
    """Events with values of 40 bits, and every user's total by plain integers."""
    source = random.Random(seed)  # noqa: S311  no secret
    totals: dict[str, int] = {}
    lines = []
    for _ in range(count):
        user, value = f"user{source.randrange(users)}", source.getrandbits(40)
        sign = source.choice((1, -1))
        totals[user] = totals.get(user, 0) + sign * value
        lines.append(event(user, value, name="add_revenue" if sign > 0 else "subtract_revenue"))
    return lines, totals


class Log:
    """A log that tests append to; every call is one batch, durable and published."""

    def __init__(self, directory: Path, *, now_s: float = CLOCK_START_S) -> None:
        self.now_s = now_s
        read_or_make_log_id(directory)
        self._files = LogFiles(directory, recover(directory), clock=lambda: self.now_s)
        self._producers = Producers({}, producers_max=1)

    def append(self, lines: Iterable[bytes]) -> None:
        """Append one batch."""
        lines = list(lines)
        batch = Batch(data=b"".join(lines), events=len(lines))
        self._files.commit(encode(batch), len(lines), self._producers)

    def begin_partition(self) -> None:
        """Let the next batch begin a new partition, so that the one before is sealed."""
        self.now_s += WINDOW_S

    def close(self) -> None:
        self._files.close()


def write_original(directory: Path, lines: Iterable[bytes], *, name: str = "") -> Path:
    """Append lines to a partition as the original server does: no headers, no watermark."""
    path = directory / (name or ORIGINAL_PARTITION)
    with path.open("ab") as file:
        file.writelines(lines)
    return path
