"""What is an event and what is not: named cases, each with its expected answer.

One corpus for every way into the system. `CASES` are single lines, without their line break;
`BODIES` are whole requests, where it matters how lines are told apart; `SENDERS` are headers of
producers, `PATHS` ask for a user, and `EXCHANGES` are all the bytes of a connection. Cases are
bytes, exactly. `docs/corpus.md` shows them all; `python tests/corpus` writes it.
"""

from __future__ import annotations

from corpus import encodings, exchanges, framing, members, numbers, paths, senders, sizes, users
from corpus.case import Body, Case, Exchange, Path, Sender

CASES: tuple[Case, ...] = (
    *numbers.CASES,
    *users.CASES,
    *members.CASES,
    *encodings.CASES,
    *framing.CASES,
    *sizes.CASES,
)
BODIES: tuple[Body, ...] = framing.BODIES
EXCHANGES: tuple[Exchange, ...] = exchanges.EXCHANGES
SENDERS: tuple[Sender, ...] = senders.SENDERS
PATHS: tuple[Path, ...] = paths.PATHS

__all__ = [
    "BODIES",
    "CASES",
    "EXCHANGES",
    "PATHS",
    "SENDERS",
    "Body",
    "Case",
    "Exchange",
    "Path",
    "Sender",
]
