"""Every row of the benchmark, with next to no events: what it counts, not how fast it is."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from benchmarks.bench import Bench, Options, opened
from benchmarks.bulk import EVENTS, MONEY, Workload
from benchmarks.results import Result, as_json
from benchmarks.rows import all_families

ROOT = Path(__file__).parents[2]
SMALL = Options(runs=1, scale=0.0005)
# The other rows that send a file differ from these in the file alone; `users` comes with `money`.
ROWS = ("money", "single", "ack", "fresh", "read")
FOUND = ["floor", "users", "money", "single", "ack", "fresh", "read"]


async def lie_about(bench: Bench, load: Workload) -> None:
    """Make the truth about a file wrong by a millionth of one user."""
    source = await bench.source(load.name, EVENTS, *load.options)
    path = source.path.with_name(f"{source.path.name}.truth.json")
    truth = json.loads(path.read_bytes())
    user, total = truth["totals"].popitem()
    truth["totals"][user] = str(Decimal(total) + Decimal("0.000001"))
    path.write_text(json.dumps(truth))


@pytest.mark.asyncio
async def test_every_row_is_exact_and_a_wrong_total_is_told() -> None:
    found: list[Result] = []
    async with opened(SMALL) as bench:
        await lie_about(bench, MONEY)
        for family in all_families():
            if names := [row.name for row in family.rows if row.name in ROWS]:
                found += await family.measure(bench, names)
    faults = {result.row: result.faults for result in found if result.faults}
    assert set(faults) == {"floor", "money"}
    assert all("1 of " in text and "wrong total" in text for (text,) in faults.values())
    told = json.loads(as_json({}, found))
    assert [row["name"] for row in told["rows"]] == FOUND
    assert all(row["figures"] for row in told["rows"])
    assert all(row["bars"] for row in told["rows"] if row["name"] != "floor")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_unknown_row_is_refused() -> None:
    ran = run("sed")
    assert ran.returncode == 2
    assert "no such row: sed" in ran.stderr


def test_results_of_two_runs_are_compared(tmp_path: Path) -> None:
    result = Result(row="seed", work="w")
    result.add(seconds=1.0)
    path = tmp_path / "a.json"
    path.write_text(as_json({}, [result]))
    assert run("--compare", str(path), str(path)).stdout.splitlines()[1].endswith("1.000")
