"""The embedded PostgreSQL, started, watched and killed."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from etl.sink.embedded import EmbeddedPostgres
from support.postgres import execute, quick_directory, wait_until_stopped

USER = """
import asyncio, sys
from pathlib import Path
from etl.sink.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print(asyncio.run(server.ensure_running()), flush=True)
sys.stdin.read()
"""


class User:
    """A process of its own that uses the server in a directory until it is killed."""

    def __init__(self, directory: Path, *, command: list[str] | None = None, **env: str) -> None:
        self.process = subprocess.Popen(
            [*(command or [sys.executable]), "-c", USER, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )

    def dsn(self) -> str:
        """The address, as soon as the server answers."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        with self.process:
            self.process.kill()


@pytest.fixture(scope="session")
def pg_pristine() -> Iterator[Path]:
    """A server's directory, initialised and stopped, to copy from."""
    with quick_directory() as temporary:
        path = temporary / "postgres"
        server = EmbeddedPostgres(path)
        execute(
            run(server),
            "CREATE TABLE kept (value int)",
            "INSERT INTO kept VALUES (42)",
            "CHECKPOINT",
        )
        server.release()
        wait_until_stopped(path)
        yield path


@pytest.fixture
def pg_empty() -> Iterator[Path]:
    """A directory for a server, with a short path; afterwards nothing of the server runs."""
    with quick_directory() as temporary:
        path = temporary / "postgres"
        yield path
        if path.exists():
            wait_until_stopped(path)
        assert processes_of(path) == []


@pytest.fixture
def pg_directory(pg_pristine: Path, pg_empty: Path) -> Path:
    """The directory of a server that has run before, and holds the table `kept`."""
    shutil.copytree(pg_pristine, pg_empty)
    return pg_empty


@pytest.fixture
def pg_server(pg_directory: Path) -> Iterator[EmbeddedPostgres]:
    """One user of the server in `pg_directory`."""
    user = EmbeddedPostgres(pg_directory)
    yield user
    user.release()


def run(server: EmbeddedPostgres) -> str:
    return asyncio.run(server.ensure_running())


def fetch(dsn: str, query: str) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(ask())


def processes_of(directory: Path, name: str = "") -> list[int]:
    """All processes that name the directory or stand in it: keeper, postmaster, backends."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
                stands = (entry / "cwd").readlink().is_relative_to(directory)
            except OSError:
                continue
            if (stands or os.fsencode(directory) in command) and name.encode() in command:
                found.append(int(entry.name))
    return found


def keepers_of(directory: Path) -> list[int]:
    return processes_of(directory, "etl.sink.keeper")


def postmaster_of(directory: Path) -> int:
    return int((directory / "cluster/postmaster.pid").read_text().split()[0])


def kill(pid: int) -> None:
    """Kill a process that is not our child, and wait until it is gone."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pidfd)


def wait_for_end(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(30_000)
    os.close(pidfd)


def wait_for(condition: Callable[[], object]) -> None:
    """Watch for a moment that no file descriptor tells of."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()
