"""Small state files: one JSON object that ends with its own checksum, and names its format.

Format: a JSON object whose last member is `crc32`, that of the object without it, in hexadecimal.
Valid: the checksum matches. The format is looked at before the rest, so that a file of another
version is refused by name and never misread.
"""

from __future__ import annotations

import zlib
from typing import TypeVar

import msgspec

from etl.runtime.errors import CorruptError

FORMAT = 1
_CRC_MEMBER = b',"crc32":"'
_encoder = msgspec.json.Encoder()

_Record = TypeVar("_Record", bound=msgspec.Struct)


class _Format(msgspec.Struct):
    format: int


def encode(record: msgspec.Struct) -> bytes:
    """Return a record as it stands in its file, without a line break."""
    body = _encoder.encode(record)[:-1]
    return b'%s%s%08x"}' % (body, _CRC_MEMBER, zlib.crc32(body))


def decode(data: bytes, kind: type[_Record], *, name: str) -> _Record | None:
    """Return what a file says, or None if it is torn or damaged.

    Raises:
        CorruptError: the file is whole, but of a format that this version does not know.
    """
    body, found, check = data.rpartition(_CRC_MEMBER)
    if not found or check.rstrip() != b'%08x"}' % zlib.crc32(body):
        return None
    try:
        known = msgspec.json.decode(body + b"}", type=_Format).format
        if known == FORMAT:
            return msgspec.json.decode(body + b"}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    raise CorruptError(
        f"{name} has format {known}, this version knows {FORMAT}",
        hint="start the version that wrote it",
    )
