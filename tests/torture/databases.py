"""Rows: another database beside a kept log, an older copy or a new and empty one."""

from __future__ import annotations

import io

from support.database import connected, prepared
from torture import laws
from torture.flow import flowing
from torture.rows import Row
from torture.trial import Trial, World

EVENTS = 20_000
COPIED = ("users_revenue", "partition_offsets", "dead_letters", "deferred_revenue")


async def _copy(source: str, target: str) -> int:
    """Copy all tables as one snapshot has them, as a dump does; return the lines applied."""
    async with connected(source) as old, prepared(target) as new:
        async with old.transaction(isolation="repeatable_read", readonly=True):
            for table in COPIED:
                rows = io.BytesIO()
                await old.copy_from_table(table, output=rows, format="binary")
                rows.seek(0)
                await new.connection.copy_to_table(table, source=rows, format="binary")
        return await new.applied()


async def _move(world: World, url: str) -> None:
    """Stop what uses the database, and start it at another one."""
    users = world.trial.chance.choice((("processor",), ("server", "processor")))
    codes = await world.run.stop(*users)
    laws.require(set(codes.values()) == {0}, "clean", f"exit codes {codes}")
    world.run.set(DATABASE_URL=url)
    await world.run.start(*users)


async def restored(trial: Trial) -> None:
    """A copy is made while events flow, and takes the place of the database later on."""
    copy = await trial.new_database()
    async with flowing(trial, events=EVENTS) as world:
        async with world.watched():
            await world.until_part(trial.chance.uniform(0.1, 0.4))
            copied = await _copy(world.url, copy)
            await world.until_part(trial.chance.uniform(0.5, 0.8))
            await world.require_midway()
        lost = await world.applied() - copied
        await _move(world, copy)
        async with world.looking_at(copy), world.watched():
            trial.count("restores")
            trial.count("events applied again", lost)
            await world.settle()


async def replaced(trial: Trial) -> None:
    """A new and empty database takes the place of the old one: the whole log is replayed."""
    new = await trial.new_database()
    async with flowing(trial, events=EVENTS) as world:
        async with world.watched():
            await world.until_part(trial.chance.uniform(0.2, 0.8))
            await world.require_midway()
        lost = await world.applied()
        await _move(world, new)
        async with world.looking_at(new), world.watched():
            trial.count("new databases")
            trial.count("events applied again", lost)
            await world.settle()


ROWS = [
    Row(name="database-restored", run=restored, trials=10),
    Row(name="database-new", run=replaced, trials=10),
]
