"""Runs trials, and tells what became of them.

The seed of a trial follows from the seed of the run, the row and the number of the trial, so any
trial can be done again alone: `--seed S --row NAME --first I --trials 1`.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
import time
import traceback
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from etl.sink.embedded import EmbeddedPostgres
from torture.rows import Row
from torture.trial import Trial, Vacuous, remove

TRIAL_TIMEOUT_S = 300.0


@dataclass(slots=True, kw_only=True)
class Result:
    """What became of the trials of one row."""

    row: str
    seed: int
    trials: int = 0
    vacuous: int = 0
    violations: list[str] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def bound(self) -> str:
        """The 95 % bound of the rate of violations: 3/n where there was none in n trials."""
        if self.violations or not self.trials:
            return "-"
        return f"{min(1.0, 3 / self.trials):.3f}"


class Server:
    """A PostgreSQL of the harness's own; each trial gets a database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._made: list[str] = []

    async def new_database(self) -> str:
        name = f"trial_{uuid.uuid4().hex}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
        self._made.append(name)
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    async def drop_all(self) -> None:
        while self._made:
            await self._execute(f"DROP DATABASE IF EXISTS {self._made.pop()} WITH (FORCE)")

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@asynccontextmanager
async def embedded_server() -> AsyncIterator[Server]:
    directory = Path(tempfile.mkdtemp(prefix="etl-torture-pg-"))
    postgres = EmbeddedPostgres(directory / "postgres")
    try:
        yield Server(await postgres.ensure_running())
    finally:
        postgres.release()
        shutil.rmtree(directory, ignore_errors=True)


def trial_seed(seed: int, row: str, number: int) -> int:
    return random.Random(f"{seed}/{row}/{number}").getrandbits(32)  # noqa: S311  no secret


class Driver:
    """Does trials one after the other, and keeps the directory of each that failed."""

    def __init__(
        self, server: Server, *, seed: int, keep: Path, env: dict[str, str] | None = None
    ) -> None:
        self._server = server
        self._seed = seed
        self._keep = keep
        self._env = env or {}

    async def run_row(
        self, row: Row, *, trials: int, first: int = 0, until: float = float("inf")
    ) -> Result:
        """Do so many trials of a row, or as many as there is time for; but one at least."""
        result = Result(row=row.name, seed=self._seed, skipped=row.missing())
        if result.skipped:
            return result
        began = time.monotonic()
        for number in range(first, first + trials):
            if number > first and time.monotonic() > until:
                break
            await self._one(row, number, result)
        result.seconds = round(time.monotonic() - began, 1)
        return result

    async def _one(self, row: Row, number: int, result: Result) -> None:
        directory = Path(tempfile.mkdtemp(prefix=f"etl-torture-{row.name}-"))
        trial = Trial(
            seed=trial_seed(self._seed, row.name, number),
            directory=directory,
            postgres_url=self._server.url,
            new_database=self._server.new_database,
            env=self._env,
        )
        try:
            async with asyncio.timeout(TRIAL_TIMEOUT_S):
                await row.run(trial)
        except Vacuous:
            result.vacuous += 1
        except Exception as error:  # noqa: BLE001  whatever goes wrong in a trial is its result
            result.trials += 1
            result.violations.append(f"trial {number}: {type(error).__name__}: {error}")
            self._keep_directory(directory, row, number, error)
        else:
            result.trials += 1
        finally:
            result.counts += trial.counts
            remove(directory)
            await self._server.drop_all()

    def _keep_directory(self, directory: Path, row: Row, number: int, error: Exception) -> None:
        kept = self._keep / f"{row.name}-{self._seed}-{number}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(directory, kept, ignore_dangling_symlinks=True)
        (kept / "violation.txt").write_text("".join(traceback.format_exception(error)))


def table(results: list[Result]) -> str:
    """Return the results for people."""
    columns = (
        f"{'row':28}",
        f"{'trials':>6}",
        "vacuous",
        "violations",
        f"{'95 %':>6}",
        f"{'s':>6}",
    )
    lines = [" ".join(columns) + "  did"]
    for one in results:
        did = one.skipped or ", ".join(f"{n} {what}" for what, n in sorted(one.counts.items()))
        lines.append(
            f"{one.row:28} {one.trials:6} {one.vacuous:7} {len(one.violations):10} "
            f"{one.bound:>6} {one.seconds:6.0f}  {did}"
        )
        lines += [f"    {violation}" for violation in one.violations]
    return "\n".join(lines)


def as_json(results: list[Result]) -> str:
    """Return the results for programs."""
    # `asdict` would rebuild the counter from pairs, and count the pairs.
    return json.dumps([{**vars_of(one), "counts": dict(one.counts)} for one in results], indent=1)


def vars_of(result: Result) -> dict[str, object]:
    """Return the fields of a result by name."""
    return {one.name: getattr(result, one.name) for one in fields(result)}
