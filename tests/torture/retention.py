"""Row: a processor that deletes partitions, killed at every system call it makes.

It finds a log of several partitions, applies it, and deletes all but the newest two. Killed at any
call, another goes on: totals are exact, no file is left over and none is gone without its row.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from support.database import prepared
from support.partitions import Log
from support.retention import LINES, Applied
from torture import laws
from torture.rows import Row
from torture.traced import CALLS, EMPTY, ONE_THREAD, Strike
from torture.trial import Trial, Vacuous

PARTITIONS = 6
POINTS_MAX = 400
DELETED = "SELECT coalesce(sum(lines), 0)::bigint FROM partition_offsets WHERE deleted"


@dataclass(slots=True, kw_only=True)
class Place:
    """A log to be copied for each point, and the database that is emptied for it."""

    trial: Trial
    made: Applied

    async def killed(self, strike: Strike) -> bool:
        """Kill at one call, start again, check; say whether it came to the call."""
        data = self.trial.directory / f"{strike.call}-{strike.number}"
        shutil.copytree(self.made.directory, data)
        await self.made.database.connection.execute(EMPTY)
        trace = ("strace", "-D", "-f", "-qq", "-o", "/dev/null", *strike.options(data))
        async with self._processor(data, *trace) as process:
            await self._deleted_or_ended(process)
        struck = process.returncode == -signal.SIGKILL
        laws.require(struck or not process.returncode, "clean", f"exit code {process.returncode}")
        async with self._processor(data) as process:
            await _works(process)
            await self._deleted_or_ended(process)
        laws.require(not process.returncode, "clean", f"exit code {process.returncode}")
        applied = replace(self.made, directory=data)
        await applied.require_laws()
        applied.mirrored()
        shutil.rmtree(data)
        return struck

    async def _deleted_or_ended(self, process: asyncio.subprocess.Process) -> None:
        ended = asyncio.create_task(process.wait())
        wanted = (PARTITIONS - 2) * LINES
        deleted = asyncio.create_task(self.made.database.until(DELETED, wanted))
        await asyncio.wait({ended, deleted}, return_when=asyncio.FIRST_COMPLETED)
        if deleted.done():
            await deleted
        for task in (ended, deleted):
            task.cancel()
        await asyncio.gather(ended, deleted, return_exceptions=True)

    @asynccontextmanager
    async def _processor(
        self, data: Path, *before: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """A processor that keeps no more than it must; asked to stop at the end."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith("ETL_")}
        paths = [str(ONE_THREAD)] if before else []
        process = await asyncio.create_subprocess_exec(
            *before,
            sys.executable,
            "-m",
            "etl.processor",
            env={
                **kept,
                "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]),
                "PYTHONDONTWRITEBYTECODE": "1",
                "DATABASE_URL": self.made.url,
                "ETL_DATA_DIR": str(data),
                "ETL_RETENTION_BYTES": "1",
            },
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()


async def _works(process: asyncio.subprocess.Process) -> None:
    """Wait until a processor has said that it works: before, it can't hear a stop."""
    if process.stderr is not None:
        async for line in process.stderr:
            if b" working " in line:
                return


async def sweep(trial: Trial) -> None:
    """Kill at the first call of each name, the second, and so on, until none is left."""
    url, template = await trial.new_database(), trial.directory / "template"
    template.mkdir(mode=0o700)
    async with prepared(url) as database:
        log = Log(template)
        made = Applied(directory=template, url=url, database=database, log=log, totals={})
        made.append(PARTITIONS)
        log.close()
        place = Place(trial=trial, made=made)
        for call in CALLS:
            strike = Strike(call=call, number=1)
            while await place.killed(strike):
                trial.count(f"kills at {call}")
                strike = replace(strike, number=strike.number + 1)
                if trial.counts.total() > POINTS_MAX:
                    raise AssertionError(f"more than {POINTS_MAX} calls, the last was {strike}")
    if not trial.counts["kills at unlink"]:
        raise Vacuous("nothing was deleted")


ROWS = [Row(name="sweep-retention", run=sweep, trials=1, needs=("strace",))]
