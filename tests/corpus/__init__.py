"""What is an event and what is not: named cases, each with its expected answer.

One corpus for every way into the system. `CASES` are single lines, without their line break;
`BODIES` are whole requests, where it matters how lines are told apart. Cases are bytes, exactly.
"""

from __future__ import annotations

from corpus import encodings, framing, members, numbers, sizes, users
from corpus.case import Body, Case

CASES: tuple[Case, ...] = (
    *numbers.CASES,
    *users.CASES,
    *members.CASES,
    *encodings.CASES,
    *framing.CASES,
    *sizes.CASES,
)
BODIES: tuple[Body, ...] = framing.BODIES

__all__ = ["BODIES", "CASES", "Body", "Case"]
