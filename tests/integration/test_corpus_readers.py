"""The corpus through the client's file reader, and through the log and the processor's reader."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from corpus import CASES
from corpus.case import LIMIT
from etl.core.lines import judge
from etl.core.revenue import fold, new_deltas
from etl.log.header import Batch, Identity
from etl.source.lines import Lines, Mark, Piece
from support.logs import Log, read_all

BODY = b"\n".join(case.line for case in CASES)


def expected() -> dict[str, int]:
    """What the events of the corpus add up to."""
    sums: defaultdict[str, int] = defaultdict(int)
    for case in CASES:
        if case.is_event:
            sums[case.user_id] += case.amount
    return sums


def pieces_of(path: Path, *, lines_max: int, bytes_max: int) -> list[Piece]:
    path.write_bytes(BODY)
    with path.open("rb") as file:
        lines = Lines(
            file.fileno(), Mark(), end=len(BODY), lines_max=lines_max, bytes_max=bytes_max
        )
        pieces = []
        while (piece := lines.cut() or lines.read()) is not None:
            pieces.append(piece)
    return pieces


@pytest.mark.parametrize(("lines_max", "bytes_max"), [(1, 1), (7, 4_096), (100_000, 1024 * 1024)])
def test_file_of_the_corpus_is_sent_line_by_line_and_judged_so(
    tmp_path: Path, lines_max: int, bytes_max: int
) -> None:
    refused = {}
    pieces = pieces_of(tmp_path / "source", lines_max=lines_max, bytes_max=bytes_max)
    for piece in pieces:
        if piece.unsendable is not None:
            refused[piece.first.sequence] = piece.unsendable.reason
        for rejection in judge(piece.body).rejections:
            refused[piece.first.sequence + rejection.line - 1] = rejection.reason
    assert pieces[-1].next.sequence == len(CASES)
    assert sorted(refused) == [n for n, case in enumerate(CASES) if not case.is_event]
    for number, reason in refused.items():
        assert (CASES[number].reason or "?") in reason, CASES[number].name
    # So long lines never enter a request.
    assert max(len(piece.body) for piece in pieces) <= max(bytes_max, 2 * LIMIT)


@pytest.mark.parametrize("lines_max", [1, 7, 100_000])
def test_log_of_the_corpus_is_read_back_as_its_events(tmp_path: Path, lines_max: int) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    log = Log(directory)
    for piece in pieces_of(tmp_path / "source", lines_max=lines_max, bytes_max=1024 * 1024):
        judged = judge(piece.body)
        if judged.events:
            identity = Identity(
                producer="p", epoch=1, sequence=piece.first.sequence, next=piece.next.sequence
            )
            log.append(Batch(data=judged.stored, events=judged.events, identity=identity))
    log.close()
    deltas = new_deltas()
    for block in read_all(directory):
        assert fold(block.data, deltas) == []
    assert deltas == expected()
