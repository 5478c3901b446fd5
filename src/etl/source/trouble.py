"""One log line when delivery gets stuck, one when the reason changes, one when it goes on."""

from __future__ import annotations

import logging
import time

from etl.runtime.lifecycle import fields

logger = logging.getLogger(__name__)


class Trouble:
    """What keeps the client from delivering, if anything does."""

    def __init__(self) -> None:
        self._kind = ""
        self._since = 0.0
        self._failures = 0

    def seen(self, kind: str, reason: str) -> None:
        """Take note of a failure; `kind` tells states apart."""
        if not self._failures:
            self._since = time.monotonic()
        self._failures += 1
        if kind != self._kind:
            self._kind = kind
            logger.warning("the server takes no events, trying again: %s", reason)

    def over(self) -> None:
        """Take note of a success."""
        if self._failures:
            logger.info(
                "the server takes events again",
                extra=fields(
                    failures=self._failures, seconds=round(time.monotonic() - self._since, 3)
                ),
            )
        self._kind, self._failures = "", 0
