"""Retention: what goes, what stays, and that no kill and no old backup makes a total wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from etl.apply.retention import Limits
from etl.log import deleted
from etl.log.names import list_names
from etl.log.reader import OffsetError
from etl.log.recovery import recover
from etl.runtime.errors import CorruptError
from etl.sink import mirror, offsets
from support.hearing import hearing
from support.partitions import event, write_original
from support.processing import processor
from support.retention import KEEP_ALL, KEEP_NOTHING, LINES, Applied, applied

pytestmark = pytest.mark.asyncio

DAY = Limits(age_s=86_400, size_bytes=None)
AGED = "UPDATE partition_offsets SET moved_at = now() - interval '2 days' WHERE partition <= $1"
DELETED = "SELECT coalesce(sum(lines), 0)::bigint FROM partition_offsets WHERE deleted"


@pytest_asyncio.fixture
async def log(database_url: str, tmp_path: Path) -> AsyncIterator[Applied]:
    async with applied(tmp_path / "data", database_url) as log:
        yield log


async def test_all_but_the_newest_two_go_and_totals_stay(log: Applied) -> None:
    await log.grow(8)
    names = list_names(log.directory)
    assert await log.delete(KEEP_NOTHING) == names[:6]
    assert list_names(log.directory) == names[6:]
    await log.require_laws()
    await log.grow(3)
    await log.require_laws()
    assert (await log.delete(KEEP_NOTHING))[:2] == names[6:]
    await log.require_laws()


async def test_processor_deletes_by_itself_and_goes_on(log: Applied) -> None:
    async with processor(log.directory, log.url, retention_bytes=1):
        for _ in range(3):
            log.append(4)
            await log.database.until_applied(log.lines)
            # The newest is not done, and the one before it may be needed.
            await log.database.until(DELETED, log.lines - 2 * LINES)
    assert len(list_names(log.directory)) == 2
    await log.require_laws()
    assert log.mirrored()[mirror.OLDER] == log.lines - 2 * LINES
    async with processor(log.directory, log.url):
        await log.grow(1)
    assert log.mirrored()[mirror.OLDER] == log.lines - 3 * LINES


async def test_age_counts_from_when_a_partition_was_applied(log: Applied) -> None:
    await log.grow(6)  # with names years away from the database's clock
    names = list_names(log.directory)
    assert await log.delete(DAY) == []
    await log.database.connection.execute(AGED, names[2])
    assert await log.delete(DAY) == names[:3]
    await log.require_laws()


async def test_age_counts_from_the_last_move_of_an_offset(log: Applied) -> None:
    await log.grow(3)
    names = list_names(log.directory)
    await log.database.connection.execute(AGED, names[2])  # which is not done yet
    await log.grow(3)
    assert await log.delete(DAY) == names[:2]


async def test_what_is_not_applied_keeps_all_after_it(log: Applied) -> None:
    await log.grow(3)
    names = list_names(log.directory)
    await log.database.connection.execute(
        "UPDATE partition_offsets SET done = false WHERE partition = $1", names[1]
    )
    log.append(3)
    assert await log.delete(KEEP_NOTHING) == names[:1]


async def test_a_file_that_grew_after_it_was_applied_is_kept(log: Applied) -> None:
    await log.grow(5)
    names = list_names(log.directory)
    with (log.directory / names[1]).open("ab") as file:
        file.write(event("late", 1))
    with hearing() as heard:
        assert await log.delete(KEEP_NOTHING) == names[:1]
        assert heard.count(f"{names[1]} is not deleted") == 1


async def test_a_torn_line_of_another_server_keeps_nothing(log: Applied) -> None:
    write_original(log.directory, [event("a", 1), b'{"torn":'])
    log.append(3)
    log.lines += 1
    log.totals["a"] = 1
    await log.applied()
    await log.database.until("SELECT count(*) FROM partition_offsets WHERE done", 3)
    assert len(await log.delete(KEEP_NOTHING)) == 2
    await log.require_laws()


# Backups


async def test_a_backup_that_lacks_nothing_deleted_is_replayed_exactly(log: Applied) -> None:
    await log.grow(4)
    backup = await log.backup()
    await log.grow(4)
    names = list_names(log.directory)
    await log.database.connection.execute(AGED, names[2])
    assert await log.delete(DAY) == names[:3]
    await log.restore(backup)
    await log.applied()
    # Those that the backup has done, and not deleted, are summed up by the start.
    await log.require_laws()


@pytest.mark.parametrize("partitions", [0, 1, 3])
async def test_a_backup_that_lacks_what_was_deleted_is_refused_by_name(
    log: Applied, partitions: int
) -> None:
    if partitions:
        await log.grow(partitions)
    backup = await log.backup()
    await log.grow(8 - partitions)
    newest = (await log.delete(KEEP_NOTHING))[-1]
    await log.restore(backup)
    before = await log.database.totals()
    with hearing() as heard:
        async with processor(log.directory, log.url):
            await heard.until(f"{newest} and all before it are deleted, with {6 * LINES} lines")
    assert await log.database.totals() == before


async def test_a_backup_in_which_a_deleted_partition_is_not_done_is_refused(log: Applied) -> None:
    await log.grow(3)
    backup = await log.backup()  # of the newest all lines are applied, but it is not done
    assert not all(row["done"] for row in backup[0])
    await log.grow(2)
    await log.delete(KEEP_NOTHING)
    await log.restore(backup)
    with pytest.raises(OffsetError, match="are deleted"):
        await log.retention(log.database.connection, KEEP_ALL)


async def test_lines_of_a_late_partition_do_not_stand_for_deleted_ones(log: Applied) -> None:
    await log.grow(5)
    backup = await log.backup()
    await log.grow(3)
    await log.delete(KEEP_NOTHING)
    # Another server, whose clock is years behind, begins a partition before all that were deleted.
    write_original(log.directory, [event("late", 1)] * 500, name="server_events_251124090000.jsonl")
    await log.restore(backup)
    with hearing() as heard:
        async with processor(log.directory, log.url):
            await heard.until("are deleted, with")
    assert "late" not in await log.database.totals()


async def test_a_deleted_partition_that_is_back_is_refused_and_not_applied(log: Applied) -> None:
    await log.grow(6)
    name = list_names(log.directory)[1]
    content = (log.directory / name).read_bytes()
    await log.delete(KEEP_NOTHING)
    (log.directory / name).write_bytes(content)
    with hearing() as heard:
        async with processor(log.directory, log.url):
            await heard.until(f"{name} is there, but partitions up to")
    (log.directory / name).unlink()
    await log.grow(1)
    await log.require_laws()


async def test_the_record_is_written_again_from_the_database(log: Applied) -> None:
    await log.grow(6)
    await log.delete(KEEP_NOTHING)
    (log.directory / deleted.FILE_NAME).unlink()
    await log.grow(1)
    await log.require_laws()


async def test_a_damaged_record_is_refused(log: Applied) -> None:
    await log.grow(6)
    await log.delete(KEEP_NOTHING)
    (log.directory / deleted.FILE_NAME).write_bytes(b"{}")
    with pytest.raises(CorruptError, match="damaged"):
        await log.retention(log.database.connection, KEEP_ALL)


# The server


async def test_the_server_starts_on_what_was_kept(log: Applied) -> None:
    await log.grow(6)
    await log.delete(KEEP_NOTHING)
    log.restart()
    await log.grow(2)
    await log.require_laws()


@pytest.mark.parametrize("watermark", [True, False])
async def test_the_server_is_refused_without_its_producers(
    log: Applied, *, watermark: bool
) -> None:
    await log.grow(2)
    older = (log.directory / "server_producers.json").read_bytes()
    await log.grow(4)
    await log.delete(KEEP_NOTHING)
    if not watermark:
        (log.directory / "server_watermark.json").unlink()
    (log.directory / "server_producers.json").write_bytes(older)
    with pytest.raises(CorruptError, match=r"deleted, but server_producers.json is an older copy"):
        recover(log.directory)
    (log.directory / "server_producers.json").unlink()
    with pytest.raises(CorruptError, match=r"deleted, but server_producers.json is missing"):
        recover(log.directory)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_partitions_without_a_row_are_found_however_names_are_sliced(
    log: Applied, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    await log.grow(7)
    names = list_names(log.directory)
    late = ["server_events_251124090000.jsonl", f"{names[1][:24]}11.jsonl"]
    monkeypatch.setattr(offsets, "NAMES_MAX", size)
    log_id = (log.directory / "log_id").read_text().strip()
    connection = log.database.connection
    assert await offsets.without_row(connection, log_id, []) == set()
    assert await offsets.without_row(connection, log_id, names) == set()
    found = await offsets.without_row(connection, log_id, sorted({*names, *late}))
    assert found == set(late)
