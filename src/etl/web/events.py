"""`POST /liveEvent`: from the bytes of a request to events in the log and an answer.

Invariants:

* Any 4xx or 503 means that nothing was appended.
* An answer that says accepted or duplicate is given after the sync of what it speaks of.
* What has arrived of all bodies that are not answered yet has a bound, whatever was announced.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from etl.core.event import EventError
from etl.core.lines import Judged, count_lines, drop_lines, one_line
from etl.core.wire import (
    ACCEPT_POST,
    JSON_TYPE,
    NDJSON_TYPE,
    NUMBER_MAX,
    PRODUCER_EXPECTED_SEQ,
    PRODUCER_HEADERS,
    Producer,
    ProducerError,
    Receipt,
    parse_producer,
)
from etl.log.files import WriteFailedError
from etl.log.header import Batch, Identity
from etl.log.producers import Admitted, Crowded, Fenced, Gap, Producers
from etl.log.writer import LogWriter, QueueFullError
from etl.runtime.settings import Settings
from etl.web.judging import Bench
from etl.web.replies import RequestError, receipt, received, unavailable


class LiveEvents:
    """Takes events in."""

    def __init__(self, writer: LogWriter, producers: Producers, settings: Settings) -> None:
        self._writer = writer
        self._producers = producers
        self._settings = settings
        self._bench = Bench()
        self._bodies_bytes = 0
        self.stopping = False

    async def options(self, request: web.Request) -> web.Response:
        """Say which forms of a request are understood."""
        headers = {"Accept-Post": ACCEPT_POST, hdrs.ALLOW: "OPTIONS, POST"}
        return web.Response(status=204, headers=headers)

    async def post(self, request: web.Request) -> web.Response:
        """Take one event or many."""
        if self.stopping:
            raise unavailable("the server is stopping")
        producer = _producer(request)
        media_type = _media_type(request)
        if media_type == JSON_TYPE and producer is not None:
            raise RequestError(400, f"Producer headers need {NDJSON_TYPE}: send one line of it")
        body = await self._body(request)
        try:
            if media_type == JSON_TYPE:
                return await self._one(body)
            return await self._many(body, producer)
        except (QueueFullError, WriteFailedError) as error:
            raise unavailable(str(error)) from None
        finally:
            self._bodies_bytes -= len(body)

    async def _one(self, body: bytes) -> web.Response:
        try:
            line = one_line(body)
        except EventError as error:
            raise RequestError(400, str(error)) from None
        await self._writer.append(Batch(data=line, events=1))
        return received()

    async def _many(self, body: bytes, producer: Producer | None) -> web.Response:
        lines = count_lines(body)
        if lines > (limit := self._settings.body_lines_max):
            raise RequestError(413, f"the request has {lines} lines, the limit is {limit}")
        judged = await self._bench.judge(body)
        if producer is None:
            await self._writer.append(Batch(data=judged.stored, events=judged.events))
            return receipt(_receipt(judged, judged, known=0, upto=None))
        if producer.first + lines > NUMBER_MAX:
            raise RequestError(400, f"the sequence goes beyond {NUMBER_MAX}")
        fresh, dropped = judged, 0
        while True:
            match await self._producers.judge_in_turn(producer, lines):
                case Gap(expected=expected):
                    headers = {PRODUCER_EXPECTED_SEQ: str(expected)}
                    detail = f"lines are missing: sequence {expected} is next"
                    raise RequestError(409, detail, headers)
                case Fenced(epoch=epoch):
                    raise RequestError(403, f"epoch {epoch} of this producer has begun")
                case Crowded(limit=limit):
                    raise unavailable(f"there are {limit} producers, and no more are taken")
                case Admitted(known=known) if known != dropped:
                    # Then it has to be decided again: meanwhile more may have become known.
                    fresh, dropped = await self._bench.judge(drop_lines(body, known)), known
                case Admitted(next=upto):
                    # No await between that decision and `append`, which counts the lines as taken.
                    identity = Identity(
                        producer=producer.producer,
                        epoch=producer.epoch,
                        sequence=producer.first + dropped,
                        next=upto,
                    )
                    batch = Batch(data=fresh.stored, events=fresh.events, identity=identity)
                    await self._writer.append(batch)
                    return receipt(_receipt(judged, fresh, known=dropped, upto=upto))

    async def _body(self, request: web.Request) -> bytes:
        """Read the whole body, or refuse it; who asked gives its room back."""
        limit, before = self._settings.body_bytes_max, self._bodies_bytes
        if (length := request.content_length or 0) > limit:
            raise RequestError(413, f"the body is {length} bytes, the limit is {limit}")
        self._check_room(before + length)
        if request.content.is_eof() and length:  # it came with its head: nothing to wait for
            whole = request.content.read_nowait()
            self._bodies_bytes += len(whole)
            return whole
        body = bytearray()
        try:
            async with _arriving(self._settings.body_timeout_s):
                while chunk := await request.content.readany():
                    body += chunk
                    self._bodies_bytes += len(chunk)
                    _check_size(len(body), limit)
                    self._check_room(self._bodies_bytes)
        except BaseException:
            self._bodies_bytes -= len(body)
            raise
        return bytes(body)

    def _check_room(self, size: int) -> None:
        if size > (limit := self._settings.bodies_bytes_max):
            raise unavailable(f"bodies of {size} bytes at once, the limit is {limit}")


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RequestError(413, f"the body is over {limit} bytes, the limit")


@contextlib.asynccontextmanager
async def _arriving(timeout_s: float) -> AsyncIterator[None]:
    """Refuse a body that does not come; who went away in the middle reads no answer."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {timeout_s:g} s") from None
    except (ConnectionError, RuntimeError, web.RequestPayloadError, HttpProcessingError) as error:
        # A RuntimeError is what a connection raises that had ended before it was read from.
        raise RequestError(400, f"the body is not whole: {error}") from None


def _media_type(request: web.Request) -> str:
    if hdrs.CONTENT_ENCODING in request.headers:
        raise RequestError(415, "Content-Encoding is not supported, send the body as it is")
    types = request.headers.getall(hdrs.CONTENT_TYPE, [])
    media_type = request.content_type
    if len(types) != 1 or media_type not in {JSON_TYPE, NDJSON_TYPE}:
        raise RequestError(
            415,
            f"Content-Type should be {JSON_TYPE} or {NDJSON_TYPE}",
            {"Accept-Post": ACCEPT_POST},
        )
    if (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise RequestError(415, f"the charset should be utf-8, not {request.charset}")
    return media_type


def _producer(request: web.Request) -> Producer | None:
    try:
        return parse_producer({name: request.headers.getall(name, []) for name in PRODUCER_HEADERS})
    except ProducerError as error:
        raise RequestError(400, str(error)) from None


def _receipt(judged: Judged, fresh: Judged, *, known: int, upto: int | None) -> Receipt:
    return Receipt(
        accepted=fresh.events,
        rejected=len(fresh.rejections),
        blank=fresh.blank,
        duplicates=known,
        next=upto,
        rejections=judged.rejections,
    )
