"""Moments that a process in a task tells of in its log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 60.0


class Hearing(logging.Handler):
    """Waits for log lines, and keeps those it heard."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._more = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._more.set()

    def count(self, text: str) -> int:
        return sum(text in line for line in self.lines)

    async def until(self, text: str, *, times: int = 1) -> None:
        """Wait until a text was logged so many times."""
        async with asyncio.timeout(PATIENCE_S):
            while self.count(text) < times:
                self._more.clear()
                await self._more.wait()


@contextmanager
def hearing() -> Iterator[Hearing]:
    logger, handler = logging.getLogger("etl"), Hearing()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
