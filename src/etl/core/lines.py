"""Many lines at once: which of them are events, and why the others are not.

A line is closed by a line break; the last one may go without. A blank line holds white space
only. Lines are numbered from 1 within what is judged.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from etl.core.event import LINE_BYTES_MAX, EventError, decode_fast, parse_document, parse_line
from etl.core.wire import RejectedLine

WHITE_SPACE = b" \t\r"
# Small enough that one bad line sends few good ones the slow way.
BLOCK_BYTES = 8 * 1024
# What is decoded at a time: lines and events together stay in the cache, which takes a tenth to a
# sixth less than 2 MiB at a time.
CACHED_BYTES = 256 * 1024
# Above the usual size of a request: that is judged in one piece.
PART_BYTES = 1024 * 1024 + LINE_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The lines of one request, told apart; `stored` holds the events, each closed by a break."""

    stored: bytes
    events: int
    blank: int
    rejections: list[RejectedLine]

    @property
    def lines(self) -> int:
        """All lines, of every kind."""
        return self.events + self.blank + len(self.rejections)


def judge(data: bytes) -> Judged:
    """Tell events, blank lines and the rest of `data` apart."""
    steps = judging(data)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            judged: Judged = end.value
            return judged


def judging(data: bytes) -> Generator[None, None, Judged]:
    """Do what `judge` does, in steps between which the caller may do something else.

    A step is at most `PART_BYTES` of good lines, or one block asked of C, or one line asked of
    the strict parser: about 10 ms where it is longest.
    """
    if data and not data.endswith(b"\n"):
        data += b"\n"
    stored: list[bytes] = []
    rejections: list[RejectedLine] = []
    events = blank = 0
    for part in pieces(data, PART_BYTES):
        good = _events_in(part)
        if good is not None:
            stored.append(part)
            events += good
            yield
            continue
        for block in pieces(part, BLOCK_BYTES):
            fast = decode_fast(block)
            yield
            if fast is not None:
                stored.append(block)
                events += len(fast)
                continue
            for raw in block.split(b"\n")[:-1]:
                line = raw.strip(WHITE_SPACE)
                if not line and len(raw) <= LINE_BYTES_MAX:
                    blank += 1
                    continue
                try:
                    parse_line(raw)  # its white space counts: the limit is on what was sent
                except EventError as error:
                    number = events + blank + len(rejections) + 1
                    rejections.append(RejectedLine(line=number, reason=str(error)))
                else:
                    stored.append(line + b"\n")
                    events += 1
                yield
    kept = stored[0] if len(stored) == 1 else b"".join(stored)
    return Judged(stored=kept, events=events, blank=blank, rejections=rejections)


def _events_in(data: bytes) -> int | None:
    """Return the number of events if every line is one, and nothing about them is unusual."""
    found = 0
    for piece in pieces(data, CACHED_BYTES):
        fast = decode_fast(piece)
        if fast is None:
            return None
        found += len(fast)
    return found


def one_line(document: bytes) -> bytes:
    """Return one event as a line to be stored, closed by a line break; its own become spaces.

    Raises:
        EventError: it is not an event.
    """
    line = document.strip(WHITE_SPACE + b"\n")
    if b"\n" in line or decode_fast(line + b"\n") is None:
        parse_document(line)  # before the breaks are gone: within a string they are an error
    return line.replace(b"\n", b" ") + b"\n"


def count_lines(data: bytes) -> int:
    """Return the number of lines in `data`, the last one with or without its line break."""
    return data.count(b"\n") + (1 if data and not data.endswith(b"\n") else 0)


def drop_lines(data: bytes, count: int) -> bytes:
    """Return `data` without its first `count` lines."""
    start = 0
    for _ in range(count):
        end = data.find(b"\n", start)
        if end < 0:
            return b""
        start = end + 1
    return data[start:]


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Cut whole lines after the first line break at or behind each `size` bytes."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", min(start + size, len(data)) - 1) + 1
        yield data[start:end]
        start = end
