"""Connecting: only to a database that keeps what it confirms."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit, urlunsplit

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
    answer = "SELECT 'off' AS fsync, 'on' AS synchronous_commit, 'UTF8' AS encoding"
    connector = Connector(settings(tmp_path, database_url), role="test")
    with (
        patch.object(statements, "SERVER", answer),
        pytest.raises(DatabaseUnavailable, match="set fsync = on"),
    ):
        await connector.connect()


async def test_database_that_can_not_hold_every_id_is_refused_with_a_remedy(
    postgres_url: str, database_url: str, tmp_path: Path
) -> None:
    latin = f"{urlsplit(database_url).path[1:]}_latin"
    async with connected(postgres_url) as other:
        await other.execute(
            f"CREATE DATABASE {latin} TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'"
        )
    url = urlunsplit(urlsplit(database_url)._replace(path=f"/{latin}"))
    with pytest.raises(DatabaseUnavailable, match="ENCODING 'UTF8'"):
        await Connector(settings(tmp_path, url), role="test").connect()
    async with connected(postgres_url) as other:
        await other.execute(f"DROP DATABASE {latin} WITH (FORCE)")


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
