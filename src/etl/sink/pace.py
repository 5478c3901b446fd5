"""When a chunk that still grows is worth a commit.

A commit costs by the users it touches, and a chunk that grows meets the same users again: with a
backlog fewer, larger commits are cheaper. So after a commit twice the time passes that it took,
while there is more to read; where nothing more is there, nobody waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# Of the duration of the last commit; with 100,000 users 3 commits instead of 5.
PAUSE_RATIO = 2.0
PAUSE_MAX_S = 2.0


class Pace:
    """The pause after a commit."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun_at = 0.0
        self._due_at = float("-inf")

    @property
    def due(self) -> bool:
        """Say whether the pause is over."""
        return self._clock() >= self._due_at

    def begin(self) -> None:
        """A commit begins."""
        self._begun_at = self._clock()

    def end(self) -> None:
        """The commit has ended."""
        now = self._clock()
        self._due_at = now + min((now - self._begun_at) * PAUSE_RATIO, PAUSE_MAX_S)
