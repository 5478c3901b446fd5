"""Streams of raw bytes for one connection: requests whose framing is wrong, doubled or hidden."""

from __future__ import annotations

import re
from random import Random

from fuzz.making import TOKEN, Maker

_LENGTH = re.compile(rb"Content-Length: (\d+)")
_CHUNKED = b"Transfer-Encoding: chunked"
_LENGTHS = [
    *(
        b"0",
        b"-1",
        b"+%d",
        b"%d, %d",
        b"0x%x",
        b"%d ",
        b"\t%d",
        b"0%d",
        b"%d_0",
        b"%d.0",
        b"",
        b" ",
    ),
    *(b"99999999999999999999999", b"18446744073709551616", b"\r\n %d", b"%d\x0b", b'"%d"', b"%d;x"),
]
_CODINGS = [
    *(
        b"xchunked",
        b"chunked, gzip",
        b"gzip, chunked",
        b"chunked, chunked",
        b"identity",
        b"CHUNKED",
    ),
    *(b"\x0bchunked", b'"chunked"', b"\r\n chunked", b"chunked;x", b"chunked,", b",chunked", b""),
]
_SIZES = [
    *(
        b"0x%x",
        b"+%x",
        b"-1",
        b"%x ",
        b" %x",
        b"0%x",
        b"%x;a=b",
        b"%x;\n",
        b"%x\n",
        b"fffffffffffffffff",
    ),
    *(b"", b"g", b"%x\0", b"%x\r", b'%x;"\r\n"', b"1_%x"),
]
_FIELDS = [
    *(b"Host: x", b"Host:", b"Authorization: " + TOKEN, b"Content-Type: text/plain", b": x", b"x"),
    *(
        b"X: a\0b",
        b"X\0: y",
        b"X : y",
        b" X: y",
        b"\tX: y",
        b"X: a\r\n b",
        b"X: y\nZ: z",
        b"X: y\rZ: z",
    ),
    *(
        b"X\xc3\xa9: y",
        b"X: \x01",
        b"Connection: close",
        b"Expect: x",
        b"X: " + b"y" * 9_000,
        b"X: \x7f",
    ),
    *(
        b"Content-Length : 5",
        b"Content-Length\t: 5",
        b"Transfer-Encoding : chunked",
        b"X(: y",
        b"X",
    ),
    *(b"Transfer-Encoding:chunked", b"transfer-encoding: chunked", b"Content-Length: 5", b"TE: x"),
]
_LINES = [
    *(b"post /liveEvent HTTP/1.1", b"POST http://127.0.0.1/liveEvent HTTP/1.1", b"POST /liveEvent"),
    *(b"POST //liveEvent HTTP/1.1", b"POST /live%45vent HTTP/1.1", b"POST  /liveEvent  HTTP/1.1"),
    *(b"POST /liveEvent HTTP/1.0", b"POST /liveEvent HTTP/1.2", b"POST /liveEvent HTTP/11"),
    *(b"POST /liveEvent\0 HTTP/1.1", b"POST /liveEvent HTTP/1.1\n", b"POST\t/liveEvent\tHTTP/1.1"),
    *(b"POST /live Event HTTP/1.1", b"POST liveEvent HTTP/1.1", b"POST * HTTP/1.1", b"\0" * 40),
    *(b"POST http://[::1/liveEvent HTTP/1.1", b"POST http://x:99999/liveEvent HTTP/1.1", b"GET /"),
    *(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"FOO / HTTP/1.1",
    ),
    *(
        b"POST /" + b"x" * 9_000 + b" HTTP/1.1",
        b"POST /liveEvent?x=%zz#y HTTP/1.1",
        b"HTTP/1.1 200 OK",
    ),
    *(b"GET /livez HTTP/1.1", b"TRACE /liveEvent HTTP/1.1", b"POST /a/../liveEvent HTTP/1.1", b""),
]


class Streams:
    """Makes streams."""

    def __init__(self, random: Random, maker: Maker) -> None:
        self._random = random
        self._maker = maker

    def stream(self) -> tuple[bytes, int]:
        """Return bytes to send over a connection of their own, and about how many requests."""
        pieces: list[bytes] = []
        while not pieces or (self._random.random() < 0.6 and len(pieces) < 4):
            data = self._maker.anonymous().data
            if self._random.random() < 0.25:
                data = self._within(data)
            if self._random.random() < 0.7:
                data = self._hurt(data)
            pieces.append(data)
        stream = self._maker.material.pick([b"", b"", b"", b"\r\n", b"x"]).join(pieces)
        if self._random.random() < 0.1:
            stream = stream[: int(self._random.random() * len(stream))]
        return stream, len(pieces)

    def _within(self, inner: bytes) -> bytes:
        """Return a request whose body is one itself: whoever loses count takes it for the next."""
        head = b"POST /liveEvent HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: " + TOKEN
        body = (
            self._maker.material.pick([b"", b"\n", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"])
            + inner
        )
        head += b"\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n" % len(body)
        return head + body

    def _hurt(self, data: bytes) -> bytes:
        """Return a request with a fault in its framing, or with what looks like one."""
        pick = self._maker.material.pick
        head, _, body = data.partition(b"\r\n\r\n")
        first, _, fields = head.partition(b"\r\n")
        match int(self._random.random() * 9):
            case 0:
                return self._with_length(data)
            case 1:
                found = _LENGTH.search(head)
                said = b"Transfer-Encoding: " + pick(_CODINGS)
                head = _LENGTH.sub(lambda _: said, head) if found else head.replace(_CHUNKED, said)
                return b"%s\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (head, len(body), body)
            case 2:
                return b"%s\r\n%s\r\n\r\n%s" % (head, _CHUNKED, body)
            case 3:
                head = _LENGTH.sub(_CHUNKED, head)
                size = _filled(pick(_SIZES), len(body))
                return b"%s\r\n\r\n%s\r\n%s\r\n0\r\n\r\n" % (head, size, body)
            case 4:
                return b"%s\r\n%s\r\n%s\r\n\r\n%s" % (first, pick(_FIELDS), fields, body)
            case 5:
                return b"%s\r\n%s\r\n\r\n%s" % (head, pick(_FIELDS), body)
            case 6:
                return b"%s\r\n%s\r\n\r\n%s" % (pick(_LINES), fields, body)
            case 7:
                return self._maker.material.turned(head) + b"\r\n\r\n" + body
            case _:
                return data.replace(b"\r\n", pick([b"\n", b"\r", b"\r\r\n", b"\n\r", b" \r\n"]), 3)

    def _with_length(self, data: bytes) -> bytes:
        """Return a request with another length, a second one, or one that is off by a little."""
        found = _LENGTH.search(data)
        if found is None:
            return data
        length = int(found[1])
        dice = self._random.random()
        off = max(0, length + int(self._random.random() * 9) - 4)
        said = _filled(self._maker.material.pick(_LENGTHS), length) if dice < 0.6 else b"%d" % off
        line = b"Content-Length: " + said
        if self._random.random() < 0.3:
            line = found[0] + b"\r\n" + line
        return data[: found.start()] + line + data[found.end() :]


def _filled(pattern: bytes, number: int) -> bytes:
    numbers = pattern.count(b"%d") + pattern.count(b"%x")
    return pattern % ((number,) * numbers) if numbers else pattern
