"""The files of events, with the truth about their totals, made by `scripts/generate_events.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# One file for all rounds: the same arguments give the same bytes.
SEED = 20260101
LINES_PER_ROUND = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file of valid events."""

    path: Path
    events: int

    def totals(self) -> dict[str, Decimal]:
        """Return every user's revenue, as the generator counted it."""
        truth = json.loads(self.path.with_name(f"{self.path.name}.truth.json").read_bytes())
        return {user: Decimal(total) for user, total in truth["totals"].items()}


def make(directory: Path, name: str, *, events: int, options: tuple[str, ...]) -> Source:
    """Return the source of this name; written once, and on disk."""
    path = directory / f"{name}.jsonl"
    rounds = max(1, events // LINES_PER_ROUND)
    if not path.exists():
        command = [sys.executable, str(ROOT / "scripts" / "generate_events.py"), str(rounds)]
        chance = ["--seed", str(SEED)] if options else []
        subprocess.run(
            [*command, *options, *chance, "--output", str(path)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)  # not during a run
        os.close(fd)
    return Source(path=path, events=rounds * LINES_PER_ROUND)


def expected(applied: Mapping[Source, int]) -> dict[str, Decimal]:
    """Return every user's revenue after each source was applied so often."""
    found: dict[str, Decimal] = {}
    for source, times in applied.items():
        if times:
            for user, total in source.totals().items():
                found[user] = found.get(user, Decimal(0)) + total * times
    return found


def differences(wanted: Mapping[str, Decimal], found: Mapping[str, Decimal]) -> list[str]:
    """Say where totals are not what they should be; nothing where all are exact."""
    users = wanted.keys() | found.keys()
    wrong = [user for user in users if wanted.get(user) != found.get(user)]
    if not wrong:
        return []
    user = min(wrong)
    return [
        f"{len(wrong)} of {len(users)} users have a wrong total; "
        f"{user} has {found.get(user)}, not {wanted.get(user)}"
    ]
