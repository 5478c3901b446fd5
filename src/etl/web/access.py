"""Who may ask what, and by which name.

* The token is compared as bytes and in constant time.
* On loopback a request must name the server by a name of loopback, so that no web page reaches it
  by a name of its own that was made to point here. A browser sends no `POST` of a type that is
  taken here, and no token, before an `OPTIONS` has allowed it, which none ever does.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hmac
import ipaddress
import re

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from etl.runtime.settings import Settings
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


_AUTHORITY = re.compile(r"(\[[^]]*\]|[^:@/?#\[\]]*?)\.?(?::[0-9]*)?")


def host_of(authority: str) -> str:
    """Return the name in a `Host`, without its port, in small letters; all of what is none."""
    found = _AUTHORITY.fullmatch(authority)
    return (found[1] if found else authority).lower()


def is_loopback(host: str) -> bool:
    """Say whether a name in a `Host` always means this machine."""
    if host in {"localhost", "[::1]"}:
        return True
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def _authorities(request: web.Request) -> list[str]:
    """Return what a request calls the server: its `Host`, and the host of a whole address."""
    named = [request.headers.get(hdrs.HOST)]
    if not request.raw_path.startswith(("/", "*")):
        named.append(request.url.raw_authority)
    return [name for name in named if name]


def guard(settings: Settings) -> Middleware:
    """Return the middleware that refuses who has no token, or calls the server by a foreign name.

    On loopback a GET needs no token; elsewhere everything but the probes does.
    """
    on_loopback, allowed = settings.on_loopback, settings.hosts

    @functools.lru_cache(maxsize=64)  # nearly all requests name the same one
    def is_ours(authority: str) -> bool:
        host = host_of(authority)
        return host in allowed or (is_loopback(host) if on_loopback else not allowed)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        for authority in _authorities(request):
            if not is_ours(authority):
                raise RequestError(421, f"{host_of(authority)} is not a name of this server")
        is_open = request.path in OPEN_PATHS or (on_loopback and request.method != "POST")
        if not is_open and not has_token(request, settings.token):
            sent = "is wrong" if hdrs.AUTHORIZATION in request.headers else "is missing"
            raise RequestError(401, f"the token in Authorization {sent}", _CHALLENGE)
        return await handler(request)

    return check
