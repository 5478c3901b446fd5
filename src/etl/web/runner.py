"""How HTTP itself is served, below the routes."""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

logger = logging.getLogger(__name__)

KEEPALIVE_S = 75.0


class _OneLine(logging.Filter):
    """A request that is not HTTP is its sender's fault: one line at most, and no traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        fault = record.exc_info[1] if record.exc_info else None
        if not isinstance(fault, HttpProcessingError):
            return True
        logger.info("a request is not HTTP: %s", " ".join(fault.message.split()))
        return False


_faults = logging.getLogger(f"{__name__}.faults")
_faults.addFilter(_OneLine())


def make_runner(app: web.Application, *, drain_s: float) -> web.AppRunner:
    """Return what serves the routes.

    Bodies are never decompressed: a request that says its body is compressed is refused by name.
    """
    return web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=drain_s,
        keepalive_timeout=KEEPALIVE_S,
        auto_decompress=False,
        logger=_faults,
    )
