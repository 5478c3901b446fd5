"""The three processes, as `honcho start` runs them, on one directory of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

ROLES = ("server", "processor", "client")
PATIENCE_S = 60.0


class Role:
    """One process, whose log lines are moments to wait for."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.log: list[str] = []
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.log.append(line.decode().rstrip())
            self._more.set()
        self._more.set()

    async def said(self, *texts: str, times: int = 1) -> str:
        """Wait for a log line with one of these texts, and return it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = [line for line in self.log if any(text in line for text in texts)]
                if len(found) >= times:
                    return found[times - 1]
                if self._reading.done():
                    raise AssertionError(f"{self.name} ended:\n" + "\n".join(self.log))
                self._more.clear()
                await self._more.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, if it has not ended.

        Not by the library: where the process has just died, that takes its exit code away from who
        waits for it, and 255 is told instead.
        """
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end."""
        self.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end, and return the exit code."""
        async with asyncio.timeout(PATIENCE_S):
            code = await self.process.wait()
            await self._reading
        return code


class Pipeline:
    """A source, a data directory, and processes that can be killed and started again."""

    def __init__(self, directory: Path, database_url: str, env: Mapping[str, str]) -> None:
        self.directory = directory
        self.source = directory / "events.jsonl"
        self.data = directory / "data"
        self.port = 0
        self.server_url = ""
        self.roles: dict[str, Role] = {}
        self._logs: list[Role] = []
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("ETL_")} | {
            "DATABASE_URL": database_url,
            "ETL_QUIET_MS": "50",
            **env,
        }

    async def start(self, *names: str) -> None:
        """Start processes; the server first, because the kernel chooses its port."""
        for name in names:
            self.roles[name] = await self.launch(name)
            if name == "server":
                line = await self.roles[name].said("listening")
                self.port = int(line.rpartition("port=")[2])

    async def launch(self, name: str, *before: str, **env: str) -> Role:
        """Start one process beside whatever runs already, as the command `before` runs it."""
        url = self.server_url or f"http://127.0.0.1:{self.port}"
        process = await asyncio.create_subprocess_exec(
            *before,
            sys.executable,
            "-m",
            f"etl.{name}",
            cwd=self.directory,
            env=self._env | {"ETL_PORT": str(self.port), "ETL_SERVER_URL": url} | env,
            stderr=asyncio.subprocess.PIPE,
        )
        role = Role(name, process)
        self._logs.append(role)
        return role

    def set(self, **env: str) -> None:
        """Give what is started from now on other settings."""
        self._env |= env

    async def kill(self, *names: str) -> None:
        """End processes at whatever instruction they are."""
        for name in names:
            self.roles[name].send_signal(signal.SIGKILL)
        for name in names:
            await self.roles[name].ended()

    async def stop(self, *names: str) -> dict[str, int]:
        """Ask processes to stop, all at once as honcho does, and return their exit codes."""
        for name in names:
            self.roles[name].send_signal(signal.SIGTERM)
        return {name: await self.roles[name].ended() for name in names}

    async def end_all(self) -> None:
        """End whatever still runs, also what is frozen."""
        for role in self._logs:
            if role.process.returncode is None:
                role.send_signal(signal.SIGCONT)
                await role.end(signal.SIGKILL)

    def write_source(self, data: bytes) -> None:
        """Put a new source in place, by rename."""
        new = self.directory / "new.tmp"
        new.write_bytes(data)
        new.replace(self.source)

    def stored(self) -> list[bytes]:
        """All lines of all partitions, in order."""
        partitions = sorted(self.data.glob("server_events_*.jsonl"))
        return [line for path in partitions for line in path.read_bytes().splitlines()]

    def log_of(self, name: str) -> list[str]:
        """Every line that any process of this role has logged."""
        return [line for role in self._logs if role.name == name for line in role.log]

    def write_logs(self) -> None:
        """Put what every process has logged beside the source, for whoever looks into a failure."""
        lines = [line for role in self._logs for line in role.log]
        (self.directory / "processes.log").write_text("\n".join(sorted(lines)) + "\n")

    def faults(self) -> list[str]:
        """Lines that no run may log, whatever is killed."""
        return [
            line
            for role in self._logs
            for line in role.log
            if "Traceback" in line or "nothing answered" in line
        ]


@asynccontextmanager
async def pipeline(directory: Path, database_url: str, **env: str) -> AsyncIterator[Pipeline]:
    """A pipeline without processes yet; all that were started are ended at the end."""
    running = Pipeline(directory, database_url, env)
    try:
        yield running
    finally:
        await running.end_all()
