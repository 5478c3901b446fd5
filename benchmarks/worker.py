"""A helper process of the harness: it gets ready, waits for the word, does its work, and reports.

It says `ready …` on its standard output, starts at the line `go` on its standard input, and answers
one line of JSON. So no start-up is ever inside a measured span, and what the harness itself does
meanwhile is next to nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.pipeline import BenchError

ROOT = Path(__file__).resolve().parents[1]
LINE_BYTES_MAX = 256 * 1024 * 1024
TIMEOUT_S = 1200.0


class Worker:
    """The harness's end of it."""

    def __init__(self, process: asyncio.subprocess.Process, ready: list[str]) -> None:
        self.pid = process.pid
        self.ready = ready
        self._process = process

    async def go(self) -> None:
        """Give the word."""
        await self.tell("go")

    async def tell(self, word: str) -> None:
        """Send a line.

        Raises:
            BenchError: the worker has ended.
        """
        if self._process.returncode is not None:
            raise BenchError("a worker of the harness ended; see above")
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")
        await self._process.stdin.drain()

    async def answer(self) -> Any:
        """Wait for what the worker reports.

        Raises:
            BenchError: it ended without a report.
        """
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            line = await self._process.stdout.readline()
        if not line:
            raise BenchError("a worker of the harness ended; see above")
        return json.loads(line)


@asynccontextmanager
async def worker(name: str, *arguments: str) -> AsyncIterator[Worker]:
    """A worker that is ready; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"benchmarks.{name}",
        *arguments,
        cwd=ROOT,
        env=dict(os.environ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    try:
        assert process.stdout is not None
        ready = (await process.stdout.readline()).decode().split()
        if not ready:
            raise BenchError(f"{name} did not start; see above")
        yield Worker(process, ready)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()  # also closes the pipes


def say(line: str) -> None:
    """Write a line to the harness: the worker's end of it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
