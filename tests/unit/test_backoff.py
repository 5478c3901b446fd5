"""Waits between retries: they grow, they have a cap, and they never end."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from etl.runtime.backoff import Backoff


def test_ceiling_doubles_up_to_the_cap() -> None:
    longest = [0.0] * 12
    for _ in range(400):
        backoff = Backoff(first_s=0.1, cap_s=10.0)
        longest = [max(known, backoff.next_s()) for known in longest]
    for failures, seconds in enumerate(longest):
        ceiling = min(10.0, 0.1 * 2**failures)
        assert 0.8 * ceiling < seconds <= ceiling


def test_waits_are_spread_so_that_many_senders_don_t_come_at_once() -> None:
    backoffs = [Backoff(first_s=0.1, cap_s=10.0) for _ in range(200)]
    for backoff in backoffs:
        backoff.failures = 6
    waits = [backoff.next_s() for backoff in backoffs]
    assert min(waits) < 1.5 < 5 < max(waits)
    assert len(set(waits)) > 190


@given(failures=st.integers(0, 10**9), asked_s=st.floats(0, 100))
def test_wait_is_bounded_after_any_number_of_failures(failures: int, asked_s: float) -> None:
    backoff = Backoff(first_s=0.05, cap_s=2.0)
    backoff.failures = failures
    assert 0.025 <= backoff.next_s() <= 2.0
    assert asked_s <= backoff.next_s(asked_s) <= max(2.0, asked_s)


def test_there_is_no_last_attempt_and_a_success_begins_anew() -> None:
    backoff = Backoff(first_s=0.05, cap_s=2.0)
    for _ in itertools.repeat(None, 10_000):
        backoff.next_s()
    assert backoff.failures == 10_000
    backoff.reset()
    assert backoff.next_s() <= 0.05
