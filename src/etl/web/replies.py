"""What is answered, as `core/wire.py` says it: receipts, problems, revenue."""

from __future__ import annotations

import logging
from decimal import Decimal

import msgspec
import orjson
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from etl.core.revenue import format_revenue
from etl.core.wire import JSON_TYPE, PROBLEM_TYPE, Problem, Receipt

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1
_RECEIVED = orjson.dumps({"message": "Event received"})
_encode = msgspec.json.Encoder().encode

_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class RequestError(Exception):
    """A request is refused, and nothing of it was appended; the detail names the fault."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def unavailable(detail: str) -> RequestError:
    """Return a refusal that asks the sender to come again."""
    return RequestError(503, detail, {hdrs.RETRY_AFTER: str(RETRY_AFTER_S)})


def received() -> web.Response:
    """Answer a single event, in the original's words."""
    return web.Response(status=201, body=_RECEIVED, content_type=JSON_TYPE)


def receipt(answer: Receipt) -> web.Response:
    """Answer many events."""
    return web.Response(body=_encode(answer), content_type=JSON_TYPE)


def revenue(user_id: str, total: Decimal | None) -> web.Response:
    """Answer what a user's revenue is: exact, as a JSON number; an empty list for nobody."""
    body = b"[]"
    if total is not None:
        body = b'[{"user_id":%s,"revenue":%s}]' % (
            orjson.dumps(user_id),
            format_revenue(total).encode(),
        )
    return web.Response(body=body, content_type=JSON_TYPE)


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """Answer a fault; what the detail quotes of a header need not be Unicode."""
    shown = detail.encode("utf-8", "backslashreplace").decode()
    body = Problem(title=_TITLES.get(status, "Error"), status=status, detail=shown)
    return web.Response(
        status=status, body=_encode(body), content_type=PROBLEM_TYPE, headers=headers
    )


def raw_problem(status: int, detail: str) -> bytes:
    """Return a whole answer where there is no request to answer; it ends the connection."""
    body = _encode(Problem(title=_TITLES[status], status=status, detail=detail))
    lines = [
        f"HTTP/1.1 {status} {_TITLES[status]}",
        f"{hdrs.CONTENT_TYPE}: {PROBLEM_TYPE}",
        f"{hdrs.CONTENT_LENGTH}: {len(body)}",
        f"{hdrs.CONNECTION}: close",
        *([f"{hdrs.RETRY_AFTER}: {RETRY_AFTER_S}"] if status == 503 else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into a problem body."""
    try:
        return await handler(request)
    except RequestError as refusal:
        return problem(refusal.status, refusal.detail, refusal.headers)
    except web.HTTPRequestEntityTooLarge as error:
        return problem(413, f"the body is over the limit: {error.text or ''}".rstrip(": "))
    except web.HTTPException as error:
        kept = {k: v for k, v in error.headers.items() if k == hdrs.ALLOW}
        return problem(error.status, f"{request.method} {request.path}: {error.reason}", kept)
    except Exception:
        logger.exception("a request failed for a reason that nothing answered")
        return problem(500, "an error in the server; its log says which")
