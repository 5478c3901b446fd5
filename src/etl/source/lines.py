"""The source's lines, cut into pieces that fit a request.

Invariants:

* A piece holds whole lines; only the last one of a run may lack its line break.
* The pieces of a run follow each other without gap or overlap, and are cut from bytes alone: a
  line has the same sequence however the pieces are cut.
* A body is the source's own bytes, or one blank line in the place of a line that can't be sent.
* Memory does not grow with the file or with a line.
* With an overlap, nothing is read behind bytes that are no longer those that were read there.

Not promised: that the bytes stay what they are in a source that is rewritten in place.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from zlib import crc32

from etl.core.event import LINE_BYTES_MAX

CHUNK_BYTES = 1024 * 1024
# Below this a line is found faster by looking for each break than by counting halves.
_STRIDE_BYTES = 4096
BLANK = b"\n"


class RewrittenError(Exception):
    """Other bytes stand now where the lines before were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place between two lines: the lines and bytes before it, and the CRC-32 of these bytes."""

    sequence: int = 0
    byte: int = 0
    crc32: int = 0

    def after(self, data: bytes, lines: int) -> Mark:
        """Return the place behind `data`, which stands here."""
        return Mark(
            sequence=self.sequence + lines,
            byte=self.byte + len(data),
            crc32=crc32(data, self.crc32),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsendable:
    """Why a blank line was sent in the place of a line, and what is kept of that line."""

    reason: str
    text: bytes
    length: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Consecutive lines of the source; `unsendable` only where it is one, and `body` blank."""

    first: Mark
    next: Mark
    body: bytes
    unsendable: Unsendable | None = None

    @property
    def lines(self) -> int:
        """How many lines it holds."""
        return self.next.sequence - self.first.sequence

    def split(self) -> tuple[Piece, Piece]:
        """Return its two halves; it holds more than one line."""
        lines = self.lines // 2
        end = after_lines(self.body, lines)
        middle = self.first.after(self.body[:end], lines)
        return (
            Piece(first=self.first, next=middle, body=self.body[:end]),
            Piece(first=middle, next=self.next, body=self.body[end:]),
        )

    def without(self, reason: str) -> Piece:
        """Return this line as one that can't be sent."""
        text = self.body.removesuffix(b"\n")
        refused = Unsendable(
            reason=reason,
            text=text[:LINE_BYTES_MAX],
            length=len(text),
            sha256=hashlib.sha256(text).hexdigest(),
        )
        return Piece(first=self.first, next=self.next, body=BLANK, unsendable=refused)


def after_lines(data: bytes, lines: int, start: int = 0) -> int:
    """Return where the first `lines` lines behind `start` end; `data` holds that many breaks."""
    low, high = start, len(data)
    while high - low > _STRIDE_BYTES:
        middle = (low + high) // 2
        found = data.count(b"\n", low, middle)
        if found >= lines:
            high = middle
        else:
            low, lines = middle, lines - found
    for _ in range(lines):
        low = data.find(b"\n", low) + 1
    return low


@dataclass(slots=True, kw_only=True)
class _LongLine:
    """What is known so far of a line that is too long to hold."""

    crc32: int
    text: bytes = b""
    length: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, data: bytes) -> None:
        """Take the next bytes of the line, without its line break."""
        if len(self.text) < LINE_BYTES_MAX:
            self.text += data[: LINE_BYTES_MAX - len(self.text)]
        self.length += len(data)
        self.crc32 = crc32(data, self.crc32)
        self.digest.update(data)


class Lines:
    """Reads a file's lines from a mark on; `end`, once known, is where the last line ends.

    `read` blocks and belongs in a thread; `cut` only takes what `read` left in memory. Of the bytes
    before its place the last `overlap_bytes` are read again each time, and compared; where they are
    not known yet, the first bytes of the file are compared with `head`.
    """

    def __init__(
        self,
        fd: int,
        start: Mark,
        *,
        end: int | None = None,
        lines_max: int,
        bytes_max: int,
        overlap_bytes: int = 0,
        head: Mark | None = None,
    ) -> None:
        self.fd = fd
        self.end = end
        self._overlap_bytes = overlap_bytes
        self._head = head
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._line_bytes = _STRIDE_BYTES
        self._read_bytes = max(bytes_max, 2 * LINE_BYTES_MAX)
        self.seek(start)

    def seek(self, mark: Mark) -> None:
        """Read on from `mark`."""
        self.mark = mark
        self.seen = mark.byte
        self._buffer = b""
        self._at = 0
        self._long: _LongLine | None = None
        self._before: bytes | None = None

    def cut(self) -> Piece | None:
        """Return the next piece, None when memory holds no whole line."""
        buffer, at = self._buffer, self._at
        # Twice the lines wanted, so that few lines of a large buffer cost no search of it all.
        reach = at + min(self._bytes_max, 2 * self._lines_max * self._line_bytes)
        end = buffer.rfind(b"\n", at, reach) + 1 or buffer.find(b"\n", reach) + 1
        if not end:
            return None
        lines = buffer.count(b"\n", at, end)
        if lines > self._lines_max:
            lines = self._lines_max
            end = after_lines(buffer, lines, at)
        self._at = end
        return self._piece(buffer[at:end], lines)

    def read(self) -> Piece | None:
        """Return the next piece from the file, None when it has no more whole lines now.

        Raises:
            RewrittenError: the overlap is not what it was.
        """
        if self._long is None:
            self._buffer = self._read_on()
            self._at = 0
            piece = self.cut()
            if piece is not None:
                return piece
            if len(self._buffer) < self._read_bytes:
                return self._rest()
            self._long = _LongLine(crc32=self.mark.crc32)
        return self._read_long(self._long)

    def _piece(self, body: bytes, lines: int) -> Piece:
        piece = Piece(first=self.mark, next=self.mark.after(body, lines), body=body)
        self.mark = piece.next
        if self._overlap_bytes:
            self._before = ((self._before or b"") + body[-self._overlap_bytes :])[
                -self._overlap_bytes :
            ]
        self._line_bytes = len(body) // lines + 1
        return piece

    def _read_on(self) -> bytes:
        """Return what follows the mark, from one call with the overlap."""
        before = self._before
        known = len(before) if before is not None else min(self._overlap_bytes, self.mark.byte)
        data = self._pread(known + self._read_bytes, self.mark.byte - known)
        if before is None:
            # After the read: what was rewritten before it is seen.
            if self._head is not None and not holds(self.fd, self._head):
                raise RewrittenError
            self._before = data[:known]
        elif not data.startswith(before):
            raise RewrittenError
        return data[known:]

    def _pread(self, size: int, byte: int) -> bytes:
        if self.end is not None:
            size = min(size, max(0, self.end - byte))
        data = os.pread(self.fd, size, byte)
        self.seen = max(self.seen, byte + len(data))
        return data

    def _rest(self) -> Piece | None:
        """Return the last line without a line break, once it is known to be the last."""
        rest, self._buffer = self._buffer, b""
        if not rest or self.mark.byte + len(rest) != self.end:
            return None
        return self._piece(rest, 1)

    def _read_long(self, line: _LongLine) -> Piece | None:
        while True:
            byte = self.mark.byte + line.length
            data = self._pread(CHUNK_BYTES, byte)
            if not data:
                return self._long_piece(line, b"") if byte == self.end else None
            end = data.find(b"\n")
            if end >= 0:
                line.add(data[:end])
                return self._long_piece(line, b"\n")
            line.add(data)

    def _long_piece(self, line: _LongLine, line_break: bytes) -> Piece:
        first = self.mark
        after = Mark(
            sequence=first.sequence + 1,
            byte=first.byte + line.length + len(line_break),
            crc32=crc32(line_break, line.crc32),
        )
        self.seek(after)
        unsendable = Unsendable(
            reason=f"event is {line.length} bytes, the limit is {LINE_BYTES_MAX}",
            text=line.text,
            length=line.length,
            sha256=line.digest.hexdigest(),
        )
        return Piece(first=first, next=after, body=BLANK, unsendable=unsendable)


def locate(fd: int, sequence: int, until: Mark) -> Mark | None:
    """Return the mark of a line before `until`; None when the bytes before `until` are others."""
    mark = Mark()
    found = mark if sequence == 0 else None
    while mark.byte < until.byte:
        data = os.pread(fd, min(CHUNK_BYTES, until.byte - mark.byte), mark.byte)
        if not data:
            return None
        lines = data.count(b"\n")
        if found is None and mark.sequence + lines >= sequence:
            wanted = sequence - mark.sequence
            found = mark.after(data[: after_lines(data, wanted)], wanted)
        mark = mark.after(data, lines)
    return found if mark.crc32 == until.crc32 else None


def holds(fd: int, mark: Mark) -> bool:
    """Say whether the bytes before `mark` are still the same."""
    return locate(fd, 0, mark) is not None
