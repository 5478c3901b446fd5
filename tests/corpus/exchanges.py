"""Raw HTTP: where a request ends, what is none, and what may not hide in another one."""

from __future__ import annotations

from corpus.case import PLAIN, TOKEN, Exchange

_POST = b"POST /liveEvent HTTP/1.1"
_CHUNKED = b"Transfer-Encoding: chunked"
_LENGTH = b"Content-Length: %d" % len(PLAIN)
_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PLAIN), PLAIN)


def _sent(*fields: bytes, body: bytes = PLAIN, first: bytes = _POST) -> bytes:
    always = (b"Host: 127.0.0.1", b"Authorization: " + TOKEN, b"Content-Type: application/json")
    return b"\r\n".join([first, *always, *fields, b"", body])


_GOOD = _sent(_LENGTH)
# Whoever loses count takes this for a request of its own.
_HIDDEN_EVENT = PLAIN.replace(b'"u"', b'"hidden"')
_HIDDEN = _sent(b"Content-Length: %d" % len(_HIDDEN_EVENT), body=_HIDDEN_EVENT)

_TAKEN: dict[str, tuple[bytes, int]] = {
    "one request": (_GOOD, 1),
    "two in one write": (_GOOD * 2, 2),
    "a line break before": (b"\r\n" + _GOOD, 1),
    "line breaks between": (_GOOD + b"\r\n\r\n" + _GOOD, 2),
    "a length with zeros in front": (_sent(b"Content-Length: 00%d" % len(PLAIN)), 1),
    "a length between tabs": (_sent(b"Content-Length:\t%d\t" % len(PLAIN)), 1),
    "a header that is not ASCII": (_sent(b"X: \xff\xfe", _LENGTH), 1),
    "a header without a value": (_sent(b"X:", _LENGTH), 1),
    "chunks": (_sent(_CHUNKED, body=_CHUNKS), 1),
    "chunks, twice": (_sent(_CHUNKED, body=_CHUNKS) * 2, 2),
    "chunks of one byte": (
        _sent(_CHUNKED, body=b"".join(b"1\r\n%c\r\n" % c for c in PLAIN) + b"0\r\n\r\n"),
        1,
    ),
    "chunked in capitals": (_sent(b"TRANSFER-ENCODING: CHUNKED", body=_CHUNKS), 1),
    "a chunk with an extension": (
        _sent(_CHUNKED, body=_CHUNKS.replace(b"\r\n", b";a=b\r\n", 1)),
        1,
    ),
    "chunks with a trailer": (_sent(_CHUNKED, body=_CHUNKS[:-2] + b"X: y\r\n\r\n"), 1),
    "a chunk size with zeros in front": (_sent(_CHUNKED, body=b"00000" + _CHUNKS), 1),
    "a whole address as target": (
        _sent(_LENGTH, first=b"POST http://127.0.0.1/liveEvent HTTP/1.1"),
        1,
    ),
    "a query": (_sent(_LENGTH, first=b"POST /liveEvent?x=%zz HTTP/1.1"), 1),
    "an encoded letter in the path": (_sent(_LENGTH, first=b"POST /live%45vent HTTP/1.1"), 1),
    "HTTP/1.0": (_sent(_LENGTH, first=b"POST /liveEvent HTTP/1.0"), 1),
    "Expect: 100-continue": (_sent(_LENGTH, b"Expect: 100-continue"), 1),
}

# No request, or none whose end is sure: the connection ends, and nothing behind it is read.
_BROKEN: dict[str, bytes] = {
    "both lengths": _sent(b"Content-Length: 5", _CHUNKED, body=_CHUNKS),
    "both lengths, the other way": _sent(_CHUNKED, _LENGTH, body=b"0\r\n\r\n" + PLAIN),
    "the same length twice": _sent(_LENGTH, _LENGTH),
    "two lengths": _sent(b"Content-Length: 0", _LENGTH),
    "a list of lengths": _sent(_LENGTH + b", %d" % len(PLAIN)),
    "a length with a plus": _sent(b"Content-Length: +%d" % len(PLAIN)),
    "a negative length": _sent(b"Content-Length: -1"),
    "a hexadecimal length": _sent(b"Content-Length: 0x2d"),
    "a length with an underscore": _sent(b"Content-Length: 4_5"),
    "a length of other digits": _sent("Content-Length: ٤٥".encode()),
    "a length beyond 64 bits": _sent(b"Content-Length: 99999999999999999999999"),
    "an empty length": _sent(b"Content-Length: "),
    "a space in a length": _sent(b"Content-Length: 4 5"),
    "a space before the colon of a length": _sent(b"Content-Length : %d" % len(PLAIN)),
    "a length on the next line": _sent(b"Content-Length:\r\n %d" % len(PLAIN)),
    "a length too short": _sent(b"Content-Length: %d" % (len(PLAIN) - 1)),
    "no length": _sent(),
    "chunked twice": _sent(_CHUNKED, _CHUNKED, body=_CHUNKS),
    "chunked, chunked": _sent(_CHUNKED + b", chunked", body=_CHUNKS),
    "chunked, then gzip": _sent(_CHUNKED + b", gzip", body=_CHUNKS),
    "gzip, then chunked": _sent(b"Transfer-Encoding: gzip, chunked", body=_CHUNKS),
    "an empty coding": _sent(b"Transfer-Encoding: ", body=b""),
    "xchunked": _sent(b"Transfer-Encoding: xchunked", body=_CHUNKS),
    "chunked in quotes": _sent(b'Transfer-Encoding: "chunked"', body=_CHUNKS),
    "chunked behind a vertical tab": _sent(b"Transfer-Encoding: \vchunked", body=_CHUNKS),
    "chunked on the next line": _sent(b"Transfer-Encoding:\r\n chunked", body=_CHUNKS),
    "a space before the colon of a coding": _sent(b"Transfer-Encoding : chunked", body=_CHUNKS),
    "the coding identity": _sent(b"Transfer-Encoding: identity"),
    "a chunk size with 0x": _sent(_CHUNKED, body=b"0x" + _CHUNKS),
    "a negative chunk size": _sent(_CHUNKED, body=b"-1\r\n" + _CHUNKS),
    "a chunk size with a plus": _sent(_CHUNKED, body=b"+" + _CHUNKS),
    "a chunk size with a space": _sent(_CHUNKED, body=_CHUNKS.replace(b"\r\n", b" \r\n", 1)),
    "a chunk size beyond 64 bits": _sent(_CHUNKED, body=b"f" * 20 + b"\r\n" + PLAIN),
    "a chunk without a size": _sent(_CHUNKED, body=b"\r\n" + _CHUNKS),
    "a chunk longer than its size": _sent(_CHUNKED, body=b"5\r\n" + PLAIN + b"\r\n0\r\n\r\n"),
    "chunks with line feeds alone": _sent(_CHUNKED, body=_CHUNKS.replace(b"\r\n", b"\n")),
    "a line feed in a chunk extension": _sent(
        _CHUNKED, body=_CHUNKS.replace(b"\r\n", b";a\nb\r\n", 1)
    ),
    "a folded header": _sent(b"X: a\r\n b", _LENGTH),
    "a folded first header": _sent(_LENGTH, first=_POST + b"\r\n X: y"),
    "line feeds alone": _GOOD.replace(b"\r\n", b"\n"),
    "one line feed alone": _sent(b"X: y\nZ: z", _LENGTH),
    "a carriage return alone": _sent(b"X: y\rZ: z", _LENGTH),
    "two carriage returns": _sent(b"X: y\r", _LENGTH),
    "NUL in a value": _sent(b"X: a\0b", _LENGTH),
    "NUL in a name": _sent(b"X\0: a", _LENGTH),
    "a control character in a value": _sent(b"X: \x01", _LENGTH),
    "a name that is not ASCII": _sent("é: a".encode(), _LENGTH),
    "an empty name": _sent(b": a", _LENGTH),
    "a header without a colon": _sent(b"abc", _LENGTH),
    "two hosts": _sent(b"Host: 127.0.0.1", _LENGTH),
    "no host": _GOOD.replace(b"Host: 127.0.0.1\r\n", b""),
    "two types": _sent(b"Content-Type: application/json", _LENGTH),
    "a method in small letters": _sent(_LENGTH, first=b"post /liveEvent HTTP/1.1"),
    "an unknown method": _sent(_LENGTH, first=b"FOO /liveEvent HTTP/1.1"),
    "a target without a slash": _sent(_LENGTH, first=b"POST liveEvent HTTP/1.1"),
    "a target with a space": _sent(_LENGTH, first=b"POST /live Event HTTP/1.1"),
    "a target with NUL": _sent(_LENGTH, first=b"POST /liveEvent\0 HTTP/1.1"),
    "an address that is none": _sent(_LENGTH, first=b"POST http://[::1/liveEvent HTTP/1.1"),
    "an address with a port too high": _sent(
        _LENGTH, first=b"POST http://x:99999/liveEvent HTTP/1.1"
    ),
    "tabs in the first line": _sent(_LENGTH, first=b"POST\t/liveEvent\tHTTP/1.1"),
    "a space behind the version": _sent(_LENGTH, first=_POST + b" "),
    "no version": _sent(_LENGTH, first=b"POST /liveEvent"),
    "no version, a line feed alone": _sent(_LENGTH, first=b"POST /liveEvent\nX: y"),
    "HTTP/0.9": _sent(_LENGTH, first=b"POST /liveEvent HTTP/0.9"),
    "HTTP/2.0": _sent(_LENGTH, first=b"POST /liveEvent HTTP/2.0"),
    "HTTP/1.2": _sent(_LENGTH, first=b"POST /liveEvent HTTP/1.2"),
    "http in small letters": _sent(_LENGTH, first=b"POST /liveEvent http/1.1"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "a greeting of TLS": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100),
    "all bytes there are": bytes(range(256)),
    "NULs": bytes(1000),
    "an event without HTTP": PLAIN + b"\r\n\r\n",
}

# Refused, and the connection goes on behind it where the request ends.
_REFUSED: dict[str, tuple[bytes, int]] = {
    "a wrong token": (_GOOD.replace(TOKEN, b"wrong"), 401),
    "a wrong token, chunks": (_sent(_CHUNKED, body=_CHUNKS).replace(TOKEN, b"wrong"), 401),
    "the token twice": (_sent(b"Authorization: " + TOKEN, _LENGTH), 401),
    "a slash behind the path": (_sent(_LENGTH, first=b"POST /liveEvent/ HTTP/1.1"), 404),
    "two slashes before the path": (_sent(_LENGTH, first=b"POST //liveEvent HTTP/1.1"), 404),
    "two dots in the path": (_sent(_LENGTH, first=b"POST /a/../liveEvent HTTP/1.1"), 404),
    "two encoded dots in the path": (
        _sent(_LENGTH, first=b"POST /a/%2e%2e/liveEvent HTTP/1.1"),
        404,
    ),
    "a semicolon in the path": (_sent(_LENGTH, first=b"POST /liveEvent;x HTTP/1.1"), 404),
    "another method": (_sent(_LENGTH, first=b"PUT /liveEvent HTTP/1.1"), 405),
    "a foreign host": (_GOOD.replace(b"Host: 127.0.0.1", b"Host: example.org"), 421),
    "a host that is not UTF-8": (_GOOD.replace(b"Host: 127.0.0.1", b"Host: 127.\xff0.0.1"), 421),
    "a foreign address as target": (
        _sent(_LENGTH, first=b"POST http://example.org/liveEvent HTTP/1.1"),
        421,
    ),
    "a request within the body": (
        _sent(b"Content-Length: %d" % len(_HIDDEN), body=_HIDDEN),
        400,
    ),
    "a request within a chunk": (
        _sent(_CHUNKED, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(_HIDDEN), _HIDDEN)),
        400,
    ),
    "a request within the body of another type": (
        _sent(b"Content-Length: %d" % len(_HIDDEN), body=_HIDDEN).replace(
            b"ation/json", b"ation/x", 1
        ),
        415,
    ),
}

EXCHANGES: tuple[Exchange, ...] = (
    *(
        Exchange(name=f"http: {name}", sent=sent, statuses=(201,) * number)
        for name, (sent, number) in _TAKEN.items()
    ),
    *(
        Exchange(name=f"http: {name}", sent=_GOOD + sent + _HIDDEN, statuses=(201, 400), final=True)
        for name, sent in _BROKEN.items()
    ),
    *(
        Exchange(name=f"http: {name}", sent=_GOOD + sent + _GOOD, statuses=(201, status, 201))
        for name, (sent, status) in _REFUSED.items()
    ),
)
