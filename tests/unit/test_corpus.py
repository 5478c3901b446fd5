"""Every case of the corpus, by every way that an event is read."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from corpus import BODIES, CASES, EXCHANGES, PATHS, SENDERS, Body, Case
from etl.core.event import (
    LINE_BYTES_MAX,
    MILLION,
    Event,
    EventError,
    IntegerEvent,
    decode_fast,
    parse_line,
)
from etl.core.lines import judge, one_line
from etl.core.revenue import Deltas, fold, new_deltas

ROOT = Path(__file__).parents[2]
GOOD = b'{"userId":"good","name":"add_revenue","value":3}\n'
DECIMAL = b'{"userId":"good","name":"add_revenue","value":0.5}\n'
# Blocks of good lines to stand in: small ones, and more than one block of the judge.
BEFORE = GOOD * 200 + DECIMAL + GOOD * 3
BEHIND = GOOD * 2 + DECIMAL + GOOD * 200

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_body = pytest.mark.parametrize("body", BODIES, ids=lambda body: body.name)


def answer(line: bytes) -> Event | str:
    try:
        return parse_line(line)
    except EventError as error:
        return str(error)


def fast(data: bytes) -> list[Event] | None:
    """What the fast way makes of whole lines."""
    events = decode_fast(data)
    if events is None:
        return None
    found = []
    for event in events:
        amount = event.value * MILLION if isinstance(event, IntegerEvent) else int(event.amount)
        sign = 1 if event.name == "add_revenue" else -1
        found.append(Event(event.userId, sign * amount))
    return found


def folded(data: bytes) -> Deltas:
    """The deltas of lines that must all be events."""
    deltas = new_deltas()
    assert fold(data, deltas) == []
    return deltas


def test_corpus_is_large_and_no_name_stands_twice() -> None:
    names = [case.name for case in CASES] + [body.name for body in BODIES]
    names += [exchange.name for exchange in EXCHANGES]
    names += [sender.name for sender in SENDERS] + [path.name for path in PATHS]
    assert len(names) == len(set(names)) > 400
    assert sum(case.is_event for case in CASES) > 80
    assert all(b"\n" not in case.line for case in CASES)


@each_case
def test_line_is_judged_as_the_corpus_says(case: Case) -> None:
    found = answer(case.line)
    if case.reason is None:
        assert found == Event(case.user_id, case.amount)
    else:
        assert isinstance(found, str)
        assert case.reason in found


@each_case
def test_reason_can_be_sent(case: Case) -> None:
    found = answer(case.line)
    if isinstance(found, str):
        assert found.isascii()
        assert len(found) < 300


@each_case
@pytest.mark.parametrize("first", [b"", GOOD, DECIMAL], ids=["alone", "integers", "decimals"])
def test_fast_way_never_takes_what_is_no_event_and_agrees_on_what_it_takes(
    case: Case, first: bytes
) -> None:
    found = fast(first + case.line + b"\n")
    if found is not None:
        assert found[-1:] == [Event(case.user_id, case.amount)]
        assert case.is_event


@each_case
@pytest.mark.parametrize("crlf", [False, True], ids=["LF", "CRLF"])
def test_line_in_the_middle_of_good_ones_changes_nothing_else(case: Case, crlf: bool) -> None:
    case = case.with_return() if crlf else case
    judged = judge(BEFORE + case.line + b"\n" + BEHIND)
    assert judged.lines == 408
    assert judged.blank == 0
    if case.reason is None:
        assert (judged.events, list(judged.rejections)) == (408, [])
    else:
        (rejection,) = judged.rejections
        assert (judged.events, rejection.line) == (407, 205)
        assert case.reason in rejection.reason
    deltas = folded(judged.stored)
    expected = {"good": 405 * 3_000_000 + 2 * 500_000}
    if case.is_event:
        expected[case.user_id] = case.amount
    assert deltas == expected


@each_case
def test_last_line_counts_without_its_break(case: Case) -> None:
    judged = judge(GOOD + case.line)
    assert judged.lines == 2
    assert judged.events == 1 + case.is_event
    assert judged.stored.endswith(b"\n")
    assert folded(judged.stored)["good"] == 3_000_000


@each_case
def test_fold_adds_what_is_an_event_and_returns_what_is_none(case: Case) -> None:
    deltas = new_deltas()
    unusable = fold(GOOD + case.line + b"\n" + GOOD, deltas)
    if case.reason is None:
        assert unusable == []
        assert deltas == {"good": 6_000_000, case.user_id: case.amount}
    else:
        (found,) = unusable
        assert (found.line, found.byte, found.text) == (1, len(GOOD), case.line)
        assert case.reason in found.reason
        assert deltas == {"good": 6_000_000}


@each_case
def test_lines_that_were_judged_add_the_same_when_they_are_read_without_judging(case: Case) -> None:
    stored = judge(GOOD + case.line + b"\n" + DECIMAL).stored
    deltas = new_deltas()
    assert fold(stored, deltas, judged=True) == []
    assert deltas == folded(stored)


@each_case
def test_single_event_becomes_one_line_that_says_the_same(case: Case) -> None:
    if case.reason is None:
        line = one_line(case.line)
        assert line.count(b"\n") == 1
        assert line.endswith(b"}\n")
        assert folded(line) == {case.user_id: case.amount}
    else:
        with pytest.raises(EventError) as refusal:
            one_line(case.line)
        assert case.reason in str(refusal.value)


@each_body
def test_lines_of_a_request_are_told_apart(body: Body) -> None:
    judged = judge(body.body)
    assert judged.events == len(body.amounts)
    assert judged.blank == body.blank
    assert [rejection.line for rejection in judged.rejections] == list(body.rejected)
    for rejection in judged.rejections:
        assert body.rejected[rejection.line] in rejection.reason
    lines = judged.stored.splitlines(keepends=True)
    assert [parse_line(line.rstrip(b"\n")).amount for line in lines] == list(body.amounts)


@each_body
def test_request_of_one_event_may_be_spread_over_lines(body: Body) -> None:
    if isinstance(body.single, int):
        line = one_line(body.body)
        assert line.count(b"\n") == 1
        assert folded(line) == {"u": body.single}
    else:
        with pytest.raises(EventError) as refusal:
            one_line(body.body)
        assert body.single in str(refusal.value)


def test_two_lines_at_the_limit_go_the_fast_way() -> None:
    line = b'{"userId":"u","name":"add_revenue","value":1'
    line += b" " * (LINE_BYTES_MAX - len(line) - 1) + b"}\n"
    assert fast(line * 3) == [Event("u", 1_000_000)] * 3
    assert fast(line.replace(b"}", b" }")) is None
    assert fast(GOOD + line.replace(b"}", b" }") + GOOD) is None


def test_ordinary_lines_go_the_fast_way() -> None:
    assert decode_fast(GOOD * 1000) is not None
    assert decode_fast((GOOD + DECIMAL) * 1000) is not None
    assert decode_fast('{"userId":"é💩","name":"add_revenue","value":1}\n'.encode()) is not None


def test_line_that_holds_a_line_break_is_refused_as_such() -> None:
    # White space to JSON, so only a rule about lines refuses it.
    assert answer(GOOD[:-2] + b"\n}") == "event spans lines"
    assert one_line(GOOD[:-2] + b"\n}") == GOOD[:-2] + b" }\n"


def test_page_of_the_corpus_is_current() -> None:
    page = runpy.run_path(str(ROOT / "tests" / "corpus"))["page"]()
    assert (ROOT / "docs" / "corpus.md").read_text(encoding="utf-8") == page
