"""One request to the server and what its answer means, by the contract of `core/wire.py`.

Two kinds of server: one that advertises NDJSON takes whole pieces with the producer's headers;
any other gets one event per request, with no more than its own promise. Which kind it is must be
asked again after each answer that doesn't fit and each lost connection.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from etl.core import wire
from etl.core.event import LINE_BYTES_MAX, EventError, parse_line
from etl.core.lines import WHITE_SPACE
from etl.runtime.settings import Settings
from etl.source.dead_letters import Rejected
from etl.source.lines import Piece

REPLY_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 3.0
RETRY_AFTER_S_MAX = 60.0
UNAUTHORIZED_WAIT_S = 5.0
_REPLY_BYTES_MAX = 32 * 1024 * 1024
# Above this aiohttp wants a stream; below, bytes are the cheapest.
_PLAIN_BODY_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The piece is durable there; `blank` is None where only its bytes can tell."""

    rejected: tuple[Rejected, ...]
    blank: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The server lacks lines before the piece."""

    expected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The piece as a whole is unusable there."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Displaced:
    """A newer epoch of this producer exists."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Nothing is known of the piece; it has to be sent again. `kind` tells troubles apart."""

    kind: str
    reason: str
    at_least_s: float = 0.0

    @property
    def lost(self) -> bool:
        """Whether another server may stand there by now."""
        return self.kind not in {"gap", "status 401", "status 503"}


Reply = Taken | Gap | Refused | Displaced | Later


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class Link:
    """The server, as far as it is known."""

    def __init__(self, settings: Settings, *, connections: int) -> None:
        self._url = _url(settings.server_url)
        self._ndjson: bool | None = None
        self._headers = {"Authorization": settings.token}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=REPLY_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @property
    def known(self) -> bool:
        """Whether it is known what the server takes."""
        return self._ndjson is not None

    @property
    def many(self) -> bool:
        """Whether it takes many lines in a request, and producers."""
        return self._ndjson is True

    def forget(self) -> None:
        """Ask again before the next request: another server may stand there now."""
        self._ndjson = None

    async def ask(self) -> Later | None:
        """Find out what the server takes; None when it is known now."""
        answer = await self._request("OPTIONS", b"", {})
        if isinstance(answer, Later):
            return answer
        if answer.status in {401, 403, 429} or (answer.status >= 500 and answer.status != 501):
            return _later(answer)
        accepted = ",".join(answer.headers.getall("Accept-Post", ()))
        self._ndjson = answer.status < 300 and wire.NDJSON_TYPE in accepted.lower()
        return None

    async def post(self, piece: Piece, producer: wire.Producer) -> Reply:
        """Send a piece, to a server that takes many lines."""
        headers = {"Content-Type": wire.NDJSON_TYPE, **producer.headers()}
        answer = await self._request("POST", piece.body, headers)
        if isinstance(answer, Later):
            return answer
        match answer.status:
            case 200:
                return _taken(answer, piece)
            case 400 | 413:
                return Refused(reason=_detail(answer))
            case 403 if _is_ours(answer):
                return Displaced(reason=_detail(answer))
            case 409:
                return _gap(answer, piece)
            case _:
                return _later(answer)

    async def post_event(self, piece: Piece) -> Reply:
        """Send a piece of one line as one event, to a server that takes nothing else."""
        line = piece.body.removesuffix(b"\n")
        if len(line) <= LINE_BYTES_MAX and not line.strip(WHITE_SPACE):
            return Taken(rejected=(), blank=1)
        try:
            parse_line(line)
        except EventError as error:
            return Taken(rejected=(Rejected(line=1, reason=str(error)),), blank=0)
        answer = await self._request("POST", line, {"Content-Type": wire.JSON_TYPE})
        if isinstance(answer, Later):
            return answer
        match answer.status:
            case 200 | 201:
                return Taken(rejected=(), blank=0)
            case 400 | 413:
                return Refused(reason=_detail(answer))
            case _:
                return _later(answer)

    async def _request(self, method: str, body: bytes, headers: dict[str, str]) -> Answer | Later:
        data = body if len(body) <= _PLAIN_BODY_BYTES_MAX else io.BytesIO(body)
        try:
            async with self._session.request(
                method,
                self._url,
                data=data or None,
                headers=self._headers | headers,
                allow_redirects=False,
            ) as response:
                return Answer(
                    status=response.status,
                    headers=response.headers,
                    body=await _bounded(response),
                )
        except TimeoutError:
            return Later(kind="unreachable", reason="no answer in time")
        except (aiohttp.ClientError, OSError) as error:
            return Later(kind="unreachable", reason=str(error) or type(error).__name__)


def _url(server_url: str) -> URL:
    parts = urlsplit(server_url)
    return URL.build(
        scheme=parts.scheme,
        host=parts.hostname or "127.0.0.1",
        port=parts.port,
        path=wire.LIVE_EVENT_PATH,
    )


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _REPLY_BYTES_MAX:
            raise aiohttp.ClientPayloadError("answer is too long")
    return bytes(body)


def _taken(answer: Answer, piece: Piece) -> Taken | Later:
    try:
        receipt = msgspec.json.decode(answer.body, type=wire.Receipt)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Later(kind="unclear", reason="status 200 without a receipt")
    told = receipt.accepted + receipt.rejected + receipt.blank + receipt.duplicates
    numbers = [one.line for one in receipt.rejections]
    ascending = all(a < b for a, b in zip([0, *numbers], [*numbers, piece.lines + 1], strict=True))
    if told != piece.lines or not ascending or (receipt.next or 0) < piece.next.sequence:
        return Later(kind="unclear", reason="the receipt is not for what was sent")
    return Taken(
        rejected=tuple(Rejected(line=one.line, reason=one.reason) for one in receipt.rejections),
        blank=None if receipt.duplicates else receipt.blank,
    )


def _gap(answer: Answer, piece: Piece) -> Gap | Later:
    text = answer.headers.get(wire.PRODUCER_EXPECTED_SEQ, "")
    if text.isascii() and text.isdigit() and len(text) < 20 and int(text) < piece.first.sequence:
        return Gap(expected=int(text))
    # Its predecessor was refused or is late; by the next try that is settled.
    return Later(kind="gap", reason=f"status 409, expected sequence {text[:20]!r}")


def _is_ours(answer: Answer) -> bool:
    """Say whether the server itself refused, and not something in between."""
    return answer.headers.get("Content-Type", "").startswith(wire.PROBLEM_TYPE)


def _later(answer: Answer) -> Later:
    kind = f"status {answer.status}"
    wait_s = UNAUTHORIZED_WAIT_S if answer.status == 401 else _retry_after_s(answer)
    return Later(kind=kind, reason=f"{kind}: {_detail(answer)}", at_least_s=wait_s)


def _retry_after_s(answer: Answer) -> float:
    text = answer.headers.get("Retry-After", "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        return 0.0
    return min(float(text), RETRY_AFTER_S_MAX)


def _detail(answer: Answer) -> str:
    try:
        return msgspec.json.decode(answer.body, type=wire.Problem).detail
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = answer.body[:200].decode(errors="replace")
        return " ".join(text.split()) or "no reason given"
