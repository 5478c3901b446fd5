"""Rows: others in the database, who lock, update, refuse, and take all connections."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import AsyncExitStack

import asyncpg

from support.database import connected
from torture import laws
from torture.flow import flowing
from torture.http_proxy import pass_time
from torture.rows import Row
from torture.trial import Trial, Vacuous, World

EVENTS = 10_000
RIVALS = 3
RIVAL_USERS = 5
RIVALS_S = 6.0
AWAY_S = (1.0, 3.0)

TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name LIKE 'etl %' AND datname = current_database()
"""
DEFERRED = "SELECT count(*) FROM deferred_revenue"
LOCK = "SELECT FROM users_revenue WHERE user_id = $1 FOR UPDATE"
NEW_KEY = "INSERT INTO users_revenue (user_id, revenue) VALUES ($1, 12345)"
# Locks a row and makes a new version of it, but changes no total.
TOUCH = "UPDATE users_revenue SET revenue = revenue + 0 WHERE user_id = $1"
REFUSALS = (
    (
        "ALTER TABLE users_revenue ADD CONSTRAINT refused CHECK (user_id <> 'user7') NOT VALID",
        "ALTER TABLE users_revenue DROP CONSTRAINT refused",
    ),
    (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'not this one'; END $$; "
        "CREATE CONSTRAINT TRIGGER refused AFTER INSERT OR UPDATE ON users_revenue "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.user_id = 'user7') "
        "EXECUTE FUNCTION refuse()",
        "DROP TRIGGER refused ON users_revenue",
    ),
)


async def _require_deferred(world: World, *users: str) -> None:
    """When all is drained these users wait, and nobody else; the true total is exact."""
    await world.drained()
    deferred = await world.database.deferred()
    laws.require(set(deferred) == set(users), "deferred", f"{sorted(deferred)} wait, not {users}")
    laws.compare_totals("final", await world.database.true_totals(), laws.totals(world.truth.good))
    world.trial.count("users deferred", len(users))


def _user(line: bytes) -> str:
    return str(json.loads(line)["userId"])


async def locked(trial: Trial) -> None:
    """One row locked by someone else all the time, and one key that is never committed."""
    async with (
        flowing(trial, events=EVENTS, users=2_000) as world,
        world.watched(),
        connected(world.url) as locker,
        connected(world.url) as inserter,
    ):
        users = list(map(_user, world.truth.good))
        latest = list(dict.fromkeys(users))[-1]
        inserting = inserter.transaction()
        await inserting.start()
        await inserter.execute(NEW_KEY, latest)
        known = await world.database.totals()
        row = next(user for user in reversed(users) if user in known)
        locking = locker.transaction()
        await locking.start()
        await locker.execute(LOCK, row)
        await world.require_midway()
        await _require_deferred(world, row, latest)
        await locking.rollback()
        await inserting.rollback()
        await world.database.until(DEFERRED, 0)
        await world.settle()


async def refused(trial: Trial) -> None:
    """A constraint refuses one user; then it is dropped, and all arrives."""
    add, drop = trial.chance.choice(REFUSALS)
    async with flowing(trial, events=EVENTS) as world, world.watched():
        async with connected(world.url) as admin:
            await world.until_part(trial.chance.uniform(0.1, 0.7))
            await admin.execute(add)
            await world.require_midway()
            await _require_deferred(world, "user7")
            await admin.execute(drop)
        await world.database.until(DEFERRED, 0)
        await world.settle()


async def _rival(url: str, chance: random.Random, lost: Counter[str]) -> None:
    """Touch random users in random order, one after the other, for as long as it is let."""
    async with connected(url) as connection:
        while True:
            try:
                async with connection.transaction():
                    for user in chance.sample(range(50), RIVAL_USERS):
                        await connection.execute(TOUCH, f"user{user}")
                        await pass_time(chance.uniform(0, 0.02))
            except asyncpg.DeadlockDetectedError:
                lost["deadlocks"] += 1
            except asyncpg.SerializationError:
                lost["serialization failures of rivals"] += 1


async def _with_rivals(trial: Trial, what: str, seen: str, *settings: str) -> None:
    url = await trial.new_database()
    async with connected(url) as admin:
        name = await admin.fetchval("SELECT current_database()")
        for setting in settings:
            await admin.execute(f"ALTER DATABASE {name} SET {setting}")
    async with flowing(trial, events=EVENTS, url=url) as world, world.watched():
        rivals = [
            asyncio.create_task(_rival(url, random.Random(trial.chance.random()), trial.counts))  # noqa: S311  no secret
            for _ in range(RIVALS)
        ]
        await pass_time(RIVALS_S)
        for rival in rivals:
            rival.cancel()
        await asyncio.gather(*rivals, return_exceptions=True)
        trial.count(what, sum(seen in line for line in world.run.log_of("processor")))
        if not trial.counts[what]:
            raise Vacuous(f"no {what}")
        await world.database.until(DEFERRED, 0)
        await world.settle()


async def deadlocks(trial: Trial) -> None:
    """Rivals lock the same users in another order."""
    await _with_rivals(trial, "deadlocks", "deadlock detected", "deadlock_timeout = '5ms'")


async def serialization(trial: Trial) -> None:
    """Rivals update the same users where transactions see one snapshot only."""
    level = trial.chance.choice(("repeatable read", "serializable"))
    await _with_rivals(
        trial,
        "serialization failures",
        "could not serialize",
        f"default_transaction_isolation = '{level}'",
    )


async def read_only(trial: Trial) -> None:
    """The database takes no writes for a while."""
    async with flowing(trial, events=EVENTS) as world, world.watched():
        async with connected(world.url) as admin:
            name = await admin.fetchval("SELECT current_database()")
            await world.until_part(trial.chance.uniform(0.1, 0.7))
            await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            await admin.fetchval(TERMINATE)
            await world.require_midway()
            await world.run.roles["processor"].said("read-only")
            await pass_time(trial.chance.uniform(*AWAY_S))
            await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        trial.count("read-only times")
        await world.settle()


async def _take_all(stack: AsyncExitStack, url: str) -> None:
    while True:
        try:
            await stack.enter_async_context(connected(url))
        except asyncpg.TooManyConnectionsError:
            return


async def crowded(trial: Trial) -> None:
    """Somebody else holds every connection that PostgreSQL has."""
    async with flowing(trial, events=EVENTS) as world, world.watched():
        async with connected(world.url) as admin, AsyncExitStack() as hogs:
            await world.until_part(trial.chance.uniform(0.1, 0.7))
            await world.require_midway()
            said = asyncio.create_task(world.run.roles["processor"].said("too many clients"))
            while not said.done():
                await admin.fetchval(TERMINATE)
                await _take_all(hogs, trial.postgres_url)
                await pass_time(0.05)
            await said
            await pass_time(trial.chance.uniform(*AWAY_S))
        trial.count("crowds")
        await world.settle()


ROWS = [
    Row(name="row-locked", run=locked, trials=5),
    Row(name="refused-values", run=refused, trials=6),
    Row(name="deadlocks", run=deadlocks, trials=5),
    Row(name="serialization-failures", run=serialization, trials=5),
    Row(name="read-only", run=read_only, trials=5),
    Row(name="too-many-connections", run=crowded, trials=5),
]
