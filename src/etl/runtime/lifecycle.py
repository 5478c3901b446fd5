"""The life of a process: settings, logging, run, exit code.

Exit codes: 0 a requested stop, 1 a failure, 2 a wrong setting.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import uvloop

from etl.runtime.errors import EtlError, SettingsError
from etl.runtime.settings import Settings, load

logger = logging.getLogger(__name__)

OK, FAILED, UNUSABLE = 0, 1, 2
_STOPS = frozenset({signal.SIGTERM, signal.SIGINT})

Run = Callable[[Settings, asyncio.Event], Awaitable[None]]


class _Text(logging.Formatter):
    """`time level role[pid] message key=value …`, in UTC."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = _fields(record)
        return " ".join([line, *(f"{k}={v}" for k, v in fields.items())])


class _Json(logging.Formatter):
    """The same facts, one JSON object a line."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}"
            f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "role": self._role,
            "pid": record.process,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return getattr(record, "fields", {})


def fields(**values: object) -> dict[str, object]:
    """Return the `extra=` of a log call: facts that both formats show after the message."""
    return {"fields": values}


def configure_logging(role: str, settings: Settings) -> None:
    """Send all log lines to standard error, each with role and pid."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(_Json(role))
    else:
        handler.setFormatter(_Text(f"%(asctime)s %(levelname)s {role}[%(process)d] %(message)s"))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def main(role: str, run: Run) -> int:
    """Run one process until SIGTERM or SIGINT sets its stop event, and return its exit code."""
    if not sys.platform.startswith("linux"):
        print(f"etl: {sys.platform} is not supported; Linux is", file=sys.stderr)  # noqa: T201  no logging yet
        return UNUSABLE
    try:
        settings = load()
    except SettingsError as error:
        print(f"etl: {error}", file=sys.stderr)  # noqa: T201  no logging before there are settings
        return UNUSABLE
    configure_logging(role, settings)
    # A stop that comes before the loop can hear it has to wait, not to end the process its own way.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    logger.info("starting", extra=fields(**settings.shown()))
    try:
        uvloop.run(_until_stopped(run, settings))
    except SettingsError as error:
        logger.error("%s", error)  # noqa: TRY400  the message says it all; a traceback says less
        return UNUSABLE
    except (EtlError, OSError) as error:
        logger.critical("%s", error)
        return FAILED
    except Exception:
        logger.critical("stopped by an error that nothing answered", exc_info=True)
        return FAILED
    logger.info("stopped")
    return OK


async def _until_stopped(run: Run, settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOPS:
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    try:
        await run(settings, stop)
    finally:
        # The loop takes its handlers with it; a signal after that must not change the exit code.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)


async def stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for the stop, at most so long; say whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True
