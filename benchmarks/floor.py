"""The yardstick: DuckDB reads a file, sums it, and upserts the sums into PostgreSQL.

No server, no log, no check of what an event is; only the work that can't be left out. The upsert
is the pipeline's own statement, in one transaction. Amounts are exact decimals, whatever the file
holds.

    python -m benchmarks.floor FILE DSN THREADS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import asyncpg
import duckdb

from benchmarks.worker import say
from etl.sink.statements import UPSERT_USERS

USERS_PER_UPSERT = 100_000
# Ordered, as the pipeline's own chunks are; sums as text, the form in which amounts travel.
SUM = """
    SELECT "userId", sum(CASE name WHEN 'add_revenue' THEN value ELSE -value END)::VARCHAR
    FROM read_json(?, format = 'newline_delimited',
                   columns = {userId: 'VARCHAR', name: 'VARCHAR', value: 'DECIMAL(38,6)'})
    GROUP BY "userId"
    ORDER BY "userId"
"""


async def apply(path: str, connection: asyncpg.Connection, threads: int) -> dict[str, float]:
    """Do it once; return the seconds until the sums were there, and until the commit."""
    began = time.perf_counter()
    with duckdb.connect(config={"threads": threads}) as columns:
        found = columns.execute(SUM, [path])
        async with connection.transaction():
            rows = found.fetchmany(USERS_PER_UPSERT)
            summed = time.perf_counter() - began
            while rows:
                users, amounts = zip(*rows, strict=True)
                await connection.execute(UPSERT_USERS, users, amounts)
                rows = found.fetchmany(USERS_PER_UPSERT)
    return {"summed_s": summed, "seconds": time.perf_counter() - began}


async def main(path: str, dsn: str, threads: str) -> None:
    """Get ready, wait for the word, do it, report."""
    connection = await asyncpg.connect(dsn)
    say("ready")
    sys.stdin.readline()
    say(json.dumps(await apply(path, connection, int(threads))))
    sys.stdin.readline()  # stays, so that its memory can be read
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
