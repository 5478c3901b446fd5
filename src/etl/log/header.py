"""The batch header: how consecutive events of one sender stand in a partition.

Format: a batch is whole lines, and its first line carries one more member, the last of its object:

    …,"_batch":{"lines":3,"bytes":180,"crc32":"8c2f01ab","producer":"p","epoch":7,
    "sequence":0,"next":4,"header_crc32":"5d41402a"}}          (one line)

`lines`, `bytes` and `crc32` describe the batch as it was before that member went in; the next four
stand only where the producer is known; `header_crc32` is that of the member's value from its brace
up to the comma before. A header is valid when that checksum matches and nothing but the brace of
its line follows it; a batch, when it has the bytes, lines and checksum that its header says.

Invariants:

* The identity of a producer is in the same write as its events, so the two can't part.
* Every byte of a batch is under one of the two checksums, so headers can be trusted without reading
  what lies between them.
* The bytes `,"_batch":{` can't stand inside a JSON string (its quotes would be escaped), and no
  accepted event has that member, so the last such bytes of a batch's first line are its header.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import msgspec

from etl.core.lines import WHITE_SPACE
from etl.runtime.errors import CorruptError

OPENING = b',"_batch":{'
# What one request may carry, and the writer joins less: a header that says more is damaged.
BATCH_BYTES_MAX = 16 * 1024 * 1024
FIRST_LINE_BYTES_MAX = 64 * 1024 + 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose lines a batch covers: sequences from `sequence` up to, not including, `next`."""

    producer: str
    epoch: int
    sequence: int
    next: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Events to be written as one unit; `data` is whole lines and may be empty."""

    data: bytes
    events: int
    identity: Identity | None = None


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a batch says of itself."""

    lines: int
    bytes: int
    crc32: str
    producer: str | None = None
    epoch: int | None = None
    sequence: int | None = None
    next: int | None = None

    @property
    def identity(self) -> Identity | None:
        """Whose lines these are, where that is known."""
        if self.producer is None or self.epoch is None:
            return None
        return Identity(
            producer=self.producer,
            epoch=self.epoch,
            sequence=self.sequence or 0,
            next=self.next or 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A header and where its member stands in a buffer: `[start, end)`, with its comma."""

    header: Header
    start: int
    end: int

    @property
    def stored_bytes(self) -> int:
        """The bytes that the batch takes in its file."""
        return self.header.bytes + self.end - self.start


_decoder = msgspec.json.Decoder(Header)
_encoder = msgspec.json.Encoder()
CHECK = b',"header_crc32":"'
_CHECK_LENGTH = len(CHECK) + 8 + 2


def encode(batch: Batch) -> bytes:
    """Return a batch that is not empty as it is written."""
    who = batch.identity
    header = Header(
        lines=batch.events,
        bytes=len(batch.data),
        crc32=f"{zlib.crc32(batch.data):08x}",
        producer=who.producer if who else None,
        epoch=who.epoch if who else None,
        sequence=who.sequence if who else None,
        next=who.next if who else None,
    )
    brace = batch.data.rindex(b"}", 0, batch.data.index(b"\n"))
    view = memoryview(batch.data)
    said = _encoder.encode(header)[:-1]
    check = b'%s%08x"}' % (CHECK, zlib.crc32(said))
    return b"".join([view[:brace], OPENING[:-1], said, check, view[brace:]])


def find(buffer: bytes, start: int) -> Found | None:
    """Find the header of the batch that begins at `start`; None if the line there has none.

    Raises:
        CorruptError: there is one, but it can't be read.
    """
    line_end = buffer.find(b"\n", start, start + FIRST_LINE_BYTES_MAX)
    at = buffer.rfind(OPENING, start, line_end) if line_end >= 0 else -1
    if at < 0:
        return None
    close = buffer.find(b"}", at, line_end) + 1
    if buffer[close:line_end].rstrip(WHITE_SPACE) != b"}":
        return None
    value = buffer[at + len(OPENING) - 1 : close]
    said, check = value[:-_CHECK_LENGTH], value[-_CHECK_LENGTH:]
    if check != b'%s%08x"}' % (CHECK, zlib.crc32(said)):
        raise CorruptError("checksum of the batch header does not match")
    try:
        header = _decoder.decode(said + b"}")
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CorruptError("batch header can't be read") from None
    if not (0 < header.bytes <= BATCH_BYTES_MAX and header.lines > 0):
        raise CorruptError(f"batch header says {header.bytes} bytes, {header.lines} lines")
    return Found(header=header, start=at, end=close)


def find_whole(buffer: bytes, start: int, room: int) -> Found:
    """Find the header of a batch that must begin at `start` and end within `room` bytes.

    Raises:
        CorruptError: it does not.
    """
    found = find(buffer, start)
    if found is None:
        raise CorruptError("no batch header")
    if found.stored_bytes > room:
        raise CorruptError("batch is cut off")
    return found


def is_headed(buffer: bytes, start: int) -> bool:
    """Say whether a readable header stands in the line that begins at `start`."""
    try:
        return find(buffer, start) is not None
    except CorruptError:
        return False


def verify(buffer: bytes, start: int, found: Found) -> tuple[memoryview, memoryview]:
    """Check a batch that is wholly in `buffer`, and return its two parts without the header.

    Raises:
        CorruptError: it is not what its header says.
    """
    view = memoryview(buffer)
    end = start + found.stored_bytes
    head, tail = view[start : found.start], view[found.end : end]
    if f"{zlib.crc32(tail, zlib.crc32(head)):08x}" != found.header.crc32:
        raise CorruptError("checksum does not match")
    if buffer.count(b"\n", start, end) != found.header.lines or buffer[end - 1] != 0x0A:
        raise CorruptError("number of lines does not match")
    return head, tail
