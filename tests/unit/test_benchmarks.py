"""What a benchmark makes of its samples: figures, verdicts, comparisons."""

from __future__ import annotations

import json
import math
import os
from decimal import Decimal
from pathlib import Path

import pytest

from benchmarks import usage
from benchmarks.live import lags_ms
from benchmarks.results import Bar, CompareError, Result, as_json, compare, percentile, table
from benchmarks.rows import all_families
from benchmarks.sources import differences


def test_percentile_is_a_sample_and_the_nearest_rank() -> None:
    samples = [float(number) for number in range(100, 0, -1)]
    assert [percentile(samples, percent) for percent in (50, 99, 100)] == [50, 99, 100]
    assert percentile([7.0], 99) == 7.0
    assert math.isnan(percentile([], 50))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"a": "1"}, {"a": "1.000001"}),
        ({"a": "1"}, {}),
        ({}, {"a": "1"}),
        ({}, {"a": "0"}),
    ],
)
def test_any_difference_of_totals_is_seen(wanted: dict[str, str], found: dict[str, str]) -> None:
    amounts = [{user: Decimal(text) for user, text in side.items()} for side in (wanted, found)]
    (fault,) = differences(*amounts)
    assert "1 of 1 users have a wrong total; a has" in fault


def test_equal_totals_are_equal_whatever_their_zeros() -> None:
    assert differences({"a": Decimal("1.5")}, {"a": Decimal("1.50")}) == []


def test_event_counts_as_visible_at_the_first_look_that_saw_it() -> None:
    seen = [(0.0, 0), (0.25, 1), (0.5, 3)]
    assert lags_ms([0.125, 0.375, 0.375], seen) == [125.0, 125.0, 125.0]


def test_event_seen_before_its_answer_has_no_lag() -> None:
    assert lags_ms([1.0], [(0.0, 0), (0.5, 1)]) == [0.0]


def test_bar_is_met_at_its_limit_and_not_past_it() -> None:
    assert Bar(text="s", value=1.5, limit=1.5).met
    assert not Bar(text="s", value=1.6, limit=1.5).met
    assert Bar(text="s", value=0.6, limit=0.6, at_least=True).met
    assert not Bar(text="s", value=0.5, limit=0.6, at_least=True).met


def test_bar_of_nothing_is_missed() -> None:
    result = Result(row="seed", work="nothing")
    assert not Bar(text="s", value=result.median("seconds"), limit=1.5).met


def test_row_with_a_fault_is_shown_as_failed() -> None:
    good, bad = Result(row="a", work="w"), Result(row="b", work="w", faults=["wrong total"])
    assert "a: w: exact" in table([good])
    assert "b: w: FAILED" in table([bad])
    assert "FAULT wrong total" in table([bad])


def written(path: Path, seconds: float, faults: list[str]) -> Path:
    result = Result(row="seed", work="w", faults=faults)
    result.add(seconds=seconds)
    result.bars.append(Bar(text="s", value=float("nan"), limit=1))
    path.write_text(as_json({"cpu": "c"}, [result]))
    return path


def test_two_results_are_compared_by_their_medians(tmp_path: Path) -> None:
    before = written(tmp_path / "before.json", 2.0, [])
    after = written(tmp_path / "after.json", 1.0, ["wrong total"])
    lines = compare(before, after).splitlines()
    assert lines[1].split() == ["seed", "seconds", "2", "1", "0.500"]
    assert lines[2:] == ["seed     FAILED after"]


def test_json_is_strict_where_a_bar_has_no_value(tmp_path: Path) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    path = written(tmp_path / "a.json", 1.0, [])
    (row,) = json.loads(path.read_text(), parse_constant=refuse)["rows"]
    assert row["bars"] == [{"text": "s", "value": None, "limit": 1, "met": False}]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}'])
def test_other_files_are_not_compared(tmp_path: Path, text: str) -> None:
    other = tmp_path / "other.json"
    other.write_text(text)
    with pytest.raises(CompareError, match=r"other\.json"):
        compare(other, other)


def test_own_use_is_measured() -> None:
    assert usage.cpu_s(os.getpid()) > 0
    assert usage.peak_mb(os.getpid()) > 1
    assert os.getpid() in usage.children(os.getppid())


def test_process_that_is_gone_has_used_nothing() -> None:
    gone = 2**22 + 1  # above any pid
    assert (usage.cpu_s(gone), usage.peak_mb(gone)) == (0, 0)


def test_row_names_are_given_once() -> None:
    names = [row.name for family in all_families() for row in family.rows]
    assert len(names) == len(set(names))
