"""One connection below the requests, and what it may cost.

Invariants:

* The server waits for a peer only so long: for the head of a request, for the next request, for a
  reply to be read. (For a body: `web/events.py`.)
* At most `connections_max` connections are open. Then the one that has kept the server waiting
  longest makes room for a new one; where all are at work, the new one is refused.
* What is refused before there is a request to route is answered as a problem too, and neither the
  answer nor the log repeats what was sent: it may hold a token.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, hdrs, web
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestPayloadError

from etl.runtime.settings import Settings
from etl.web.replies import problem, raw_problem

logger = logging.getLogger(__name__)

# How late a deadline may be noticed.
TICK_S = 0.25
# So long a peer that was refused may take to read why.
LINGER_S = 2.0
HEADERS_MAX = 100
# About half of what one peer may have sent ahead of its reading, and so the length of its turn.
READ_BYTES = 32 * 1024
# The library's own timer for idle connections knows nothing of the head of a request.
_NEVER_S = 10.0**9


class Server(web.Server):
    """Makes connections, counts them, and looks after them."""

    def __init__(self, *args: Any, settings: Settings, **options: Any) -> None:
        self.settings = settings
        super().__init__(
            *args,
            **options,
            max_line_size=settings.header_bytes_max,
            max_field_size=settings.header_bytes_max,
            max_headers=HEADERS_MAX,
            keepalive_timeout=_NEVER_S,
            lingering_time=LINGER_S,
            read_bufsize=READ_BYTES,
        )
        # In the order of their last word: a flood of connections must find the oldest cheaply.
        self.oldest_first: dict[Connection, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> web.RequestHandler:
        """Return what serves one more connection."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(  # type: ignore[override]  # it makes no others
        self, handler: Connection, transport: asyncio.Transport
    ) -> None:
        """Take a connection in, if there is room for it or room can be made."""
        full = len(self._connections) >= self.settings.connections_max
        super().connection_made(handler, transport)
        if full and not self._make_room(handler):
            limit = self.settings.connections_max
            handler.refuse(503, f"{limit} connections are open and at work, which is the limit")
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._tick)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """Forget a connection."""
        super().connection_lost(handler, exc)
        self.oldest_first.pop(cast("Connection", handler), None)

    def _make_room(self, newest: Connection) -> bool:
        for connection in self.oldest_first:
            if connection is not newest and connection.waits_for_peer:
                del self._connections[connection]
                del self.oldest_first[connection]
                connection.abort()
                return True
        return False

    def _tick(self) -> None:
        now = self._loop.time()
        for connection in list(self.oldest_first):
            connection.check(now)
        more = bool(self._connections)
        self._timer = self._loop.call_later(TICK_S, self._tick) if more else None


class Connection(web.RequestHandler):
    """One peer: its bytes in, its answers out."""

    __slots__ = (
        "_arriving",
        "_half_closed",
        "_head_bytes",
        "_oldest_first",
        "_refused",
        "_settings",
        "_since",
        "_wire",
    )

    def __init__(self, manager: Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._settings = manager.settings
        self._wire: asyncio.Transport | None = None
        self._since = self._loop.time()
        self._oldest_first = manager.oldest_first
        self._head_bytes = 0
        self._refused = False
        self._half_closed = False
        self._arriving: StreamReader | None = None  # the body that was begun last

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the head of a request."""
        self._wire = cast("asyncio.Transport", transport)
        self._oldest_first[self] = None
        self._begin_to_wait()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of a head are counted as long as it is not whole."""
        if self._refused:
            return
        if self._is_between() and data:
            if not self._head_bytes and self._request_count:
                self._begin_to_wait()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._messages:
            self._arriving = self._messages[-1][1]
        limit = self._settings.header_bytes_max
        if self._head_bytes > limit and self._is_between() and not self._refused:
            self.refuse(431, f"the head of the request is longer than {limit} bytes, the limit")

    def eof_received(self) -> bool | None:  # type: ignore[override]  # the transport asks for it
        """Go on for a peer that closed its half only, if what it asked is whole."""
        # The body of the request at work may be broken: then what came last is that fault.
        whole = self._arriving is not None and self._arriving.is_eof()
        if self._refused or self._is_between() or self._body_is_missing() or not whole:
            return None
        self._half_closed = True
        return True

    def pause_writing(self) -> None:
        """Begin to wait for the peer to read."""
        super().pause_writing()
        self._begin_to_wait()

    @property
    def waits_for_peer(self) -> bool:
        """Say whether nothing goes on but for the peer; else the server is at work."""
        return not self._request_in_progress or self._paused or self._body_is_missing()

    def check(self, now: float) -> None:
        """Give up a peer that is over its time."""
        waited, settings = now - self._since, self._settings
        if self._refused:
            late = waited > LINGER_S
        elif self._paused or self._wire is None or self._wire.is_closing():
            late = waited > settings.reply_timeout_s
        elif not self._is_between():
            late = False
        elif self._head_bytes or not self._request_count:
            late = False
            if waited > settings.header_timeout_s:
                limit = settings.header_timeout_s
                self.refuse(408, f"the head of a request did not arrive within {limit:g} s")
        else:
            late = waited > settings.idle_timeout_s
        if late:
            self.abort()

    def refuse(self, status: int, detail: str) -> None:
        """Answer out of turn, take nothing more, and let the peer read it: closing would cut it."""
        if self._wire is None or self._wire.is_closing():
            return
        self._refused = True
        self._begin_to_wait()
        self._wire.write(raw_problem(status, detail))
        self._wire.write_eof()

    def abort(self) -> None:
        """Close without a word, and without waiting for anything to be read."""
        if self._wire is not None:
            self._wire.abort()

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: Any
    ) -> tuple[web.StreamResponse, bool]:
        self._begin_to_wait()
        self._head_bytes = 0
        if refusal := self._refusal(request):

            async def request_handler(_: web.BaseRequest) -> web.StreamResponse:
                return refusal

        try:
            return await super()._handle_request(request, start_time, request_handler)
        finally:
            self._begin_to_wait()
            if self._half_closed and not self._messages:
                self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request, or what failed in a way that nothing answered."""
        del message  # it quotes what was sent
        # Before there is a handler, "100 Continue" is written: perhaps to nobody any more.
        if status == 500 and not isinstance(exc, ConnectionError):
            logger.error("a request failed for a reason that nothing answered", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        status, detail = self._told(status, exc)
        response = problem(status, detail)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Log what is wrong with us; a body that breaks off is its sender's affair."""
        if not isinstance(options.get("exc_info"), RequestPayloadError | HttpProcessingError):
            super().log_exception(*args, **options)

    def _told(self, status: int, exc: BaseException | None) -> tuple[int, str]:
        limit = self._settings.header_bytes_max
        if isinstance(exc, LineTooLong):
            return 431, f"a line of the head is longer than {limit} bytes, the limit"
        if not isinstance(exc, HttpProcessingError):
            return status, "an error in the server; its log says which"
        if exc.message.startswith("Too many headers"):
            return 431, f"the request has more than {HEADERS_MAX} headers, the limit"
        reason, quoted, _ = exc.message.partition(":\n")
        if type(exc) is not BadHttpMessage or (":" in reason and not quoted):
            reason = type(exc).__name__
        return status, f"the request is not HTTP: {reason}"

    def _refusal(self, request: web.BaseRequest) -> web.Response | None:
        """Refuse what the library would let pass, or answer in its own words."""
        limit = self._settings.header_bytes_max
        size = len(request.path_qs) + sum(
            len(name) + len(text) for name, text in request.raw_headers
        )
        if size > limit:
            response = problem(
                431, f"the head of the request is {size} bytes, the limit is {limit}"
            )
        elif request.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
            response = problem(417, "Expect should be 100-continue, or not be there")
        elif request.version not in {HttpVersion10, HttpVersion11}:
            response = problem(400, "the request should be HTTP/1.1")
        elif request.headers.get(hdrs.TRANSFER_ENCODING, "chunked").lower() != "chunked":
            # Also where it is empty: whoever stands in between may see another end of the body.
            response = problem(400, "Transfer-Encoding should be chunked, or not be there")
        else:
            return None
        response.force_close()
        return response

    def _begin_to_wait(self) -> None:
        self._since = self._loop.time()
        if self in self._oldest_first:  # not if it is lost, and only its request goes on
            del self._oldest_first[self]
            self._oldest_first[self] = None

    def _is_between(self) -> bool:
        """Say whether the next request is waited for, or has not wholly begun."""
        return self._waiter is not None and not self._waiter.done()

    def _body_is_missing(self) -> bool:
        request = self._current_request
        return request is not None and not request.content.is_eof()
