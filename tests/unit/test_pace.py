"""When a commit is due."""

from __future__ import annotations

from etl.sink.pace import PAUSE_MAX_S, PAUSE_RATIO, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(*, commit_s: float) -> tuple[Pace, Clock]:
    clock = Clock()
    pace = Pace(clock)
    pace.begin()
    clock.now += commit_s
    pace.end()
    return pace, clock


def test_first_commit_waits_for_nothing() -> None:
    assert Pace(Clock()).due


def test_pause_is_measured_by_the_commit_before_it() -> None:
    pace, clock = paced(commit_s=0.5)
    clock.now += 0.5 * PAUSE_RATIO - 0.01
    assert not pace.due
    clock.now += 0.02
    assert pace.due


def test_slow_commit_delays_the_next_one_by_no_more_than_the_bound() -> None:
    pace, clock = paced(commit_s=60.0)
    clock.now += PAUSE_MAX_S
    assert pace.due
