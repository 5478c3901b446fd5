"""How HTTP itself is served, below the routes."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from aiohttp import web

from etl.runtime.errors import EtlError
from etl.runtime.settings import Settings
from etl.web.connection import Server

# What the process itself has open, with room to spare.
FILES_RESERVED = 64


class Runner(web.AppRunner):
    """Serves an application over connections of our own kind."""

    def __init__(self, app: web.Application, settings: Settings, **options: Any) -> None:
        super().__init__(app, **options)
        self._settings = settings

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return Server(
            made.request_handler,
            request_factory=made.request_factory,
            loop=asyncio.get_running_loop(),
            settings=self._settings,
            **self._kwargs,
        )


def make_runner(app: web.Application, settings: Settings, *, drain_s: float) -> web.AppRunner:
    """Return what serves the routes.

    Bodies are never decompressed: a request that says its body is compressed is refused by name.

    Raises:
        EtlError: this process may not open so many connections.
    """
    _make_room_for_files(settings.connections_max + FILES_RESERVED)
    return Runner(
        app,
        settings,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=drain_s,
        auto_decompress=False,
    )


def _make_room_for_files(wanted: int) -> None:
    """Raise the limit of open files: were it met, no partition could be begun."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise EtlError(
            f"this process may open {hard} files, and needs {wanted}",
            hint="lower ETL_CONNECTIONS_MAX, or raise the limit (ulimit -n)",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
