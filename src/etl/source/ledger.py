"""What becomes of acknowledged lines: dead letters first, then counts and progress.

Invariants:

* A line's dead letter is durable before progress moves past the line.
* A line is counted once, as accepted, rejected or blank, also when it is sent again.
"""

from __future__ import annotations

import re
from functools import partial

import msgspec

from etl.core.event import LINE_BYTES_MAX
from etl.core.lines import drop_lines
from etl.core.wire import Producer
from etl.source.dead_letters import DeadLetters, Sender
from etl.source.lines import Mark, Piece
from etl.source.link import Taken
from etl.source.progress import Keeper, Progress
from etl.source.storing import persist
from etl.source.watch import Stat

# One over the limit is rejected, whatever it holds.
_BLANK_LINE = re.compile(rb"^[ \t\r]{0,%d}$" % LINE_BYTES_MAX, re.MULTILINE)


class Ledger:
    """The account of one run."""

    def __init__(self, *, progress: Progress, keeper: Keeper, letters: DeadLetters) -> None:
        self.progress = progress
        self._keeper = keeper
        self._letters = letters
        self._sender = Sender(
            source=progress.source, producer=progress.producer, epoch=progress.epoch
        )

    def producer(self, first: Mark) -> Producer:
        """Return who sends a piece that begins at `first`."""
        return Producer(
            producer=self.progress.producer, epoch=self.progress.epoch, first=first.sequence
        )

    def known(self, piece: Piece) -> bool:
        """Say whether all of a piece was acknowledged before."""
        return piece.next.sequence <= self.progress.next

    def sent_elsewhere(self, piece: Piece) -> bool | None:
        """Say whether the lines were taken by a server without producers; None: some of them."""
        first, after = piece.first.sequence, piece.next.sequence
        for start, end in self.progress.elsewhere:
            if start <= first and after <= end:
                return True
            if first < end and start < after:
                return None
        return False

    async def acknowledge(self, piece: Piece, taken: Taken, *, anonymous: bool) -> None:
        """Account for a piece that the server has taken; pieces come in the order of lines."""
        letters = self._sender.letters(piece, taken.rejected)
        if letters:
            await persist("dead_letters.jsonl", partial(self._letters.append, letters))
        if self.known(piece):
            return
        accepted, rejected, blank = self._count(piece, taken)
        before, after = self.progress, piece.next
        elsewhere = before.elsewhere
        if anonymous:
            elsewhere = _with_range(elsewhere, before.next, after.sequence)
        self.progress = msgspec.structs.replace(
            before,
            next=after.sequence,
            byte=after.byte,
            crc32=after.crc32,
            accepted=before.accepted + accepted,
            rejected=before.rejected + rejected,
            blank=before.blank + blank,
            elsewhere=elsewhere,
        )
        self._keeper.note(self.progress)

    async def end_at(self, byte: int, stat: Stat, *, cut: bool) -> None:
        """Make durable where the run ends, and whether the source was cut short there."""
        self.progress = msgspec.structs.replace(self.progress, end=byte, stat=stat, cut=cut)
        await self._keeper.save(self.progress)

    async def finish(self) -> None:
        """Make durable that all of the run is acknowledged."""
        self.progress = msgspec.structs.replace(self.progress, finished=True)
        await self._keeper.save(self.progress)

    def summary(self) -> dict[str, int]:
        """Return how many lines the run has, and what became of them."""
        progress = self.progress
        return {
            "lines": progress.next,
            "accepted": progress.accepted,
            "rejected": progress.rejected,
            "blank": progress.blank,
        }

    def _count(self, piece: Piece, taken: Taken) -> tuple[int, int, int]:
        """Return the accepted, rejected and blank lines that were not counted before."""
        counted = max(0, self.progress.next - piece.first.sequence)
        lines = piece.lines - counted
        if piece.unsendable is not None:
            return 0, lines, 0
        rejected = sum(one.line > counted for one in taken.rejected)
        if counted or taken.blank is None:
            rest = drop_lines(piece.body, counted).removesuffix(b"\n")
            blank = len(_BLANK_LINE.findall(rest))
        else:
            blank = taken.blank
        return lines - rejected - blank, rejected, blank


def _with_range(
    ranges: tuple[tuple[int, int], ...], start: int, end: int
) -> tuple[tuple[int, int], ...]:
    if ranges and ranges[-1][1] == start:
        return (*ranges[:-1], (ranges[-1][0], end))
    return (*ranges, (start, end))
