"""Reading revenue, for the server: it answers or says that the database is away, within 2 s.

Invariants:

* What it returns is the true total of one snapshot: applied and deferred together.
* It never waits for a database that is away; a task in the background brings it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from decimal import Decimal

import asyncpg

from etl.runtime.backoff import Backoff
from etl.runtime.errors import EtlError
from etl.runtime.settings import Settings
from etl.sink import statements
from etl.sink.connection import Connector, close
from etl.sink.faults import DatabaseUnavailable, database_faults

logger = logging.getLogger(__name__)

# Reads are short; more connections than this would only take memory from PostgreSQL.
CONNECTIONS_MAX = 4
# For everything: the turn, the answer.
ANSWER_TIMEOUT_S = 1.5
# While the embedded server is made for the first time nobody should poll it much slower.
RECONNECT_MAX_S = 1.0


class RevenueReader:
    """A few connections, shared by all requests."""

    def __init__(self, settings: Settings) -> None:
        self._connector = Connector(settings, role="server")
        self._idle: asyncio.LifoQueue[asyncpg.Connection] = asyncio.LifoQueue()
        self._wanted = asyncio.Semaphore(0)
        self._open = 0
        self._complaint: str | None = "not connected yet"
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to connect; does not wait for it."""
        for _ in range(CONNECTIONS_MAX):
            self._wanted.release()
        self._task = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        """Close all connections."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        while not self._idle.empty():
            await close(self._idle.get_nowait())
        self._connector.close()

    async def revenue(self, user_id: str) -> Decimal | None:
        """Return the total of a user, or None for an unknown one.

        Raises:
            DatabaseUnavailable: it can't be read now.
        """
        if not _can_be_stored(user_id):
            return None
        return await self._ask(statements.REVENUE, user_id)

    async def ping(self) -> bool:
        """Say whether the database answers."""
        try:
            await self._ask(statements.PING)
        except DatabaseUnavailable:
            return False
        return True

    async def _ask(self, statement: str, *arguments: object) -> Decimal | None:
        with database_faults():
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                connection = await self._take()
                try:
                    answer: Decimal | None = await connection.fetchval(statement, *arguments)
                except asyncpg.PostgresError:
                    self._give_back(connection)  # it said no; it can be asked something else
                    raise
                except BaseException:
                    self._drop(connection)
                    raise
        self._give_back(connection)
        return answer

    async def _take(self) -> asyncpg.Connection:
        """Return a connection that is alive, as far as anyone knows."""
        while self._open:
            connection = await self._idle.get()
            if not connection.is_closed():
                return connection
            self._drop(connection)
        raise DatabaseUnavailable(f"database is away: {self._complaint or 'connection lost'}")

    def _give_back(self, connection: asyncpg.Connection) -> None:
        if connection.is_closed():
            self._drop(connection)
        else:
            self._idle.put_nowait(connection)

    def _drop(self, connection: asyncpg.Connection) -> None:
        """Close a connection after whatever fault, and have another one made."""
        connection.terminate()
        self._open -= 1
        self._wanted.release()

    async def _keep_connected(self) -> None:
        backoff = Backoff(cap_s=RECONNECT_MAX_S)
        while True:
            await self._wanted.acquire()
            if await self._connect():
                backoff.reset()
            else:
                self._wanted.release()
                await asyncio.sleep(backoff.next_s())

    async def _connect(self) -> bool:
        try:
            connection = await self._connector.connect(command_timeout_s=ANSWER_TIMEOUT_S)
        except EtlError as error:
            if str(error) != self._complaint:
                logger.warning("%s", error)
            self._complaint = str(error)
            return False
        if self._complaint is not None:
            logger.info("database answers")
        self._complaint = None
        self._open += 1
        self._idle.put_nowait(connection)
        return True


def _can_be_stored(user_id: str) -> bool:
    """Say whether PostgreSQL can hold such a text at all; no user has another one."""
    try:
        return b"\0" not in user_id.encode()
    except UnicodeEncodeError:
        return False
