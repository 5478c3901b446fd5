"""The client as a real process, or within the test, on a source and a data directory of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from etl.client import run
from etl.runtime.settings import Settings


@dataclass(slots=True)
class Place:
    """Where a client lives: source, data directory, server, and how it is set."""

    directory: Path
    url: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        return self.directory / "events.jsonl"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def write(self, data: bytes) -> None:
        """Put a new source in place, by rename."""
        new = self.directory / "new.tmp"
        new.write_bytes(data)
        new.replace(self.source)

    def append(self, data: bytes) -> None:
        with self.source.open("ab") as file:
            file.write(data)

    def letters(self) -> list[dict[str, Any]]:
        try:
            text = (self.data / "dead_letters.jsonl").read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines()]

    def progress(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "client_progress.json").read_bytes())
        return found

    def as_settings(self) -> Settings:
        return Settings(
            source=str(self.source),
            data_dir=str(self.data),
            server_url=self.url,
            **{"quiet_ms": 50, **self.settings},
        )

    def environment(self) -> dict[str, str]:
        chosen = {f"ETL_{name.upper()}": str(value) for name, value in self.settings.items()}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ETL_")}
        return kept | {
            "ETL_QUIET_MS": "50",
            "ETL_SOURCE": str(self.source),
            "ETL_DATA_DIR": str(self.data),
            "ETL_SERVER_URL": self.url,
            **chosen,
        }


class LogLines(logging.Handler):
    """The log of a client within the test, whose lines are moments to wait for."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        fields = " ".join(f"{k}={v}" for k, v in getattr(record, "fields", {}).items())
        self.lines.append(f"{record.getMessage()} {fields}")
        self._loop.call_soon_threadsafe(self._news.set)

    async def seen(self, text: str, within_s: float = 20.0) -> str:
        """Wait for a line that contains `text`."""
        async with asyncio.timeout(within_s):
            while True:
                self._news.clear()
                for line in self.lines:
                    if text in line:
                        return line
                await self._news.wait()


@asynccontextmanager
async def running(place: Place) -> AsyncIterator[LogLines]:
    """Run the client in this process; leaving stops it."""
    stop = asyncio.Event()
    log = LogLines()
    logger = logging.getLogger("etl")
    logger.addHandler(log)
    level = logger.level
    logger.setLevel(logging.INFO)
    client = asyncio.create_task(run(place.as_settings(), stop))
    try:
        yield log
    finally:
        stop.set()
        try:
            async with asyncio.timeout(10):
                await client
        finally:
            logger.removeHandler(log)
            logger.setLevel(level)


class ClientProcess:
    """`python -m etl.client`, whose log lines are moments to wait for."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.log: list[str] = []

    @classmethod
    async def start(cls, place: Place) -> Self:
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "etl.client",
                env=place.environment(),
                stderr=asyncio.subprocess.PIPE,
            )
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    async def logs(self, text: str, within_s: float = 20.0) -> str:
        """Wait for a log line that contains `text`."""
        assert self._process.stderr is not None
        async with asyncio.timeout(within_s):
            while line := (await self._process.stderr.readline()).decode():
                self.log.append(line)
                if text in line:
                    return line
        raise AssertionError(f"ended without {text!r}:\n{''.join(self.log)}")

    async def ended(self) -> int:
        """Read the log to its end and return the exit code."""
        async with asyncio.timeout(20):
            _, rest = await self._process.communicate()
        self.log += rest.decode().splitlines(keepends=True)
        assert self._process.returncode is not None
        return self._process.returncode

    async def kill(self) -> None:
        """End it at whatever instruction it is."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self.ended()

    async def stop(self, number: signal.Signals) -> int:
        self._process.send_signal(number)
        return await self.ended()


@asynccontextmanager
async def process(place: Place) -> AsyncIterator[ClientProcess]:
    """Run the client as a process; leaving kills it if it still runs."""
    client = await ClientProcess.start(place)
    try:
        yield client
    finally:
        await client.kill()
