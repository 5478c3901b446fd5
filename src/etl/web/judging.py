"""Judging bodies without holding up the other requests.

A body of good lines takes milliseconds in C. One of bad lines takes up to two seconds, so it is
judged in slices: the first at once, the others in turn with all other such bodies, one slice a turn
of the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator

from etl.core.lines import Judged, judging

SLICE_S = 0.002


class Bench:
    """Where bodies are judged, fairly."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def judge(self, data: bytes) -> Judged:
        """Tell events, blank lines and the rest of `data` apart."""
        steps = judging(data)
        judged = _slice(steps)
        while judged is None:
            # The lock is fair: who has had a slice waits until all others had one.
            async with self._turn:
                await asyncio.sleep(0)
                judged = _slice(steps)
        return judged


def _slice(steps: Generator[None, None, Judged]) -> Judged | None:
    until = time.monotonic() + SLICE_S
    try:
        next(steps)
        while time.monotonic() < until:
            next(steps)
    except StopIteration as end:
        judged: Judged = end.value
        return judged
    return None
