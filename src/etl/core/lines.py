"""Many lines at once: which of them are events, and why the others are not.

A line is closed by a line break; the last one may go without. A blank line holds white space
only. Lines are numbered from 1 within what is judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from etl.core.event import LINE_BYTES_MAX, EventError, decode_fast, parse_document, parse_line

WHITE_SPACE = b" \t\r"
# Small enough that one bad line sends few good ones the slow way.
BLOCK_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A line that is not an event."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The lines of one request, told apart; `stored` holds the events, each closed by a break."""

    stored: bytes
    events: int
    blank: int
    rejections: tuple[Rejection, ...]

    @property
    def lines(self) -> int:
        """All lines, of every kind."""
        return self.events + self.blank + len(self.rejections)


def judge(data: bytes) -> Judged:
    """Tell events, blank lines and the rest of `data` apart."""
    if data and not data.endswith(b"\n"):
        data += b"\n"
    fast = decode_fast(data)
    if fast is not None:
        return Judged(stored=data, events=len(fast), blank=0, rejections=())
    stored: list[bytes] = []
    rejections: list[Rejection] = []
    events = blank = 0
    for block in _blocks(data):
        fast = decode_fast(block)
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
                parse_line(raw)  # its white space counts: the limit is on the line as it was sent
            except EventError as error:
                number = events + blank + len(rejections) + 1
                rejections.append(Rejection(line=number, reason=str(error)))
            else:
                stored.append(line + b"\n")
                events += 1
    return Judged(stored=b"".join(stored), events=events, blank=blank, rejections=tuple(rejections))


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


def _blocks(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", min(start + BLOCK_BYTES, len(data)) - 1) + 1
        yield data[start:end]
        start = end
