"""The short form of the torture harness: each of its short rows, one trial.

The long form is `python3 run.py torture --long`; what a machine lacks is a skip with a reason.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from torture.driver import Driver, Server
from torture.rows import Row, all_rows

TRIES = 3


@pytest.mark.asyncio
@pytest.mark.parametrize("row", [row for row in all_rows() if row.short], ids=lambda row: row.name)
async def test_no_law_is_broken(row: Row, tmp_path: Path, postgres_url: str) -> None:
    # Random, but the same again with the seed that pytest prints at its start (-p randomly_seed).
    seed = random.getrandbits(32)
    print(f"python3 run.py torture --seed {seed} --row {row.name}")  # noqa: T201  how to see it again
    driver = Driver(Server(postgres_url), seed=seed, keep=tmp_path / "kept")
    for number in range(TRIES):
        result = await driver.run_row(row, trials=1, first=number)
        if result.skipped:
            pytest.skip(f"torture row {row.name} is not run: {result.skipped}")
        assert result.violations == [], f"seed {seed}, trial {number}"
        if result.trials:
            return
    pytest.fail(f"{TRIES} trials in a row were vacuous, seed {seed}")
