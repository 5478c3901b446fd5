"""A line is counted once, however often and however cut it is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from etl.source.dead_letters import DeadLetters, Rejected
from etl.source.ledger import Ledger
from etl.source.lines import Mark, Piece
from etl.source.link import Taken
from etl.source.progress import Keeper, Progress
from etl.source.watch import Stat

pytestmark = pytest.mark.asyncio

# Good, bad, blank, good, blank, bad, good.
SOURCE = b"{}\nbad\n\n{}\n \t\r\nworse\n{}\n"
REJECTED = {2, 6}


def ledger_in(directory: Path) -> Ledger:
    letters = DeadLetters(directory / "dead_letters.jsonl")
    letters.open()
    progress = Progress(
        source="events.jsonl",
        producer="p",
        run=1,
        epoch=1,
        head_bytes=0,
        head_crc32=0,
        stat=Stat(inode=1, size=1, mtime_ns=1),
    )
    return Ledger(progress=progress, keeper=Keeper(directory / "progress"), letters=letters)


def piece(first: int, after: int) -> Piece:
    lines = SOURCE.splitlines(keepends=True)
    start = Mark().after(b"".join(lines[:first]), first)
    body = b"".join(lines[first:after])
    return Piece(first=start, next=start.after(body, after - first), body=body)


def taken(first: int, after: int, *, known: bool) -> Taken:
    body = piece(first, after).body.splitlines()
    rejected = tuple(
        Rejected(line=n - first, reason="no") for n in sorted(REJECTED) if first < n <= after
    )
    blank = None if known else sum(not line.strip() for line in body)
    return Taken(rejected=rejected, blank=blank)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("cut", range(1, 7))
@pytest.mark.parametrize("back", range(6))
async def test_lines_sent_again_in_other_pieces_are_counted_once(
    tmp_path: Path, known: bool, cut: int, back: int
) -> None:
    ledger = ledger_in(tmp_path)
    back = min(back, cut)
    for first, after in ((0, cut), (back, 7), (0, 7)):
        answer = taken(first, after, known=known)
        await ledger.acknowledge(piece(first, after), answer, anonymous=False)
    assert ledger.summary() == {"lines": 7, "accepted": 3, "rejected": 2, "blank": 2}
    assert ledger.progress.mark == piece(6, 7).next
    assert len((tmp_path / "dead_letters.jsonl").read_bytes().splitlines()) == 2


async def test_lines_taken_by_a_server_without_producers_are_remembered(tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path)
    for first, anonymous in ((0, False), (1, True), (2, True), (3, False), (4, True)):
        answer = taken(first, first + 1, known=False)
        await ledger.acknowledge(piece(first, first + 1), answer, anonymous=anonymous)
    assert ledger.progress.elsewhere == ((1, 3), (4, 5))
    told = [ledger.sent_elsewhere(piece(n, n + 1)) for n in range(6)]
    assert told == [False, True, True, False, True, False]
    assert ledger.sent_elsewhere(piece(1, 3)) is True
    assert ledger.sent_elsewhere(piece(0, 3)) is None
