"""What is written is private, and no secret is told, whatever goes wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from support.database import prepared
from support.pipeline import ROLES, Role, pipeline

pytestmark = pytest.mark.asyncio

TOKEN, PASSWORD = "t0ken-of-nobody", "hunter2"
EVENT = b'{"userId":"u","name":"add_revenue","value":1}\n'


async def test_all_that_a_pipeline_writes_is_its_owners_alone(
    tmp_path: Path, database_url: str
) -> None:
    before = os.umask(0)  # the most careless one
    try:
        async with prepared(database_url) as database, pipeline(tmp_path, database_url) as run:
            run.write_source(EVENT + b"nonsense\n")
            await run.start(*ROLES)
            await database.until_applied(1)
            await run.roles["client"].said("is finished")
            assert await run.stop(*ROLES) == dict.fromkeys(ROLES, 0)
            found = {path.name: path.lstat().st_mode for path in run.data.rglob("*")}
            found["."] = run.data.stat().st_mode
    finally:
        os.umask(before)
    assert {"dead_letters.jsonl", "log_id", "client_progress.json"} <= set(found)
    assert [name for name in found if name.startswith("server_events_")] != []
    wide = {
        name: oct(mode)
        for name, mode in found.items()
        if stat.S_IMODE(mode) != (0o700 if stat.S_ISDIR(mode) else 0o600)
    }
    assert wide == {}


@pytest.mark.parametrize("role", ROLES)
async def test_no_process_starts_in_a_directory_that_others_can_write(
    tmp_path: Path, role: str
) -> None:
    async with pipeline(tmp_path, "postgresql://nobody@127.0.0.1:1/none") as run:
        run.data.mkdir()
        run.data.chmod(0o777)
        process = await run.launch(role)
        assert await process.ended() == 1
        assert "can be written by others, mode 0777" in process.log[-1]
        assert "chmod 700 data" in process.log[-1]
        assert list(run.data.iterdir()) == []


def arguments(pid: int) -> str:
    """What a list of processes shows to everybody."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


async def told_nothing(process: Role) -> None:
    """End a process, which named neither secret: not in its log, and not among its arguments."""
    command = arguments(process.process.pid)
    await process.end(signal.SIGTERM)
    said = "\n".join([command, *process.log])
    assert TOKEN not in said
    assert PASSWORD not in said
    assert "Traceback" not in said


def refusing_port() -> int:
    with socket.socket() as endpoint:
        endpoint.bind(("127.0.0.1", 0))
        port: int = endpoint.getsockname()[1]
    return port


ADDRESSES = [
    f"postgresql://etl:{PASSWORD}@127.0.0.1:{{port}}/etl",
    f"postgresql://etl:{PASSWORD}@no-such-host.invalid/etl",
    f"postgresql://etl@127.0.0.1:{{port}}/etl?password={PASSWORD}",
    f"postgresql://etl:{PASSWORD}@127.0.0.1:{{port}}/etl?sslmode={PASSWORD}",
    f"postgresql://etl:{PASSWORD}@127.0.0.1:{{port}}/etl?sslmode=verify-full&sslcert={PASSWORD}",
    f"postgresql://etl:{PASSWORD}@/etl?host=/{PASSWORD}",
    f"postgresql://etl:{PASSWORD}@127.0.0.1:1,127.0.0.1:x/etl",
    f"postgresql://etl:{PASSWORD}%zz@[::1]:1/etl",
]


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("address", ADDRESSES)
async def test_unreachable_database_tells_no_password(
    tmp_path: Path, address: str, level: str
) -> None:
    url = address.format(port=refusing_port())
    env = {"ETL_TOKEN": TOKEN, "ETL_LOG_LEVEL": level}
    async with pipeline(tmp_path, url, **env) as run:
        for name in ("server", "processor"):
            process = await run.launch(name)
            await process.said("database", "not an address", "unusable")
            await told_nothing(process)


async def test_refused_password_is_not_told(tmp_path: Path) -> None:
    """A server that asks for the password, and refuses it, quoting what it got."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4))
        start = await reader.readexactly(length - 4)
        if start == b"\x04\xd2\x16\x2f":  # asks for TLS
            writer.write(b"N")
            length = int.from_bytes(await reader.readexactly(4))
            await reader.readexactly(length - 4)
        writer.write(b"R\0\0\0\x08\0\0\0\x03")
        await reader.readexactly(1)
        length = int.from_bytes(await reader.readexactly(4))
        await reader.readexactly(length - 4)
        fault = b'SFATAL\0C28P01\0Mpassword authentication failed for user "etl"\0\0'
        writer.write(b"E" + (len(fault) + 4).to_bytes(4) + fault)
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as postgres:
        port = postgres.sockets[0].getsockname()[1]
        url = f"postgresql://etl:{PASSWORD}@127.0.0.1:{port}/etl"
        async with pipeline(tmp_path, url, ETL_TOKEN=TOKEN, ETL_LOG_LEVEL="debug") as run:
            for name in ("server", "processor"):
                process = await run.launch(name)
                await process.said("password authentication failed")
                await told_nothing(process)


async def test_refused_token_is_not_told(tmp_path: Path, database_url: str) -> None:
    async with pipeline(tmp_path, database_url, ETL_LOG_LEVEL="debug") as run:
        run.write_source(EVENT)
        await run.start("server")
        client = await run.launch("client", ETL_TOKEN=TOKEN)
        await client.said("401")
        await told_nothing(client)
        await told_nothing(run.roles["server"])


async def test_token_sent_in_a_request_that_is_none_is_not_told(
    tmp_path: Path, database_url: str
) -> None:
    env = {"ETL_TOKEN": TOKEN, "ETL_LOG_LEVEL": "debug"}
    async with pipeline(tmp_path, database_url, **env) as run:
        await run.start("server")
        for broken in (
            f"GET /livez HTTP/1.1\r\nHost: x\r\nAuthorization: {TOKEN}\x01\r\n\r\n",
            f"GET /livez HTTP/1.1\r\nHost: x\r\nAuthorization: {TOKEN}\0\r\n\r\n",
            f"Authorization: {TOKEN}\r\n\r\n",
            f"GET /{TOKEN}\xff HTTP/1.1\r\nHost: x\r\n\r\n",
            f"GET http://:{TOKEN}@/ HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", run.port)
            writer.write(broken.encode("latin-1"))
            answer = await reader.read()
            assert answer.split()[1] == b"400"
            assert TOKEN.encode() not in answer
            writer.close()
        await told_nothing(run.roles["server"])
