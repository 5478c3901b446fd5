"""Fuzzed requests against a real server process; `python3 run.py fuzz` sends more of them."""

from __future__ import annotations

import random
from pathlib import Path

from fuzz import campaign

REQUESTS = 6_000


def test_no_request_breaks_a_law(tmp_path: Path) -> None:
    # Random, but the same again with the seed that pytest prints at its start (-p randomly_seed).
    seed = random.getrandbits(32)
    print(f"python3 run.py fuzz --lines 0 --requests {REQUESTS} --seed {seed}")  # noqa: T201
    result = campaign.run(tmp_path, requests=REQUESTS, seed=seed)
    assert result.requests >= REQUESTS
    assert result.acknowledged.lines > REQUESTS // 10
    assert {"200", "201", "400", "401", "404", "405", "415", "503"} <= result.statuses.keys()
    assert result.kinds["raw"] > REQUESTS // 20
