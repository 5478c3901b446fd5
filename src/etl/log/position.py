"""Where something stands in the log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Position:
    """A place between two lines: so many bytes and lines of a partition stand before it.

    Ordered as the log is. Made in `log/` (and read back from the database) only.
    """

    partition: str
    byte: int
    line: int


def start_of(partition: str) -> Position:
    """Return the place before the first line of a partition."""
    return Position(partition=partition, byte=0, line=0)
