"""Waits between retries: exponential, capped, with full jitter, and without a last attempt.

The method is "full jitter" of Marc Brooker, "Exponential Backoff And Jitter" (AWS, 2015).
"""

from __future__ import annotations

import random


class Backoff:
    """The waits of one series of failures, in seconds."""

    def __init__(self, *, first_s: float = 0.05, cap_s: float = 2.0) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self.failures = 0

    def next_s(self, at_least_s: float = 0.0) -> float:
        """Return the next wait; never under `at_least_s`, which a `Retry-After` may ask for."""
        ceiling = min(self._cap_s, self._first_s * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return max(at_least_s, random.uniform(self._first_s / 2, ceiling))  # noqa: S311  no secret

    def reset(self) -> None:
        """Begin anew after a success."""
        self.failures = 0
