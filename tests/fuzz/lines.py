"""Fuzzed lines through every reader of lines, beside the independent one.

The parser, the fast way, the judge, the fold, the single event, and the cuts of the client's file
reader must say of the same bytes what `fuzz.oracle` says.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from random import Random

from etl.core.event import MILLION, EventError, IntegerEvent, decode_fast, parse_line
from etl.core.lines import count_lines, judge, one_line
from etl.core.revenue import fold, new_deltas
from etl.source.lines import Lines, Mark
from fuzz import oracle
from fuzz.material import Material
from support import strict

_LINES_A_BODY = 40


class DisagreementError(AssertionError):
    """Two readers differ on the same bytes."""


def _differing(what: str, data: bytes, found: object, expected: object) -> DisagreementError:
    # Not in __init__: the error comes from another process, which makes it from its message.
    return DisagreementError(f"{what}: {found!r}, but {expected!r} was expected of\n{data!r}")


def check_line(line: bytes) -> bool:
    """Check what the parser, the fast way and the single event make of one line alone."""
    event = strict.read(line)
    expected = None if event is None else (event[0], int(event[1] * MILLION))
    try:
        parsed = parse_line(line)
    except EventError:
        found = None
    else:
        found = (parsed.user_id, parsed.amount)
    if found != expected:
        raise _differing("parser", line, found, expected)
    if b"\n" not in line:
        fast = _fast(line + b"\n")
        if fast is not None and fast != [expected]:
            raise _differing("fast way", line, fast, expected)
    check_single(line)
    return expected is not None


def check_single(document: bytes) -> None:
    """Check what becomes of a request that is one event."""
    expected = oracle.read_single(document)
    try:
        found: bytes | None = one_line(document)
    except EventError:
        found = None
    if found != (None if expected is None else expected + b"\n"):
        raise _differing("single event", document, found, expected)


def _fast(data: bytes) -> list[tuple[str, int]] | None:
    events = decode_fast(data)
    if events is None:
        return None
    found = []
    for event in events:
        amount = event.value * MILLION if isinstance(event, IntegerEvent) else int(event.amount)
        found.append((event.userId, strict.NAMES[event.name] * amount))
    return found


def check_body(body: bytes) -> oracle.Read:
    """Check what the judge, the fast way and the fold make of many lines."""
    expected = oracle.read(body)
    judged = judge(body)
    counts = judged.events, len(judged.rejections), judged.blank
    if counts != expected.counts() or count_lines(body) != len(expected.lines):
        raise _differing("judge", body, counts, expected.counts())
    refused = [rejection.line for rejection in judged.rejections]
    if refused != expected.refused():
        raise _differing("judge", body, refused, expected.refused())
    stored = [line.strip(b" \t\r") for line in judged.stored.split(b"\n")]
    if stored != [*expected.stored(), b""]:
        raise _differing("judge", body, stored, expected.stored())
    fast = _fast(body)
    if fast is not None and fast != expected.worth:
        raise _differing("fast way", body, fast, expected.worth)
    _check_fold(body, judged.stored, expected)
    return expected


def _check_fold(body: bytes, stored: bytes, expected: oracle.Read) -> None:
    sums: defaultdict[str, int] = defaultdict(int)
    for user_id, amount in expected.worth:
        sums[user_id] += amount
    for data, refused, judged in (
        (stored, [], False),
        (stored, [], True),
        (body + b"\n", expected.refused(), False),
    ):
        deltas = new_deltas()
        unusable = [found.line + 1 for found in fold(data, deltas, judged=judged)]
        if unusable != refused or deltas != sums:
            raise _differing("fold", data, (unusable, dict(deltas)), (refused, dict(sums)))


class Source:
    """A file in memory, read as the client reads its source."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("fuzz")

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._fd)

    def check(self, body: bytes, lines_max: int, bytes_max: int) -> None:
        """Check that the pieces of a body are the body, and judged as the whole is."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, body, 0)
        lines = Lines(
            self._fd, Mark(), end=len(body), lines_max=lines_max, bytes_max=max(1, bytes_max)
        )
        pieces = []
        while (piece := lines.cut() or lines.read()) is not None:
            pieces.append(piece)
        if b"".join(piece.body for piece in pieces) != body:
            raise _differing("client's pieces", body, pieces, "the body")
        refused = [
            piece.first.sequence + rejection.line
            for piece in pieces
            for rejection in judge(piece.body).rejections
        ]
        expected = oracle.read(body).refused()
        if refused != expected:
            raise _differing("client's pieces", body, refused, expected)


def run(lines: int, seed: int) -> Counter[str]:
    """Check so many lines, all that follow from a seed; return what they were.

    Raises:
        DisagreementError: on the first difference.
    """
    random = Random(seed)  # noqa: S311  no secret
    material = Material(random)
    source = Source()
    counts: Counter[str] = Counter()
    try:
        while counts["lines"] < lines:
            pieces = []
            for _ in range(_LINES_A_BODY):
                line = material.line()
                counts["events" if check_line(line) else "refused or blank"] += 1
                pieces.append(line)
            counts["lines"] += len(pieces)
            check_body(b"\n".join(pieces))
            body = material.body(_LINES_A_BODY)
            counts["lines in bodies"] += len(check_body(body).lines)
            counts["bodies"] += 2
            check_single(body)
            source.check(body, 1 + int(random.random() * 8), int(random.random() * 400))
    finally:
        source.close()
    return counts
