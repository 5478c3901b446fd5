"""Who may ask what: the token, compared as bytes and in constant time."""

from __future__ import annotations

import base64
import binascii
import hmac

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from etl.runtime.settings import LOOPBACK_HOSTS, Settings
from etl.web.replies import RequestError

OPEN_PATHS = frozenset({"/livez", "/readyz"})
_CHALLENGE: dict[str, str] = {hdrs.WWW_AUTHENTICATE: 'Bearer realm="etl", Basic realm="etl"'}


def _credentials(header: str) -> list[bytes]:
    """Return what in an `Authorization` header may be the token."""
    scheme, _, rest = header.partition(" ")
    match scheme.lower():
        case "bearer" if rest:
            return [_raw(rest.strip())]
        case "basic" if rest:
            try:
                return [base64.b64decode(rest.strip(), validate=True).partition(b":")[2]]
            except (binascii.Error, ValueError):
                return []
        case _:
            return [_raw(header.strip())]


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def has_token(request: web.Request, token: str) -> bool:
    """Say whether a request carries the token, as it is or after `Bearer` or in `Basic`."""
    headers = request.headers.getall(hdrs.AUTHORIZATION, [])
    if len(headers) != 1:
        return False
    expected = token.encode()
    return any(hmac.compare_digest(sent, expected) for sent in _credentials(headers[0]))


def guard(settings: Settings) -> Middleware:
    """Return the middleware that refuses who has no token.

    On loopback a GET needs none; elsewhere everything but the probes does.
    """
    on_loopback = settings.host in LOOPBACK_HOSTS

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_open = request.path in OPEN_PATHS or (on_loopback and request.method != "POST")
        if not is_open and not has_token(request, settings.token):
            sent = "is wrong" if hdrs.AUTHORIZATION in request.headers else "is missing"
            raise RequestError(401, f"the token in Authorization {sent}", _CHALLENGE)
        return await handler(request)

    return check
