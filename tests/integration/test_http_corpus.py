"""Every case of the corpus, posted to a real server: alone, among good lines, and as NDJSON."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from corpus import BODIES, CASES, Case
from etl.core.revenue import fold, new_deltas
from etl.core.wire import JSON_TYPE, Problem
from support.serving import Answer, Served, serving

pytestmark = pytest.mark.asyncio

_HEADER = re.compile(rb',"_batch":{"lines":[^{}]*"crc32":[^{}]*}}$')
GOOD = b'{"userId":"good","name":"add_revenue","value":3}\n'


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as server:
        yield server


class Ledger:
    """What the server's files have gained since last asked."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._before = b""

    def gained(self) -> dict[str, int]:
        """Deltas of the new lines; their headers are members like any other, and taken out."""
        now = self._served.stored
        assert now.startswith(self._before)
        new, self._before = now[len(self._before) :], now
        bare = [_HEADER.sub(b"}", line) for line in new.split(b"\n")]
        deltas = new_deltas()
        assert fold(b"\n".join(bare), deltas) == []
        return dict(deltas)


def told(answer: Answer) -> str:
    return msgspec.json.decode(answer.body, type=Problem).detail


async def test_single_events_are_taken_or_refused_as_the_corpus_says(served: Served) -> None:
    ledger = Ledger(served)
    for case in CASES:
        answer = await served.post(case.line, JSON_TYPE)
        gained = ledger.gained()
        if case.reason is None:
            assert (case.name, answer.status) == (case.name, 201)
            assert (case.name, gained) == (case.name, {case.user_id: case.amount})
        else:
            assert (case.name, answer.status) == (case.name, 400)
            assert case.reason in told(answer), case.name
            assert (case.name, gained) == (case.name, {})


@pytest.mark.parametrize("crlf", [False, True], ids=["LF", "CRLF"])
async def test_lines_among_good_ones_are_taken_or_refused_as_the_corpus_says(
    served: Served, crlf: bool
) -> None:
    ledger = Ledger(served)
    cases = [case.with_return() if crlf else case for case in CASES]
    for case in cases:
        answer = await served.post_lines(GOOD + case.line + b"\n" + GOOD)
        receipt = answer.receipt
        good = {"good": 6_000_000}
        assert (case.name, receipt.blank, receipt.duplicates) == (case.name, 0, 0)
        if case.reason is None:
            assert (case.name, receipt.accepted, receipt.rejections) == (case.name, 3, [])
            assert (case.name, ledger.gained()) == (case.name, good | {case.user_id: case.amount})
        else:
            (rejection,) = receipt.rejections
            assert (case.name, receipt.accepted, rejection.line) == (case.name, 2, 2)
            assert case.reason in rejection.reason, case.name
            assert (case.name, ledger.gained()) == (case.name, good)
    assert served.lines == 2 * len(cases) + sum(case.is_event for case in cases)


async def test_whole_corpus_in_one_request_of_a_producer_lists_each_refused_line(
    served: Served,
) -> None:
    cases: list[Case] = list(CASES)
    body = b"\n".join(case.line for case in cases)
    for _ in range(2):  # the second time every line is known, and the refused ones told again
        receipt = (await served.post_lines(body, producer="corpus")).receipt
        assert receipt.next == len(cases)
        assert [rejection.line for rejection in receipt.rejections] == [
            number for number, case in enumerate(cases, start=1) if not case.is_event
        ]
        for rejection in receipt.rejections:
            assert (cases[rejection.line - 1].reason or "?") in rejection.reason
    assert receipt.duplicates == len(cases)
    assert served.lines == sum(case.is_event for case in cases)


async def test_bodies_are_taken_apart_as_the_corpus_says(served: Served) -> None:
    ledger = Ledger(served)
    for body in BODIES:
        receipt = (await served.post_lines(body.body)).receipt
        assert (body.name, receipt.accepted) == (body.name, len(body.amounts))
        assert (body.name, receipt.blank) == (body.name, body.blank)
        assert (body.name, [r.line for r in receipt.rejections]) == (body.name, list(body.rejected))
        for rejection in receipt.rejections:
            assert body.rejected[rejection.line] in rejection.reason, body.name
        expected = {"u": sum(body.amounts)} if body.amounts else {}
        assert (body.name, ledger.gained()) == (body.name, expected)


async def test_bodies_are_single_events_or_not_as_the_corpus_says(served: Served) -> None:
    ledger = Ledger(served)
    for body in BODIES:
        answer = await served.post(body.body, JSON_TYPE)
        if isinstance(body.single, int):
            assert (body.name, answer.status) == (body.name, 201)
            assert (body.name, ledger.gained()) == (body.name, {"u": body.single})
        else:
            assert (body.name, answer.status) == (body.name, 400)
            assert body.single in told(answer), body.name
            assert (body.name, ledger.gained()) == (body.name, {})
