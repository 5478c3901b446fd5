"""Which partitions retention takes: a beginning of the log, and only what no setting keeps."""

from __future__ import annotations

import pytest

from etl.apply.retention import Limits, choose
from etl.sink.offsets import Oldest


def row(number: int, *, done: bool = True, age_s: float = 100, byte: int = 10) -> Oldest:
    return Oldest(partition=f"p{number}", byte=byte, done=done, age_s=age_s)


ROWS = [row(1), row(2), row(3), row(4)]
AGE = Limits(age_s=60, size_bytes=None)
SIZE = Limits(age_s=None, size_bytes=15)
NEVER = Limits(age_s=None, size_bytes=None)


def chosen(
    rows: list[Oldest], limits: Limits, *, kept_bytes: int = 40, begun_upto: str = ""
) -> list[int]:
    found = choose(rows, limits, kept_bytes=kept_bytes, begun_upto=begun_upto)
    assert found == rows[: len(found)]
    return [int(one.partition[1:]) for one in found]


def test_without_a_setting_all_is_kept() -> None:
    assert chosen(ROWS, NEVER) == []


def test_what_was_applied_before_the_time_goes() -> None:
    assert chosen([row(1), row(2, age_s=60), row(3, age_s=59.9), row(4)], AGE) == [1, 2]


def test_the_newest_bytes_are_kept_whole() -> None:
    assert chosen(ROWS, SIZE) == [1, 2]
    assert chosen(ROWS, SIZE, kept_bytes=45) == [1, 2, 3]
    assert chosen(ROWS, SIZE, kept_bytes=24) == []


def test_what_one_of_two_settings_keeps_is_kept() -> None:
    both = Limits(age_s=60, size_bytes=15)
    assert chosen(ROWS, both) == [1, 2]
    assert chosen([row(1), row(2, age_s=1), row(3), row(4)], both) == [1]


@pytest.mark.parametrize("limits", [AGE, SIZE])
def test_what_is_not_done_keeps_all_after_it(limits: Limits) -> None:
    assert chosen([row(1), row(2, done=False), row(3), row(4)], limits) == [1]
    assert chosen([row(1, done=False), *ROWS[1:]], limits) == []


@pytest.mark.parametrize("limits", [NEVER, AGE, SIZE])
def test_what_was_begun_is_finished_whatever_the_settings_say(limits: Limits) -> None:
    fresh = [row(n, age_s=0) for n in (1, 2, 3)]
    assert chosen(fresh, limits, kept_bytes=0, begun_upto="p2") == [1, 2]
    assert chosen([row(1), row(2, done=False)], NEVER, begun_upto="p2") == [1]
