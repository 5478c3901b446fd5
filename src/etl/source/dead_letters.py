"""Lines that can't become events: `dead_letters.jsonl`, one JSON object a line.

    {"time":"…","source":"events.jsonl","producer":"client-…","epoch":3,"line":17,"byte":901,
     "reason":"…","text":"…"}

`line` counts from 1, `byte` is where the line begins. `base64` stands in the place of `text`
where that isn't UTF-8. A line over the limit keeps its first 64 KiB, with `length` and `sha256`
of the whole.

Invariants:

* The letters of a run (producer and epoch) stand in the order of lines, and no line twice.
* After `append` returned they are durable.
* The last whole line says how far the letters are. A torn last line was never acknowledged by
  `append` and is cut when the file is opened.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from etl.core.event import LINE_BYTES_MAX
from etl.runtime import files
from etl.source.lines import Piece

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 64 * 1024
# Far more than the letters of one request, which is what may not be durable at a start.
_REWRITTEN_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A line of a piece that the server refused, counted from 1 within the piece."""

    line: int
    reason: str


class Letter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the file."""

    time: str = ""
    source: str = ""
    producer: str
    epoch: int
    line: int
    byte: int = -1
    reason: str = ""
    text: str | None = None
    base64: str | None = None
    length: int | None = None
    sha256: str | None = None


_decode = msgspec.json.Decoder(Letter).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Whose letters they are: one run over one source."""

    source: str
    producer: str
    epoch: int

    def letters(self, piece: Piece, rejected: Sequence[Rejected]) -> list[Letter]:
        """Return the letters of a piece, in the order of its lines."""
        if piece.unsendable is not None:
            lost = piece.unsendable
            return [self._letter(piece, 0, 0, lost.reason, lost.text, lost.length, lost.sha256)]
        if not rejected:
            return []
        lines = piece.body.split(b"\n")
        letters: list[Letter] = []
        byte = at = 0
        for one in rejected:
            byte += sum(map(len, lines[at : one.line - 1])) + one.line - 1 - at
            at = one.line - 1
            text = lines[at]
            digest = hashlib.sha256(text).hexdigest() if len(text) > LINE_BYTES_MAX else ""
            letters.append(
                self._letter(piece, at, byte, one.reason, text[:LINE_BYTES_MAX], len(text), digest)
            )
        return letters

    def _letter(
        self, piece: Piece, at: int, byte: int, reason: str, kept: bytes, length: int, digest: str
    ) -> Letter:
        text, encoded = _readable(kept)
        whole = length == len(kept)
        return Letter(
            time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            source=self.source,
            producer=self.producer,
            epoch=self.epoch,
            line=piece.first.sequence + at + 1,
            byte=piece.first.byte + byte,
            reason=reason,
            text=text,
            base64=encoded,
            length=None if whole else length,
            sha256=None if whole else digest,
        )


def _readable(data: bytes) -> tuple[str | None, str | None]:
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(data).decode()


class DeadLetters:
    """The file; all its methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._end = 0
        self._last: Letter | None = None

    def open(self) -> None:
        """Open the file, cut a torn last line, and learn how far the letters are.

        Raises:
            OSError: it can't be opened, cut or synced.
        """
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.FILE_MODE)
            files.sync_directory(self._path.parent)
        size = os.fstat(self._fd).st_size
        self._end, self._last = _last_letter(self._fd, size)
        if self._end < size:
            logger.warning("%s had a torn end, %d bytes cut", self._path, size - self._end)
            os.ftruncate(self._fd, self._end)
        # What a killed process wrote may not be durable yet, and will be trusted from here on.
        # Written once more: after a failed sync a second one says yes to bytes that are gone.
        if self._end:
            start = max(0, self._end - _REWRITTEN_BYTES)
            os.lseek(self._fd, start, os.SEEK_SET)
            files.write_all(self._fd, os.pread(self._fd, self._end - start, start))
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def append(self, letters: Sequence[Letter]) -> None:
        """Add letters of one run, in the order of lines, and make them durable; skip known ones.

        Raises:
            OSError: none of them counts as written; the file ends where it ended before.
        """
        new = [letter for letter in letters if not self._knows(letter)]
        if not new:
            return
        data = b"".join(msgspec.json.encode(letter) + b"\n" for letter in new)
        if not self._is_there():
            self.close()
            self.open()
        try:
            # Always cut first: a failed write, or its failed repair, may have left bytes here.
            os.ftruncate(self._fd, self._end)
            os.lseek(self._fd, self._end, os.SEEK_SET)
            files.write_all(self._fd, data)
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._end)
            raise
        self._end += len(data)
        self._last = new[-1]

    def _is_there(self) -> bool:
        """Say whether the file still has its name and its letters: anyone may move it away."""
        here = os.fstat(self._fd)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return there.st_ino == here.st_ino and here.st_size >= self._end

    def _knows(self, letter: Letter) -> bool:
        last = self._last
        return (
            last is not None
            and (last.producer, last.epoch) == (letter.producer, letter.epoch)
            and letter.line <= last.line
        )


def _last_letter(fd: int, size: int) -> tuple[int, Letter | None]:
    """Return where the last whole letter ends, and the letter."""
    end = size
    for start, line in _lines_backwards(fd, size):
        try:
            return end, _decode(line) if line.endswith(b"\n") else _torn()
        except (msgspec.DecodeError, UnicodeDecodeError):
            end = start
    return 0, None


def _torn() -> Letter:
    raise msgspec.DecodeError("no line break")


def _lines_backwards(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file with their starts, the last one first."""
    end, tail = size, b""
    while end > 0:
        cut = tail.rfind(b"\n", 0, len(tail) - 1) + 1
        start = end - len(tail)
        if not cut and start > 0:
            block = min(_BLOCK_BYTES, start)
            tail = os.pread(fd, block, start - block) + tail
            continue
        yield start + cut, tail[cut:]
        end, tail = start + cut, tail[:cut]
