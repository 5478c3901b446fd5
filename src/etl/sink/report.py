"""A log line now and then that says how fast it goes."""

from __future__ import annotations

import logging
import time

from etl.runtime.lifecycle import fields
from etl.sink.chunk import Chunk

logger = logging.getLogger(__name__)

# Nothing is said while nothing is applied.
INTERVAL_S = 5.0


class Report:
    """What was applied since the last line."""

    def __init__(self) -> None:
        self._lines = 0
        self._chunks = 0
        self._since = 0.0
        self._until = 0.0

    def add(self, chunk: Chunk) -> None:
        """Count a chunk, and say so if the last line is long ago."""
        self._until = time.monotonic()
        if not self._chunks:
            self._since = self._until
        self._lines += chunk.lines
        self._chunks += 1
        if chunk.dead_letters:
            logger.warning("dead letters in the log", extra=fields(lines=len(chunk.dead_letters)))
        self.say()

    def say(self) -> None:
        """Say what was applied since the last line, if that is long ago."""
        if not self._chunks or time.monotonic() - self._since < INTERVAL_S:
            return
        logger.info(
            "applied",
            extra=fields(
                events=self._lines,
                transactions=self._chunks,
                seconds=round(self._until - self._since, 1),
            ),
        )
        self._lines = self._chunks = 0
