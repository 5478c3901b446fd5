"""Connections to the database, for whoever needs one.

Every connection is checked before it is handed out: a commit that PostgreSQL confirms must
survive a power cut, so `fsync` has to be on, and `synchronous_commit` is switched on for the
session if the server has it off. The encoding has to be UTF-8, or there would be user ids that no
table takes, not even that of the deferred.

A connection is for one task; after any fault it is closed, never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING

import asyncpg

from etl.runtime.settings import Settings
from etl.sink import statements
from etl.sink.faults import DatabaseUnavailable, database_faults

if TYPE_CHECKING:
    from etl.sink.embedded import EmbeddedPostgres

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 0.5
# Longer than the largest transaction takes on a slow machine; then the server counts as gone.
COMMAND_TIMEOUT_S = 60.0
# A row that is locked longer than this is its user's affair.
LOCK_TIMEOUT_MS = 200
# A process that is frozen inside a transaction gives up its locks after this.
IDLE_IN_TRANSACTION_TIMEOUT_MS = 5_000
# A peer that is gone without a word is noticed by either side after about half a minute.
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 10, 5, 4
USER_TIMEOUT_MS = 30_000

_SERVER_SETTINGS = {
    "lock_timeout": str(LOCK_TIMEOUT_MS),
    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
    "statement_timeout": "0",  # the command timeout is the bound; the server's may be too short
    "tcp_keepalives_idle": str(KEEPALIVE_IDLE_S),
    "tcp_keepalives_interval": str(KEEPALIVE_INTERVAL_S),
    "tcp_keepalives_count": str(KEEPALIVE_COUNT),
    "tcp_user_timeout": str(USER_TIMEOUT_MS),
}


class Connector:
    """Knows where the database is, and starts the embedded one where none is named."""

    def __init__(self, settings: Settings, *, role: str) -> None:
        self._url = settings.database_url
        self._directory = settings.data_path / "postgres"
        self._role = role
        self._embedded: EmbeddedPostgres | None = None

    async def dsn(self) -> str:
        """Return the address; start the embedded server if it is the one and does not run."""
        if self._url is not None:
            return self._url
        if self._embedded is None:
            # Not every process needs the embedded server, and only Linux has it.
            from etl.sink.embedded import EmbeddedPostgres

            self._embedded = EmbeddedPostgres(self._directory)
        return await self._embedded.ensure_running()

    async def connect(self, *, command_timeout_s: float = COMMAND_TIMEOUT_S) -> asyncpg.Connection:
        """Return a new connection, checked.

        Raises:
            DatabaseUnavailable: there is none to be had, or it would not be safe to use.
        """
        with database_faults():
            dsn = await self.dsn()
            connection = await self._open(dsn, command_timeout_s)
            try:
                _keep_alive(connection)
                await _check_server(connection)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def _open(self, dsn: str, command_timeout_s: float) -> asyncpg.Connection:
        try:
            return await asyncpg.connect(
                dsn,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=command_timeout_s,
                server_settings={"application_name": f"etl {self._role}", **_SERVER_SETTINGS},
            )
        except (ValueError, LookupError) as error:
            raise DatabaseUnavailable(
                "database address is not one that the driver understands", hint="check DATABASE_URL"
            ) from error

    def close(self) -> None:
        """Let the embedded server go; it stops when nobody needs it."""
        if self._embedded is not None:
            self._embedded.release()
            self._embedded = None


async def close(connection: asyncpg.Connection) -> None:
    """Close a connection, politely if it lets us, but soon."""
    try:
        with contextlib.suppress(DatabaseUnavailable), database_faults():
            await connection.close(timeout=CLOSE_TIMEOUT_S)
    finally:
        connection.terminate()


async def _check_server(connection: asyncpg.Connection) -> None:
    row = await connection.fetchrow(statements.SERVER)
    if row["fsync"] != "on":
        raise DatabaseUnavailable(
            f"database has fsync {row['fsync']}, so what it confirms may be lost",
            hint="set fsync = on in postgresql.conf and reload it",
        )
    if row["encoding"] != "UTF8":
        raise DatabaseUnavailable(
            f"database has encoding {row['encoding']}, which can't hold every user id",
            hint="create it with ENCODING 'UTF8' and TEMPLATE template0",
        )
    if row["synchronous_commit"] == "off":
        logger.warning("database has synchronous_commit off; switched on for this connection")
        await connection.execute(statements.SYNCHRONOUS_COMMIT_ON)


def _keep_alive(connection: asyncpg.Connection) -> None:
    """Ask the kernel to notice a silent peer; asyncpg has no option for it."""
    transport: asyncio.Transport = connection._transport  # noqa: SLF001  no public way to the socket
    endpoint = transport.get_extra_info("socket")
    if endpoint is None or endpoint.family == socket.AF_UNIX:
        return
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
    endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
