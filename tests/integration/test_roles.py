"""The roles of `sql/roles.sql`: with them all works, and nothing but what the two processes do."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio

from etl.sink.revenue import RevenueReader
from support.database import Database, connected, prepared
from support.hearing import hearing
from support.partitions import ORIGINAL_PARTITION, Log, event, random_events, write_original
from support.pipeline import ROLES, pipeline
from support.postgres import execute
from support.processing import processor, settings

pytestmark = pytest.mark.asyncio

SCRIPT = (Path(__file__).parents[2] / "sql/roles.sql").read_text(encoding="utf-8")
TABLES = (
    "users_revenue",
    "deferred_revenue",
    "partition_offsets",
    "dead_letters",
    "etl_schema_version",
)
# Their rows go when they were applied, or become one when their partitions were deleted.
SHRINKING = {"deferred_revenue", "partition_offsets"}
READ = "SELECT FROM {}"
UPDATE = "UPDATE {} SET {column} = DEFAULT"
CHANGES = ("INSERT INTO {} DEFAULT VALUES", UPDATE)
DELETE = "DELETE FROM {}"
REMOVALS = (
    "TRUNCATE {}",
    "DROP TABLE {}",
    "ALTER TABLE {} ADD COLUMN more int",
    "ALTER TABLE {} OWNER TO current_user",
    "CREATE INDEX ON {} ((1))",
)


class Roles:
    """Two roles with names of their own: roles belong to the whole server, not to a database."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        unique = uuid.uuid4().hex
        self.names = {"server": f"Server {unique}", "processor": f"processor_{unique}"}

    def url(self, process: str) -> str:
        """The database's address, for the role of a process."""
        parts = urlsplit(self._url)
        user = self.names[process].replace(" ", "%20")
        return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))

    async def grant(self, connection: asyncpg.Connection) -> None:
        """Run the script, as its head says."""
        for process, name in self.names.items():
            await connection.execute(f"SET etl.{process}_role = '{name}'")
        await connection.execute(SCRIPT)

    def drop(self) -> None:
        for name in self.names.values():
            execute(self._url, f'DROP OWNED BY "{name}"', f'DROP ROLE "{name}"')


@pytest.fixture
def roles(database_url: str) -> Iterator[Roles]:
    roles = Roles(database_url)
    yield roles
    roles.drop()


@pytest_asyncio.fixture
async def database(database_url: str, roles: Roles) -> AsyncIterator[Database]:
    async with prepared(database_url) as database:
        await roles.grant(database.connection)
        yield database


async def test_pipeline_works_with_a_role_for_each_process(
    database: Database, roles: Roles, tmp_path: Path
) -> None:
    lines, totals = random_events(8, count=2000, users=50)
    async with pipeline(tmp_path, roles.url("server")) as run:
        run.write_source(b"".join(lines))
        await run.start("server")
        run.set(DATABASE_URL=roles.url("processor"))
        await run.start("processor", "client")
        await database.until_applied(2000)
        await run.roles["client"].said("is finished")
        assert await database.totals() == totals
        assert await run.stop(*ROLES) == dict.fromkeys(ROLES, 0)
        assert run.faults() == []


async def test_locked_users_and_dead_letters_need_no_further_right(
    database: Database, database_url: str, roles: Roles, tmp_path: Path
) -> None:
    reader = RevenueReader(settings(tmp_path, roles.url("server")))
    write_original(tmp_path, [event("a", 1), b"bad\n"])
    log = Log(tmp_path)
    with hearing() as heard:
        async with processor(tmp_path, roles.url("processor")), connected(database_url) as other:
            await database.until_applied(2)
            async with other.transaction():
                await other.execute("SELECT FROM users_revenue WHERE user_id = 'a' FOR UPDATE")
                log.append([event("a", 2), event("b", 3)])
                await database.until_applied(4)
                assert await database.deferred() == {"a": 2}
                await reader.start()
                await heard.until("database answers")
                assert await reader.revenue("a") == 3
                assert await reader.ping()
            await database.until("SELECT count(*) FROM deferred_revenue", 0)
    await reader.close()
    log.close()
    assert await database.totals() == {"a": 3, "b": 3}
    assert await database.value("SELECT partition FROM dead_letters") == ORIGINAL_PARTITION


async def test_script_runs_again_and_takes_away_what_it_does_not_grant(
    database: Database, roles: Roles
) -> None:
    await database.connection.execute(
        f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{roles.names["server"]}"'
    )
    await roles.grant(database.connection)
    await assert_refused(roles.url("server"), "DELETE FROM users_revenue")


@pytest.mark.parametrize("table", TABLES)
async def test_server_can_only_read(database: Database, roles: Roles, table: str) -> None:
    column = await first_column(database, table)
    for statement in (*CHANGES, *REMOVALS, DELETE):
        await assert_refused(roles.url("server"), statement.format(table, column=column))


async def test_server_adds_no_revenue_by_the_routines_either(
    database: Database, roles: Roles
) -> None:
    for statement in (
        "SELECT upsert_user_revenue('a', 1)",
        "SELECT upsert_users_revenue('{a}', '{1}')",
    ):
        await assert_refused(roles.url("server"), statement)


@pytest.mark.parametrize("table", TABLES[2:])
async def test_server_reads_nothing_but_revenue(
    database: Database, roles: Roles, table: str
) -> None:
    await assert_refused(roles.url("server"), READ.format(table))


@pytest.mark.parametrize("table", TABLES)
async def test_processor_takes_nothing_away(database: Database, roles: Roles, table: str) -> None:
    for statement in REMOVALS if table in SHRINKING else (*REMOVALS, DELETE):
        await assert_refused(roles.url("processor"), statement.format(table))


async def test_processor_leaves_dead_letters_and_versions_as_they_are(
    database: Database, roles: Roles
) -> None:
    for table, statements in (("dead_letters", (UPDATE, READ)), ("etl_schema_version", CHANGES)):
        column = await first_column(database, table)
        for statement in statements:
            await assert_refused(roles.url("processor"), statement.format(table, column=column))


@pytest.mark.parametrize("process", ["server", "processor"])
async def test_no_role_makes_anything(database: Database, roles: Roles, process: str) -> None:
    for statement in (
        "CREATE TABLE more ()",
        "CREATE SCHEMA more",
        "CREATE ROLE more",
        "CREATE DATABASE more",
        "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "COPY users_revenue TO PROGRAM 'cat'",
        "DROP FUNCTION upsert_user_revenue(varchar, numeric)",
    ):
        await assert_refused(roles.url(process), statement)


async def test_superuser_is_no_role_for_a_process(database: Database, roles: Roles) -> None:
    name = roles.names["server"]
    await database.connection.execute(f'ALTER ROLE "{name}" SUPERUSER')
    with pytest.raises(asyncpg.RaiseError, match="is a superuser"):
        await roles.grant(database.connection)


async def test_processor_that_may_not_apply_the_schema_says_who_has_to(
    database: Database, roles: Roles, tmp_path: Path
) -> None:
    await database.connection.execute("DELETE FROM etl_schema_version WHERE version > 1")
    with hearing() as heard:
        async with processor(tmp_path, roles.url("processor")):
            await heard.until("let the owner of the tables apply the schema")
            assert heard.count("permission denied for schema public") == 1


async def first_column(database: Database, table: str) -> str:
    found = await database.value(
        "SELECT quote_ident(column_name) FROM information_schema.columns "
        "WHERE table_name = $1 AND ordinal_position = 1",
        table,
    )
    return str(found)


async def assert_refused(url: str, statement: str) -> None:
    async with connected(url) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
