"""Fuzzed requests, each with what a server may answer.

A request that is whole HTTP knows its answer beforehand: from the independent reader, and from what
its producer has sent before. A stream of raw bytes does not; `fuzz.http` says what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from fuzz import oracle
from fuzz.material import Material

TOKEN = b"a-token-to-fuzz"
PRODUCERS_MAX = 500
_MAX = 2**63 - 1
NOBODY = -1  # a user's revenue is asked for without a database: 503, or 200 for no possible user
JSON = b"application/json"
NDJSON = b"application/x-ndjson"

# Legal, and no reason to answer otherwise.
_ODD_FIELDS = [
    *(
        b"X: \xff\xfe",
        b"x-y: " + b"z" * 4_000,
        b"Cookie: =;;=",
        b"TE: trailers",
        b"Accept: */*;q=9",
    ),
    *(b"X:", b"X:\t\ty\t ", b"Connection: keep-alive", b"Origin: null", b"Range: bytes=9-1"),
    *(b"Accept-Encoding: gzip, br", b"If-None-Match: *", b"Via: 1.0 x", b"Expect: 100-continue"),
    *(b"Content-Language: " + "é".encode(), b"Max-Forwards: -1", b"X-HTTP-Method-Override: GET"),
]
_PATHS = [
    *(b"/userEvents/" + user for user in (b"", b"u", b"a%2Fb", b"%00", b"%", b"%zz", b"%C0%AF")),
    *(b"/userEvents/" + user for user in (b"%ED%A0%80", b"..", b"../u", b"%2e%2e", b"u" * 4_000)),
    *(b"/userEvents/" + user for user in (b"//", b"u?x=y#z", b"%F0%9F", b"%25%32%46", b"a+b;c")),
]
# Headers of no producer; the fault is in one of them at least.
_BAD_PRODUCERS: list[list[bytes]] = [
    [b"Producer-Id: p"],
    [b"Producer-Epoch: 1", b"Producer-Seq: 0"],
    [b"Producer-Id: p", b"Producer-Seq: 0"],
    [b"Producer-Id: p", b"Producer-Id: p", b"Producer-Epoch: 1", b"Producer-Seq: 0"],
    [b"Producer-Id: p", b"Producer-Epoch: 1", b"Producer-Seq: 0", b"producer-seq: 1"],
    *(
        [b"Producer-Id: " + name, b"Producer-Epoch: 1", b"Producer-Seq: 0"]
        for name in (b"", b"a b", b'"', b"}", b"\xff", b"x" * 129, b"\xc3\xa9", b"p,p")
    ),
    *(
        [b"Producer-Id: p", b"Producer-%s: %s" % (name, number), b"Producer-%s: 0" % other]
        for name, other in ((b"Epoch", b"Seq"), (b"Seq", b"Epoch"))
        for number in (b"%d" % 2**63, b"-1", b"+1", b"1.0", b"1e3", b"0x1", b"", b"9" * 99, b"1_0")
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A request and its answer: status, and for many events what the receipt says."""

    data: bytes
    status: int
    kind: str
    read: oracle.Read | None = None
    known: int = 0
    next: int | None = None
    stored: tuple[bytes, ...] = ()
    to_head: bool = False


@dataclass(slots=True)
class Known:
    """What the server knows of a producer; without an epoch, nothing."""

    name: bytes
    epoch: int = -1
    next: int = 0


class Maker:
    """Makes the requests of one connection, whose producer nobody else is."""

    def __init__(self, random: Random, name: bytes, lines_max: int) -> None:
        self.random = random
        self.material = Material(random)
        self._lines_max = lines_max
        self._producer = Known(name=name)

    def request(self) -> Made:
        """Return a request that is whole HTTP."""
        dice = self.random.random()
        if dice < 0.45:
            return self._many()
        if dice < 0.65:
            return self._one()
        if dice < 0.85:
            return self._produced()
        if dice < 0.90:
            return self._misled()
        return self._otherwise()

    def anonymous(self) -> Made:
        """Return such a request that needs no knowledge of what was sent before."""
        dice = self.random.random()
        if dice < 0.5:
            return self._one()
        return self._many() if dice < 0.9 else self._otherwise()

    def _many(self) -> Made:
        body = self.material.body(self._lines_max)
        read = oracle.read(body)
        return Made(
            data=self._post(body, NDJSON),
            status=200,
            kind="many",
            read=read,
            stored=tuple(read.stored()),
        )

    def _one(self) -> Made:
        material = self.material
        body = material.line() if self.random.random() < 0.8 else material.body(3)
        line = oracle.read_single(body)
        return Made(
            data=self._post(body, JSON),
            status=400 if line is None else 201,
            kind="one",
            stored=() if line is None else (line,),
        )

    def _produced(self) -> Made:
        """Return a request of the connection's producer: new, known in part, of another epoch."""
        body = self.material.body(self._lines_max)
        read = oracle.read(body)
        lines, who, dice = len(read.lines), self._producer, self.random.random()
        epoch, first = max(0, who.epoch), who.next
        if dice < 0.1 or who.epoch < 0:
            epoch, first = who.epoch + 1 + int(dice * 9), 0
        elif dice < 0.4:
            first = max(0, first - int(dice * 40))
        elif dice < 0.42 and who.epoch > 0:
            epoch = int(dice * who.epoch)
        elif dice < 0.43 and lines:
            first = _MAX - lines + 1
        elif dice > 0.999:
            first += 1
        fields = [b"Producer-Id: " + who.name, b"Producer-Epoch: %d" % epoch]
        data = self._post(body, NDJSON, [*fields, b"Producer-Seq: %d" % first])
        if first + lines > _MAX:
            return Made(data=data, status=400, kind="producer")
        if epoch < who.epoch:
            return Made(data=data, status=403, kind="producer")
        expected = who.next if epoch == who.epoch else 0
        if first > expected:
            return Made(data=data, status=409, kind="producer")
        known = min(lines, expected - first)
        who.epoch, who.next = epoch, max(expected, first + lines)
        return Made(
            data=data,
            status=200,
            kind="producer",
            read=read,
            known=known,
            next=who.next,
            stored=tuple(read.stored(known)),
        )

    def _misled(self) -> Made:
        """Return events beside headers of a producer that are none."""
        fields = _BAD_PRODUCERS[int(self.random.random() * len(_BAD_PRODUCERS))]
        data = self._post(self.material.body(self._lines_max), NDJSON, fields)
        return Made(data=data, status=400, kind="bad producer")

    def _otherwise(self) -> Made:
        """Return a request that is no good event, for a reason that is not in its body."""
        body, post = self.material.body(self._lines_max), self._post
        kind = "otherwise"
        match int(self.random.random() * 9):
            case 0:
                data, status = post(body, NDJSON, token=TOKEN + b"x"), 401
            case 1:
                data, status = post(body, b"text/plain"), 415
            case 2:
                data, status = post(body, NDJSON, [b"Content-Encoding: gzip"]), 415
            case 3:
                data, status = post(body, NDJSON, target=b"/liveEvents"), 404
            case 4:
                data, status = post(body, NDJSON, method=b"PUT"), 405
            case 5:
                data, status = post(b"", JSON, method=b"OPTIONS"), 204
            case 6:
                return Made(
                    data=post(b"", JSON, method=b"HEAD", target=b"/livez"),
                    status=200,
                    kind=kind,
                    to_head=True,
                )
            case _:
                target = self.material.pick(_PATHS)
                data, status = post(b"", JSON, method=b"GET", target=target), NOBODY
        return Made(data=data, status=status, kind=kind)

    def _post(
        self,
        body: bytes,
        media_type: bytes,
        fields: list[bytes] | None = None,
        *,
        method: bytes = b"POST",
        target: bytes = b"/liveEvent",
        token: bytes = TOKEN,
    ) -> bytes:
        dice = self.random.random()
        more = list(fields or ())
        if dice < 0.1:
            body = self._chunked(body)
            more.append(b"Transfer-Encoding: chunked")
        else:
            more.append(b"Content-Length: %d" % len(body))
        if dice > 0.85:
            more.append(self.material.pick(_ODD_FIELDS))
        if 0.9 < dice < 0.95:
            self.random.shuffle(more)
        head = [
            b"%s %s HTTP/1.1" % (method, target),
            b"Host: 127.0.0.1",
            b"Authorization: " + token,
            b"Content-Type: " + media_type,
            *more,
        ]
        return b"\r\n".join([*head, b"", body])

    def _chunked(self, body: bytes) -> bytes:
        pieces = []
        while body:
            size = 1 + int(self.random.random() ** 2 * len(body))
            pieces.append(b"%x\r\n%s\r\n" % (size, body[:size]))
            body = body[size:]
        return b"".join([*pieces, b"0\r\n\r\n"])
