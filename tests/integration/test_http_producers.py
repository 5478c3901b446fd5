"""Producers: every line counts once, in its order, however often and in whatever cut it is sent."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from etl.core.wire import NDJSON_TYPE, NUMBER_MAX, Producer, Receipt
from support.limits import files_no_larger_than
from support.serving import TOKEN, Answer, Served, serving

pytestmark = pytest.mark.asyncio

BAD = b"nonsense\n"
BLANK = b" \n"


def event(number: int) -> bytes:
    return b'{"userId":"u","name":"add_revenue","value":%d}\n' % number


def events(first: int, after: int) -> bytes:
    return b"".join(map(event, range(first, after)))


def counts(receipt: Receipt) -> tuple[int, int, int, int]:
    return receipt.accepted, receipt.rejected, receipt.blank, receipt.duplicates


def stored_values(served: Served) -> list[int]:
    """The values in the log, in its order."""
    members = map(json.loads, served.stored.splitlines())
    return [each["value"] for each in members]


def refused(answer: Answer, status: int, *words: str) -> None:
    assert answer.status == status, answer.body
    for word in words:
        assert word in answer.detail


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, producers_max=3) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that comes too early is a gap at once."""
    monkeypatch.setattr("etl.log.producers.WAIT_S", 0.0)


async def test_sequences_run_on_over_lines_of_every_kind(served: Served) -> None:
    first = await served.post_lines(event(0) + BAD + BLANK + event(3), producer="p")
    assert counts(first.receipt) == (2, 1, 1, 0)
    assert first.receipt.next == 4
    second = await served.post_lines(event(4)[:-1], producer="p", first=4)
    assert counts(second.receipt) == (1, 0, 0, 0)
    assert second.receipt.next == 5
    assert stored_values(served) == [0, 3, 4]


async def test_request_sent_twice_counts_once_and_names_its_bad_lines_again(served: Served) -> None:
    body = event(0) + BAD + BLANK + event(3)
    first = (await served.post_lines(body, producer="p")).receipt
    again = (await served.post_lines(body, producer="p")).receipt
    assert counts(again) == (0, 0, 0, 4)
    assert again.next == 4
    assert again.rejections == first.rejections != []
    assert served.lines == 2


async def test_request_cut_anew_counts_only_its_new_lines(served: Served) -> None:
    await served.post_lines(event(0) + BAD + event(2), producer="p")
    body = BAD + event(2) + BLANK + BAD + event(5)
    receipt = (await served.post_lines(body, producer="p", first=1)).receipt
    assert counts(receipt) == (1, 1, 1, 2)
    assert receipt.next == 6
    assert [rejection.line for rejection in receipt.rejections] == [1, 4]
    assert stored_values(served) == [0, 2, 5]


async def test_counts_add_up_and_values_stand_once_in_order_for_any_cut(served: Served) -> None:
    cut = random.Random(11)  # noqa: S311  no secret
    lines = [cut.choice([event(n), event(n), event(n), BAD, BLANK]) for n in range(400)]
    expected, accepted = 0, 0
    while expected < len(lines):
        first = cut.randint(max(0, expected - 30), expected)
        after = min(len(lines), first + cut.randint(0, 40))
        body = b"".join(lines[first:after])
        receipt = (await served.post_lines(body, producer="p", first=first)).receipt
        assert sum(counts(receipt)) == after - first
        assert receipt.duplicates == min(after, expected) - first
        assert [r.line for r in receipt.rejections] == [
            number for number, line in enumerate(lines[first:after], start=1) if line == BAD
        ]
        expected = max(expected, after)
        assert receipt.next == expected
        accepted += receipt.accepted
    kept = [n for n, line in enumerate(lines) if line == event(n)]
    assert stored_values(served) == kept
    assert accepted == len(kept) == served.lines


@pytest.mark.usefixtures("impatient")
async def test_gap_is_refused_and_names_what_is_expected(served: Served) -> None:
    answer = await served.post_lines(event(5), producer="p", first=5)
    refused(answer, 409, "sequence 0")
    assert answer.headers["Producer-Expected-Seq"] == "0"
    await served.post_lines(events(0, 3), producer="p")
    answer = await served.post_lines(event(4), producer="p", first=4)
    refused(answer, 409, "sequence 3")
    assert answer.headers["Producer-Expected-Seq"] == "3"
    assert stored_values(served) == [0, 1, 2]


@pytest.mark.usefixtures("impatient")
async def test_new_epoch_starts_at_zero_and_shuts_the_old_one_out(served: Served) -> None:
    await served.post_lines(events(0, 3), producer="p", epoch=1)
    refused(await served.post_lines(event(9), producer="p", epoch=2, first=3), 409, "sequence 0")
    assert counts((await served.post_lines(event(7), producer="p", epoch=2)).receipt) == (
        1,
        0,
        0,
        0,
    )
    for first in (0, 3):
        answer = await served.post_lines(event(8), producer="p", epoch=1, first=first)
        refused(answer, 403, "epoch 2")
    assert stored_values(served) == [0, 1, 2, 7]


async def test_producers_don_t_know_each_other(served: Served) -> None:
    for producer in ("p", "q", "P"):
        receipt = (await served.post_lines(event(1), producer=producer)).receipt
        assert counts(receipt) == (1, 0, 0, 0)
    assert served.lines == 3


async def test_one_producer_too_many_is_refused_and_those_known_go_on(served: Served) -> None:
    for producer in ("p", "q", "r"):
        await served.post_lines(event(0), producer=producer)
    answer = await served.post_lines(event(0), producer="s")
    refused(answer, 503, "3 producers")
    assert answer.headers["Retry-After"] == "1"
    assert served.lines == 3
    assert (await served.post_lines(event(1), producer="r", first=1)).receipt.accepted == 1


async def test_sequence_that_would_pass_the_largest_is_refused(served: Served) -> None:
    for first in (NUMBER_MAX, NUMBER_MAX - 1):
        answer = await served.post_lines(events(0, 2), producer="p", first=first)
        refused(answer, 400, str(NUMBER_MAX))
    assert served.lines == 0


async def test_early_request_waits_for_its_predecessor(served: Served) -> None:
    reader, writer = await asyncio.open_connection(served.host, served.port)
    body = events(2, 4)
    headers = Producer(producer="p", epoch=0, first=2).headers()
    fields = [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(
        [
            "POST /liveEvent HTTP/1.1",
            f"Host: localhost\r\nConnection: close\r\nAuthorization: {TOKEN}",
            f"Content-Type: {NDJSON_TYPE}\r\nContent-Length: {len(body)}",
            *fields,
        ]
    )
    writer.write(head.encode() + b"\r\n\r\n" + body)
    await writer.drain()
    # A round trip of another request after the bytes are out: the early one has been judged.
    assert (await served.ask("GET", "/livez")).status == 200
    assert served.lines == 0
    first = await served.post_lines(events(0, 2), producer="p")
    assert counts(first.receipt) == (2, 0, 0, 0)
    early = await reader.read()
    assert early.startswith(b"HTTP/1.1 200")
    assert b'"accepted":2' in early
    assert b'"next":4' in early
    writer.close()
    await writer.wait_closed()
    assert stored_values(served) == [0, 1, 2, 3]


async def test_requests_in_flight_in_any_order_are_stored_in_theirs(served: Served) -> None:
    order = list(range(0, 200, 5))
    random.Random(3).shuffle(order)  # noqa: S311  no secret
    answers = await asyncio.gather(
        *(served.post_lines(events(n, n + 5), producer="p", first=n) for n in order)
    )
    assert {counts(answer.receipt) for answer in answers} == {(5, 0, 0, 0)}
    assert stored_values(served) == list(range(200))


async def test_same_request_many_times_at_once_counts_once(served: Served) -> None:
    answers = await asyncio.gather(
        *(served.post_lines(events(0, 10), producer="p") for _ in range(20))
    )
    assert sorted(counts(answer.receipt) for answer in answers)[-1] == (10, 0, 0, 0)
    assert sum(answer.receipt.accepted for answer in answers) == 10
    assert sum(answer.receipt.duplicates for answer in answers) == 190
    assert stored_values(served) == list(range(10))


async def test_known_lines_are_known_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.post_lines(events(0, 3), producer="p", epoch=4)
    async with serving(tmp_path) as server:
        receipt = (await server.post_lines(events(0, 5), producer="p", epoch=4)).receipt
        assert counts(receipt) == (2, 0, 0, 3)
        refused(await server.post_lines(event(0), producer="p", epoch=3), 403)
        assert stored_values(server) == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("impatient")
async def test_refused_request_takes_no_sequence(served: Served) -> None:
    refused(await served.post_lines(b"\n" * 100_001, producer="p"), 413)
    served.events.stopping = True
    refused(await served.post_lines(events(0, 3), producer="p"), 503)
    served.events.stopping = False
    refused(await served.post_lines(event(1), producer="p", first=1), 409, "sequence 0")
    assert counts((await served.post_lines(events(0, 3), producer="p")).receipt) == (3, 0, 0, 0)


async def test_write_that_fails_half_way_is_refused_and_can_be_sent_again(served: Served) -> None:
    await served.post_lines(event(0), producer="p")
    before = served.stored
    body = events(1, 200)
    with files_no_larger_than(len(before) + 1_000):
        answer = await served.post_lines(body, producer="p", first=1)
        refused(answer, 503, "can't be written")
        assert answer.headers["Retry-After"] == "1"
    assert served.stored == before
    assert served.lines == 1
    receipt = (await served.post_lines(body, producer="p", first=1)).receipt
    assert counts(receipt) == (199, 0, 0, 0)
    assert stored_values(served) == list(range(200))
