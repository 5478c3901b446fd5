"""Which lines of a request are new, and which request comes too early."""

from __future__ import annotations

import asyncio

import pytest

from etl.core.wire import Producer
from etl.log import producers as module
from etl.log.header import Identity
from etl.log.producers import Admitted, Crowded, Fenced, Gap, Producers


def _producers(*, producers_max: int = 10, **known: tuple[int, int]) -> Producers:
    return Producers(dict(known), producers_max=producers_max)


def _sent(first: int, *, epoch: int = 1, producer: str = "p") -> Producer:
    return Producer(producer=producer, epoch=epoch, first=first)


def _identity(sequence: int, upto: int, *, epoch: int = 1) -> Identity:
    return Identity(producer="p", epoch=epoch, sequence=sequence, next=upto)


@pytest.mark.parametrize(
    ("first", "lines", "known", "upto"),
    [(10, 5, 0, 15), (8, 5, 2, 13), (0, 10, 10, 10), (3, 2, 2, 10), (10, 0, 0, 10)],
)
def test_known_lines_are_skipped(first: int, lines: int, known: int, upto: int) -> None:
    verdict = _producers(p=(1, 10)).judge(_sent(first), lines)
    assert verdict == Admitted(known=known, next=upto)


def test_a_gap_names_the_sequence_that_is_next() -> None:
    assert _producers(p=(1, 10)).judge(_sent(11), 1) == Gap(expected=10)
    assert _producers().judge(_sent(1), 1) == Gap(expected=0)


def test_an_older_epoch_is_fenced_and_a_newer_one_starts_at_zero() -> None:
    producers = _producers(p=(2, 10))
    assert producers.judge(_sent(0, epoch=1), 1) == Fenced(epoch=2)
    assert producers.judge(_sent(10, epoch=3), 1) == Gap(expected=0)
    assert producers.judge(_sent(0, epoch=3), 4) == Admitted(known=0, next=4)


def test_what_is_admitted_counts_before_it_is_durable() -> None:
    producers = _producers()
    producers.admit(_identity(0, 5))
    assert producers.judge(_sent(0), 5) == Admitted(known=5, next=5)
    assert producers.durable() == {}


def test_a_failed_write_takes_the_sequence_back() -> None:
    producers = _producers(p=(1, 3))
    producers.admit(_identity(3, 5))
    producers.roll_back()
    assert producers.judge(_sent(3), 2) == Admitted(known=0, next=5)


def test_a_durable_batch_does_not_take_back_what_was_admitted_after_it() -> None:
    producers = _producers()
    producers.admit(_identity(0, 5))
    producers.admit(_identity(5, 9))
    producers.commit(_identity(0, 5))
    assert producers.judge(_sent(9), 1) == Admitted(known=0, next=10)
    producers.roll_back()
    assert producers.judge(_sent(9), 1) == Gap(expected=5)


def test_a_producer_beyond_the_limit_is_refused_and_known_ones_are_not() -> None:
    producers = _producers(producers_max=2, p=(1, 1))
    producers.admit(Identity(producer="q", epoch=1, sequence=0, next=1))
    assert producers.judge(_sent(0, producer="r"), 1) == Crowded(limit=2)
    assert producers.judge(_sent(1), 1) == Admitted(known=0, next=2)


@pytest.mark.asyncio
async def test_an_early_request_waits_for_its_predecessor() -> None:
    producers = _producers()
    early = asyncio.create_task(producers.judge_in_turn(_sent(5), 2))
    await asyncio.sleep(0)
    assert not early.done()
    producers.admit(_identity(0, 5))
    assert await early == Admitted(known=0, next=7)


@pytest.mark.asyncio
async def test_an_early_request_waits_no_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.0)
    assert await _producers().judge_in_turn(_sent(5), 2) == Gap(expected=0)


@pytest.mark.asyncio
async def test_only_so_many_requests_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITERS_MAX", 1)
    producers = _producers()
    first = asyncio.create_task(producers.judge_in_turn(_sent(5), 2))
    await asyncio.sleep(0)
    assert await producers.judge_in_turn(_sent(5), 2) == Gap(expected=0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert isinstance(producers.judge(_sent(0), 1), Admitted)
