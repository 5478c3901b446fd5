"""Partition names sort in the order of writing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from etl.log.names import is_name, list_names, name_after, name_at
from support.logs import FIRST, SECOND, START_S


def test_a_name_is_utc_whatever_the_local_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert name_at(START_S) == FIRST
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("offset_s", "window"), [(0, "04"), (4.999, "04"), (5, "05"), (39.9, "11"), (-20, "00")]
)
def test_a_window_is_five_seconds(offset_s: float, window: str) -> None:
    assert name_at(START_S + offset_s).removesuffix(".jsonl")[-2:] == window


def test_the_window_after_the_last_of_a_year_is_the_first_of_the_next() -> None:
    assert name_after("server_events_261231235911.jsonl") == "server_events_270101000000.jsonl"
    assert name_after(FIRST) == SECOND


@pytest.mark.parametrize(
    "name",
    ["server_events_261123080912.jsonl", FIRST + ".17.torn", "server_events_.jsonl", "x" + FIRST],
)
def test_another_file_is_no_partition(name: str) -> None:
    assert not is_name(name)


def test_partitions_are_listed_oldest_first(tmp_path: Path) -> None:
    for name in (SECOND, FIRST, "log_id", FIRST + ".5.torn"):
        (tmp_path / name).touch()
    assert list_names(tmp_path) == [FIRST, SECOND]
