"""A chunk: what one transaction applies.

Invariants:

* The deltas and dead letters are those of the lines between `before` and `after` of its moves,
  and of no others.
* It grows until it is taken, and is bounded: `full` says when to stop adding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from etl.core.revenue import Deltas, fold, new_deltas
from etl.sink.offsets import Move

# Bounds of what is in memory, and of what a failed transaction has to do again. 200,000 users
# take about a second to upsert; 64 MiB of log are about a million events.
CHUNK_BYTES_MAX = 64 * 1024 * 1024
CHUNK_USERS_MAX = 200_000
CHUNK_USERS_MIN = 1_000
CHUNK_DEAD_LETTERS_MAX = 10_000
# Of a dead letter so much text is kept; `bytes` says how long it was.
DEAD_LETTER_TEXT_MAX = 64 * 1024


class Bound:
    """How many users a chunk may have: fewer after a failure, so that no chunk fails for its size.

    A database that takes a millisecond a user takes longer for the largest chunk than a command
    may take.
    """

    def __init__(self) -> None:
        self.users_max = CHUNK_USERS_MAX

    def narrow(self) -> None:
        """After a failure."""
        self.users_max = max(CHUNK_USERS_MIN, self.users_max // 2)

    def widen(self) -> None:
        """After a commit."""
        self.users_max = min(CHUNK_USERS_MAX, self.users_max * 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A line of the log that is not an event; `line` counts from 1 in its partition."""

    partition: str
    line: int
    reason: str
    text: bytes
    bytes: int


@dataclass(slots=True, kw_only=True)
class Chunk:
    """Events folded into one delta per user, with the offsets they move."""

    users_max: int = CHUNK_USERS_MAX
    moves: dict[str, Move] = field(default_factory=dict)
    deltas: Deltas = field(default_factory=new_deltas)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    log_bytes: int = 0
    lines: int = 0

    def __bool__(self) -> bool:
        return bool(self.moves)

    @property
    def full(self) -> bool:
        """Say whether it should not grow any more."""
        return (
            self.log_bytes >= CHUNK_BYTES_MAX
            or len(self.deltas) >= self.users_max
            or len(self.dead_letters) >= CHUNK_DEAD_LETTERS_MAX
        )

    def add(self, move: Move, data: bytes, *, judged: bool = False) -> None:
        """Fold the lines of a partition between two places; takes about a second per 100 MB.

        `judged`: each of them is known to be an event.
        """
        partition = move.after.partition
        earlier = self.moves.get(partition)
        if earlier is not None and earlier.after != move.before:
            raise AssertionError(f"block begins at {move.before}, not at {earlier.after}")
        for unusable in fold(data, self.deltas, judged=judged):
            self.dead_letters.append(
                DeadLetter(
                    partition=partition,
                    line=move.before.line + unusable.line + 1,
                    reason=unusable.reason,
                    text=unusable.text[:DEAD_LETTER_TEXT_MAX],
                    bytes=len(unusable.text),
                )
            )
        before = move.before if earlier is None else earlier.before
        self.moves[partition] = Move(before=before, after=move.after)
        self.log_bytes += move.after.byte - move.before.byte
        self.lines += move.after.line - move.before.line
