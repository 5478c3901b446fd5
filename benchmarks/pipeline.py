"""The three processes on a directory and a database of their own, as they run everywhere else.

Only the addresses are set; all else is default, so what is measured is what a user gets. They log
into files: a pipe would have to be read during the run.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.usage import cpu_s

PATIENCE_S = 60.0
LOOK_S = 0.02
# Idle: no tick of CPU time in so many looks in a row.
IDLE_LOOKS = 10
# What each says when its start is over.
READY = {"server": "database answers", "processor": " working ", "client": " starting "}


class BenchError(Exception):
    """A run could not be brought to its end; the message says what happened."""


class Pipeline:
    """Processes, their source and their data."""

    def __init__(self, directory: Path, dsn: str, env: Mapping[str, str]) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.port = _free_port()
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        kept = {name: text for name, text in os.environ.items() if not name.startswith("ETL_")}
        self._env = {
            **kept,
            "DATABASE_URL": dsn,
            "ETL_PORT": str(self.port),
            "ETL_SERVER_URL": f"http://127.0.0.1:{self.port}",
            **env,
        }

    @property
    def pids(self) -> dict[str, int]:
        """The processes by role."""
        return {name: process.pid for name, process in self._processes.items()}

    async def start(self, *roles: str) -> None:
        """Start processes, and wait until they are ready."""
        for role in roles:
            with self._log(role).open("wb") as log:
                self._processes[role] = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    f"etl.{role}",
                    cwd=self.directory,
                    env=self._env,
                    stderr=log,
                )
        async with asyncio.timeout(PATIENCE_S):
            while not all(READY[role] in self._log(role).read_text() for role in roles):
                await self.look()

    async def idle(self) -> None:
        """Wait until no process does anything but wait."""
        looks, before = 0, self._ticks()
        while looks < IDLE_LOOKS:
            await self.look()
            looks, before, last = looks + 1, self._ticks(), before
            if before != last:
                looks = 0

    async def look(self) -> None:
        """Wait a little.

        Raises:
            BenchError: a process has ended.
        """
        self.check()
        await asyncio.sleep(LOOK_S)

    def check(self) -> None:
        """See that all processes live.

        Raises:
            BenchError: one has ended.
        """
        for role, process in self._processes.items():
            if process.returncode is not None:
                said = self._log(role).read_text().rstrip().rpartition("\n")[2]
                raise BenchError(f"{role} ended with {process.returncode}, and said last: {said}")

    def put(self, source: Path) -> None:
        """Change the source, by a rename: not a byte is copied."""
        new = self.directory / "new.tmp"
        os.link(source, new)
        new.replace(self.directory / "events.jsonl")

    async def stop(self) -> None:
        """Ask all to stop, as honcho does.

        Raises:
            BenchError: one did not end, or not well.
        """
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            codes = {role: await process.wait() for role, process in self._processes.items()}
        self._processes.clear()
        if any(codes.values()):
            raise BenchError(f"the processes ended with {codes}")

    async def kill(self) -> None:
        """End whatever still runs."""
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()
        self._processes.clear()

    def _log(self, role: str) -> Path:
        return self.directory / f"{role}.log"

    def _ticks(self) -> list[float]:
        # A poll of the watermark is 20 µs; a tick of it now and then is no work.
        return [cpu_s(pid) for role, pid in self.pids.items() if role != "processor"]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
