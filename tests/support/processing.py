"""Processors for tests: in a task, or as real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from etl.processor import Processor
from etl.runtime.settings import Settings
from etl.sink.chunk import Chunk


def settings(directory: Path, url: str, *, poll_interval_ms: int = 5, **chosen: Any) -> Settings:
    return Settings(
        data_dir=str(directory),
        database_url=url,
        poll_interval_ms=poll_interval_ms,
        takeover_s=1,
        token="for tests",  # noqa: S106
        **chosen,
    )


class Running:
    """A processor in a task, and what it has committed."""

    def __init__(self, directory: Path, url: str, **chosen: Any) -> None:
        self.stop = asyncio.Event()
        self.chunks: list[Chunk] = []
        self._processor = Processor(
            settings(directory, url, **chosen), on_commit=self.chunks.append
        )
        self.task = asyncio.create_task(self._processor.run(self.stop))

    async def stopped(self) -> None:
        self.stop.set()
        await self.task


@asynccontextmanager
async def processor(directory: Path, url: str, **chosen: Any) -> AsyncIterator[Running]:
    """A processor at work; stopped at the end, and every error of it is the test's."""
    running = Running(directory, url, **chosen)
    try:
        yield running
    finally:
        await running.stopped()


@contextmanager
def processor_process(directory: Path, url: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A processor of its own pid; killed at the end if it still runs."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ETL_")}
    with subprocess.Popen(
        [sys.executable, "-m", "etl.processor"],
        env={
            **inherited,
            "ETL_DATA_DIR": str(directory),
            "DATABASE_URL": url,
            "ETL_TAKEOVER_S": "1",
            **env,
        },
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
