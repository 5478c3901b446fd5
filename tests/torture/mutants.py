"""Planted bugs, each of which a row has to catch: `python3 run.py torture --mutants`.

A mutant is an exact replacement of text, made in a copy of the source which the processes of a
trial run; nothing in `src/` knows of it. Before its rows, each mutant does a calm trial, without
any fault: one that can't even do that is broken, not caught (a few bugs show without a fault, and
say so).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from support.pipeline import ROLES
from torture.driver import Driver, Server
from torture.planted import MUTANTS, Mutant
from torture.rows import Row, all_rows
from torture.trial import Trial

ROOT = Path(__file__).parents[2]
CALM_EVENTS = 3_000


class MutantError(Exception):
    """A mutant can't be planted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a mutant; without `row` it survived."""

    mutant: str
    row: str = ""
    trial: int = -1
    violation: str = ""
    trials: int = 0
    seconds: float = 0.0

    @property
    def caught(self) -> bool:
        return bool(self.row)


def plant(mutant: Mutant, directory: Path) -> Path:
    """Copy the source to `directory`, change the copy, and return the folder to import from.

    Raises:
        MutantError: a text to be replaced is not there exactly once.
    """
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", directory / "src", ignore=ignored)
    shutil.copytree(ROOT / "sql", directory / "sql")
    for change in mutant.changes:
        path = directory / "src" / "etl" / change.path
        text = path.read_text()
        found = text.count(change.old)
        if found != 1:
            raise MutantError(
                f"mutant {mutant.name}: {change.path} holds {change.old.strip()!r} {found} times"
            )
        path.write_text(text.replace(change.old, change.new))
    _check_imported(directory / "src")
    return directory / "src"


def _check_imported(source: Path) -> None:
    """Check that a process finds the copy, and not the installed source."""
    command = [sys.executable, "-c", "import etl; print(etl.__file__)"]
    env = {**os.environ, "PYTHONPATH": str(source)}
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    if not Path(found.stdout.strip()).is_relative_to(source):
        raise MutantError(f"processes import {found.stdout.strip()}, not the copy in {source}")


async def _calm(trial: Trial) -> None:
    """A run in which nothing goes wrong."""
    truth = trial.truth(events=CALM_EVENTS)
    async with trial.world(truth) as world:
        await world.run.start(*ROLES)
        await world.settle()


CALM = Row(name="calm", run=_calm)


async def hunt(mutant: Mutant, server: Server, *, seed: int) -> Outcome:
    """Do trials until one catches the mutant, or none is left."""
    began = time.monotonic()
    rows = {row.name: row for row in all_rows()}
    unknown = [name for name in mutant.rows if name not in rows]
    if unknown:
        raise MutantError(f"mutant {mutant.name}: no such row: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="etl-mutant-") as temporary:
        env = {"PYTHONPATH": str(plant(mutant, Path(temporary)))}
        driver = Driver(server, seed=seed, keep=Path(temporary, "kept"), env=env)
        if mutant.calm:
            calm = await driver.run_row(CALM, trials=1)
            if calm.violations:
                raise MutantError(f"mutant {mutant.name} fails without a fault: {calm.violations}")
        trials = 0
        for name in (one for one in mutant.rows if not rows[one].missing()):
            for number in range(mutant.trials):
                result = await driver.run_row(rows[name], trials=1, first=number)
                trials += 1
                if result.violations:
                    return Outcome(
                        mutant=mutant.name,
                        row=name,
                        trial=number,
                        violation=result.violations[0].partition(": ")[2].partition("\n")[0],
                        trials=trials,
                        seconds=round(time.monotonic() - began, 1),
                    )
    return Outcome(mutant=mutant.name, trials=trials, seconds=round(time.monotonic() - began, 1))


def line(outcome: Outcome) -> str:
    """Return one outcome for people."""
    if not outcome.caught:
        return f"{outcome.mutant:22} SURVIVED {outcome.trials} trials ({outcome.seconds:.0f} s)"
    how = f"caught by {outcome.row} at trial {outcome.trial}"
    return f"{outcome.mutant:22} {how:42} {outcome.seconds:4.0f} s  {outcome.violation[:120]}"


def as_json(outcomes: list[Outcome]) -> str:
    """Return the outcomes for programs."""
    return json.dumps([asdict(outcome) for outcome in outcomes], indent=1)


__all__ = ["MUTANTS", "Mutant", "MutantError", "Outcome", "as_json", "hunt", "line", "plant"]
