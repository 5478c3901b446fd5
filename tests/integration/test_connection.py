"""Connecting: only to a database that keeps what it confirms."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import patch

import pytest

from etl.sink import statements
from etl.sink.connection import Connector, close
from etl.sink.faults import DatabaseUnavailable
from support.database import connected
from support.processing import settings
from support.proxy import proxied

pytestmark = pytest.mark.asyncio


async def test_database_without_fsync_is_refused_with_a_remedy(
    database_url: str, tmp_path: Path
) -> None:
    # The session's server serves the other tests too, so only its answer is another one.
    answer = "SELECT 'off' AS fsync, 'on' AS synchronous_commit"
    connector = Connector(settings(tmp_path, database_url), role="test")
    with (
        patch.object(statements, "DURABILITY", answer),
        pytest.raises(DatabaseUnavailable, match="set fsync = on"),
    ):
        await connector.connect()


async def test_synchronous_commit_is_switched_on(database_url: str, tmp_path: Path) -> None:
    async with connected(database_url) as other:
        name = await other.fetchval("SELECT current_database()")
        await other.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    connection = await Connector(settings(tmp_path, database_url), role="test").connect()
    assert await connection.fetchval("SHOW synchronous_commit") == "on"
    await close(connection)


async def test_stricter_synchronous_commit_is_left_alone(database_url: str, tmp_path: Path) -> None:
    async with connected(database_url) as other:
        name = await other.fetchval("SELECT current_database()")
        await other.execute(f"ALTER DATABASE {name} SET synchronous_commit = remote_apply")
    connection = await Connector(settings(tmp_path, database_url), role="test").connect()
    assert await connection.fetchval("SHOW synchronous_commit") == "remote_apply"
    await close(connection)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://nobody@127.0.0.1:1/x", "not reachable"),
        ("postgresql://nobody@/x?host={directory}", "not reachable"),
        ("postgresql://nobody@127.0.0.1:port/x", "database"),
    ],
)
async def test_address_without_a_database_is_one_kind_of_error(
    tmp_path: Path, url: str, said: str
) -> None:
    connector = Connector(settings(tmp_path, url.format(directory=tmp_path)), role="test")
    with pytest.raises(DatabaseUnavailable, match=said):
        await connector.connect()


async def test_missing_database_and_unknown_user_come_with_a_hint(
    database_url: str, tmp_path: Path
) -> None:
    missing = database_url.replace("/test_", "/missing_")
    with pytest.raises(DatabaseUnavailable, match="create it, or check DATABASE_URL"):
        await Connector(settings(tmp_path, missing), role="test").connect()


async def test_connection_through_tcp_is_kept_alive(database_url: str, tmp_path: Path) -> None:
    async with proxied(database_url) as proxy:
        connection = await Connector(settings(tmp_path, proxy.url), role="test").connect()
        assert await connection.fetchval("SHOW lock_timeout") == "200ms"
        proxy.silent = True
        async with asyncio.timeout(2):
            await close(connection)
    assert connection.is_closed()
