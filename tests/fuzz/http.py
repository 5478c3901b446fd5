"""HTTP/1.1 read strictly, both ways, to compare the server with.

`requests_in` says where the requests in a stream of bytes begin and end (RFC 9112). What it calls
broken, the server may not acknowledge; where it sees one request, the server may not see two.
`response` takes nothing for a response that is not exactly one.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

HEAD_BYTES_MAX = 64 * 1024
_REQUEST_LINE = re.compile(rb"([A-Z-]+) +([^\x00-\x20\x7f]+) +HTTP/(1\.0|1\.1|2\.0)")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,40})(?:[ \t]*;[^\r\n]*)?")
_STATUS_LINE = re.compile(rb"HTTP/[0-9]\.[0-9] ([1-5][0-9]{2}) [\x20-\x7e]*")


class BrokenError(ValueError):
    """Bytes that are no request, or whose end can't be told."""


class CutError(ValueError):
    """Bytes that end within a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; `last` where nothing that follows on the connection is one."""

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    last: bool

    def values(self, name: bytes) -> list[bytes]:
        """Return all values of a header, by its name in small letters."""
        return [value for known, value in self.fields if known == name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One response."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes


def requests_in(data: bytes) -> tuple[list[Request], bool]:
    """Return the requests that stand whole in `data`, and whether what follows them is broken."""
    found: list[Request] = []
    at = 0
    while True:
        while data[at : at + 1] in {b"\r", b"\n"}:
            at += 1
        if at == len(data):
            return found, False
        try:
            request, at = _request(data, at)
        except CutError:
            return found, False
        except BrokenError:
            return found, True
        found.append(request)
        if request.last:
            return found, False


def _request(data: bytes, at: int) -> tuple[Request, int]:
    end = data.find(b"\r\n\r\n", at)
    head = data[at : end if end >= 0 else len(data)]
    first, *rest = head.split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    fields = [_FIELD.fullmatch(field) for field in rest]
    if end < 0:
        raise CutError
    if line is None:
        raise BrokenError(first)
    named = []
    for field in fields:
        if field is None:
            raise BrokenError(head)
        named.append((field[1].lower(), field[2].strip(b" \t")))
    body, at = _body(data, end + 4, named)
    method, target, version = line.groups()
    if method == b"PRI":
        raise CutError  # HTTP/2 begins so; whether what follows is all of it, does not matter
    if version == b"2.0":
        raise BrokenError(first)
    tokens = {
        token.strip().lower()
        for name, value in named
        if name == b"connection"
        for token in value.split(b",")
    }
    goes_on = version == b"1.1" or b"keep-alive" in tokens
    last = method == b"CONNECT" or b"upgrade" in tokens or b"close" in tokens or not goes_on
    return Request(method=method, target=target, fields=named, body=body, last=last), at


def _body(data: bytes, at: int, fields: list[tuple[bytes, bytes]]) -> tuple[bytes, int]:
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if (lengths and codings) or len(lengths) > 1:
        raise BrokenError("two lengths")
    if codings:
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise BrokenError(codings)
        return _chunks(data, at)
    if not lengths:
        return b"", at
    if not re.fullmatch(rb"[0-9]+", lengths[0]) or int(lengths[0][-20:]) > 2**63:
        raise BrokenError(lengths[0])
    length = int(lengths[0])
    if len(data) - at < length:
        raise CutError
    return data[at : at + length], at + length


def _chunks(data: bytes, at: int) -> tuple[bytes, int]:
    pieces: list[bytes] = []
    while True:
        end = data.find(b"\r\n", at)
        line = data[at : end if end >= 0 else len(data)]
        size = _CHUNK.fullmatch(line)
        if end < 0:
            raise CutError
        if size is None:
            raise BrokenError(line)
        length, at = int(size[1], 16), end + 2
        if not length:
            return b"".join(pieces), _trailers(data, at)
        if len(data) < at + length + 2:
            raise CutError
        if data[at + length : at + length + 2] != b"\r\n":
            raise BrokenError("no line break behind a chunk")
        pieces.append(data[at : at + length])
        at += length + 2


def _trailers(data: bytes, at: int) -> int:
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            raise CutError
        if end == at:
            return at + 2
        if not _FIELD.fullmatch(data[at:end]):
            raise BrokenError(data[at:end])
        at = end + 2


async def response(
    reader: asyncio.StreamReader, *, to_head: bool = False, unseen: bool = False
) -> Response | None:
    """Read the next response, without interim ones; None where the connection ended before it.

    What answers an `unseen` request may answer a HEAD, and end without its body.

    Raises:
        BrokenError: what came is no response.
    """
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise BrokenError(error.partial) from None
            return None
        first, *rest = head[:-4].split(b"\r\n")
        line = _STATUS_LINE.fullmatch(first)
        if line is None:
            raise BrokenError(first)
        fields = {}
        for each in rest:
            field = _FIELD.fullmatch(each)
            if field is None or field[1].lower() in fields:
                raise BrokenError(each)
            fields[field[1].lower()] = field[2]
        status = int(line[1])
        if status >= 200:
            break
    # What is broken behind a HEAD may be answered in its place, with a body, before the end.
    if status == 204 or (to_head and status != 400):
        return Response(status=status, fields=fields, body=b"")
    if b"content-length" not in fields or b"transfer-encoding" in fields:
        raise BrokenError(head)
    try:
        body = await reader.readexactly(int(fields[b"content-length"]))
    except asyncio.IncompleteReadError as error:
        if error.partial or not (to_head or unseen):
            raise BrokenError(error.partial) from None
        body = b""
    return Response(status=status, fields=fields, body=body)
