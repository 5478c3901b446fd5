"""The schema: the numbered files of `sql/`, each applied once.

Invariants:

* All files that are missing are applied in one transaction, together with what is taken over from
  the original program: a database has all of it or nothing.
* One process at a time does so, under an advisory lock.
* No table is ever dropped, and no revenue changed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from etl.runtime.errors import EtlError
from etl.runtime.lifecycle import fields
from etl.sink import offsets, statements
from etl.sink.faults import database_faults

logger = logging.getLogger(__name__)

_FILE_NAME = re.compile(r"([0-9]{4})_\w+\.sql")
# In an installed package, and in the checkout.
_DIRECTORIES = (
    Path(__file__).resolve().parents[1] / "sql",
    Path(__file__).resolve().parents[3] / "sql",
)

TakeOver = Callable[[], Awaitable[list[offsets.Offset] | None]]


class SchemaError(EtlError):
    """The schema in the database is not one this version can use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One file of `sql/`."""

    version: int
    path: Path


def steps() -> list[Step]:
    """Return the files, in order.

    Raises:
        SchemaError: they are not where they should be.
    """
    for directory in _DIRECTORIES:
        matches = [(_FILE_NAME.fullmatch(path.name), path) for path in directory.glob("*.sql")]
        found = [Step(version=int(m[1]), path=path) for m, path in matches if m is not None]
        if found:
            return sorted(found, key=lambda step: step.version)
    raise SchemaError(
        f"{_DIRECTORIES[0]} does not hold the schema", hint="install the project again"
    )


async def apply(connection: asyncpg.Connection, *, log_id: str, take_over: TakeOver) -> None:
    """Bring the schema up to date.

    `take_over` is asked once, where the original's table is found: how far the original was.

    Raises:
        DatabaseUnavailable: the database did not let us; nothing was changed.
        SchemaError: the schema is of a later version.
        EtlError: `take_over` refused; nothing was changed.
    """
    known = steps()
    with database_faults():
        if not _missing(known, await _versions(connection)):
            return
        async with connection.transaction():
            await connection.execute(statements.SCHEMA_LOCK_TIMEOUT)
            await connection.execute(statements.SCHEMA_LOCK)
            present = await _versions(connection)
            if not present:
                await _begin(connection, known, log_id=log_id, take_over=take_over)
            else:
                await _apply_steps(connection, _missing(known, present))


async def _begin(
    connection: asyncpg.Connection, known: list[Step], *, log_id: str, take_over: TakeOver
) -> None:
    original = await connection.fetchval(statements.TABLE_EXISTS, "users_revenue")
    await connection.execute(statements.SCHEMA_CREATE)
    await _apply_steps(connection, known)
    if not original:
        return
    users = await connection.fetchval(statements.ORIGINAL_USERS)
    found = await take_over()
    if found is None:
        logger.warning(
            "table users_revenue was there already, but no processor_offset.json: "
            "the whole log will be added to it",
            extra=fields(users=users),
        )
        return
    await offsets.add(connection, log_id, found)
    logger.info(
        "taken over from the original program",
        extra=fields(users=users, partitions=len(found), events=sum(o.line for o in found)),
    )


async def _apply_steps(connection: asyncpg.Connection, missing: list[Step]) -> None:
    for step in missing:
        await connection.execute(step.path.read_text())
        await connection.execute(statements.SCHEMA_APPLIED, step.version, step.path.name)
        logger.info("schema applied", extra=fields(file=step.path.name))


async def _versions(connection: asyncpg.Connection) -> set[int]:
    if not await connection.fetchval(statements.TABLE_EXISTS, "etl_schema_version"):
        return set()
    return {row["version"] for row in await connection.fetch(statements.SCHEMA_VERSIONS)}


def _missing(known: list[Step], present: set[int]) -> list[Step]:
    newest = known[-1].version
    if present and max(present) > newest:
        raise SchemaError(
            f"schema in the database has version {max(present)}, this version knows {newest}",
            hint="start the version of the program that made it",
        )
    return [step for step in known if step.version not in present]
