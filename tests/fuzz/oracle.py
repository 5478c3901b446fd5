"""What the answer to a body should be, by the independent reader alone.

Nothing of the system is used here, and neither is a decoder of many lines: bytes are split at line
breaks, and each line is read by `support.strict`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from support import strict

_WHITE = b" \t\r"
_HEADER = re.compile(rb',"_batch":\{"lines":\d+,"bytes":[^{}]*"header_crc32":"[0-9a-f]{8}"\}\}$')


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The lines of one body: per line its event as it is stored, None refused, b"" blank."""

    lines: list[bytes | None]
    worth: list[tuple[str, int]]

    def counts(self, start: int = 0) -> tuple[int, int, int]:
        """Return how many lines from `start` on are events, refused, blank."""
        lines = self.lines[start:]
        refused, blank = lines.count(None), lines.count(b"")
        return len(lines) - refused - blank, refused, blank

    def refused(self) -> list[int]:
        """Return the numbers of the refused lines, from 1."""
        return [number for number, line in enumerate(self.lines, 1) if line is None]

    def stored(self, start: int = 0) -> list[bytes]:
        """Return the events from line `start` on, as they are stored."""
        return [line for line in self.lines[start:] if line]


def read(body: bytes) -> Read:
    """Read a body line by line; `worth` is what its events add, in millionths."""
    lines: list[bytes | None] = []
    worth = []
    for line in body.removesuffix(b"\n").split(b"\n") if body else []:
        stripped = line.strip(_WHITE)
        if not stripped and len(line) <= strict.LINE_BYTES_MAX:
            lines.append(b"")
            continue
        event = strict.read(line)
        if event is None:
            lines.append(None)
        else:
            lines.append(stripped)
            worth.append((event[0], int(event[1] * 10**6)))
    return Read(lines=lines, worth=worth)


def read_single(body: bytes) -> bytes | None:
    """Return one event, that may be spread over lines, as it is stored; None if it is none."""
    document = body.strip(_WHITE + b"\n")
    if strict.read_document(document) is None:
        return None
    return document.replace(b"\n", b" ")


@dataclass(slots=True)
class Tally:
    """Lines as a number and a sum that does not depend on their order: equal for equal lines."""

    lines: int = 0
    sum: int = 0

    def add(self, lines: Iterable[bytes]) -> None:
        """Count lines in."""
        for line in lines:
            self.lines += 1
            self.sum += (crc32(line) << 32 | crc32(line, 0xE71)) + 1


def bare(line: bytes) -> bytes:
    """Return a line of a partition without the header of its batch, and without outer space."""
    return _HEADER.sub(b"}", line.strip(_WHITE)).strip(_WHITE)
