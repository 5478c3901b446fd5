"""The client in follow mode: what is new in a file that changes under it is sent once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.client_process import Place, running
from support.following import (
    NEW,
    NEWER,
    OLD,
    Change,
    append,
    copy_and_truncate,
    data,
    events,
    has,
    replace,
    rotate,
    rotated,
    swap_symlink,
    truncate_and_write_less,
    truncate_and_write_more,
    unlink_and_create,
)
from support.stub_server import Fault, StubServer

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def server() -> AsyncIterator[StubServer]:
    async with StubServer() as stub:
        yield stub


@pytest.fixture
def place(tmp_path: Path, server: StubServer) -> Place:
    return Place(tmp_path, server.url, {"client_mode": "follow", "batch_events": 10})


CHANGES = [
    append,
    rotate,
    replace,
    unlink_and_create,
    copy_and_truncate,
    truncate_and_write_less,
    truncate_and_write_more,
    swap_symlink,
]


@pytest.mark.parametrize("change", CHANGES)
async def test_what_is_new_is_sent_once_while_the_client_runs(
    place: Place, server: StubServer, change: Change
) -> None:
    place.write(data(OLD))
    times = 20 if change is truncate_and_write_more else 1
    async with running(place):
        await has(server, OLD)
        change(place, NEW)
        await has(server, OLD + NEW * times)
        change(place, NEWER)
        await has(server, OLD + NEW * times + NEWER * times)
        append(place, OLD)
        await has(server, OLD + NEW * times + NEWER * times + OLD)
    async with running(place):
        append(place, NEW)
        await has(server, OLD + NEW * times + NEWER * times + OLD + NEW)
    assert server.duplicates == 0


@pytest.mark.parametrize("change", CHANGES)
async def test_what_became_new_while_the_client_was_down_is_sent_once(
    place: Place, server: StubServer, change: Change
) -> None:
    place.write(data(OLD))
    times = 20 if change is truncate_and_write_more else 1
    async with running(place):
        await has(server, OLD)
    change(place, NEW)
    async with running(place):
        await has(server, OLD + NEW * times)
    change(place, NEWER)
    append(place, OLD)
    async with running(place):
        await has(server, OLD + NEW * times + NEWER * times + OLD)


@pytest.mark.parametrize("change", [rotate, copy_and_truncate])
async def test_files_rotated_while_the_client_was_down_are_read_in_their_order(
    place: Place, server: StubServer, change: Change
) -> None:
    place.write(data(OLD))
    async with running(place):
        await has(server, OLD)
        change(place, NEW)
        await has(server, OLD + NEW)
    append(place, events(1, 1))
    change(place, NEWER)
    if change is rotate:
        rotate(place, [])
        rotate(place, [])
        append(place, events(2, 1))
    change(place, events(3, 3))
    between = events(2, 1) if change is rotate else []
    async with running(place):
        await has(server, OLD + NEW + events(1, 1) + NEWER + between + events(3, 3))


@pytest.mark.parametrize("change", [rotate, unlink_and_create])
async def test_writer_may_go_on_in_the_file_that_lost_its_name(
    place: Place, server: StubServer, change: Change
) -> None:
    place.write(data(OLD))
    async with running(place):
        with place.source.open("ab", buffering=0) as writer:
            await has(server, OLD)
            change(place, [])
            writer.write(data(NEW))
            await has(server, OLD + NEW)
            writer.write(data(NEWER))
            await has(server, OLD + NEW + NEWER)
        append(place, OLD)
        await has(server, OLD + NEW + NEWER + OLD)


async def test_line_without_a_break_is_none_until_its_break_comes(
    place: Place, server: StubServer
) -> None:
    place.write(data(OLD) + NEW[0][:20])
    async with running(place) as log:
        await has(server, OLD)
    async with running(place) as log:
        await log.seen("begins at line 41")
        place.append(NEW[0][20:])
    async with running(place) as log:
        await log.seen("begins at line 41")
        append(place, [b"", *NEW[1:]])
        await has(server, OLD + NEW)
    assert place.letters() == []


async def test_last_line_of_a_rotated_file_needs_no_break(place: Place, server: StubServer) -> None:
    place.write(data(OLD) + NEW[0])
    async with running(place) as log:
        await has(server, OLD)
        rotate(place, NEWER)
        await log.seen("run 1 is finished lines=41 accepted=41")
        await has(server, OLD + NEW[:1] + NEWER)


async def test_what_is_left_of_a_line_that_was_cut_is_none(
    place: Place, server: StubServer
) -> None:
    place.write(data(OLD) + NEW[0][:20])
    async with running(place) as log:
        await has(server, OLD)
        truncate_and_write_less(place, NEWER)
        await has(server, OLD + NEWER)
        assert "ends before line 41" in await log.seen("was cut short")
    assert place.letters() == []


async def test_file_is_read_from_its_beginning_at_the_first_start(
    place: Place, server: StubServer
) -> None:
    rotated(place, 1).write_bytes(data(NEW))
    place.write(data(OLD))
    async with running(place):
        await has(server, OLD)


async def test_file_that_comes_later_and_is_empty_at_first_is_read(
    place: Place, server: StubServer
) -> None:
    async with running(place):
        place.write(b"")
        append(place, OLD)
        await has(server, OLD)


async def test_dead_letter_names_the_line_of_its_file(place: Place, server: StubServer) -> None:
    place.write(data([*OLD, b"bad"]))
    async with running(place):
        await has(server, OLD)
        rotate(place, [*NEW, b"worse"])
        append(place, NEWER)
        await has(server, OLD + NEW + NEWER)
    first, second = place.letters()
    assert (first["line"], first["byte"], first["text"]) == (41, len(data(OLD)), "bad")
    assert (second["line"], second["byte"], second["text"]) == (8, len(data(NEW)), "worse")
    assert first["epoch"] < second["epoch"]


async def test_missing_file_is_named_with_the_lines_that_may_be_lost(
    place: Place, server: StubServer
) -> None:
    place.write(data(OLD))
    async with running(place):
        await has(server, OLD)
    append(place, NEW)
    unlink_and_create(place, NEWER)
    async with running(place) as log:
        line = await log.seen("is gone or was rewritten")
        assert str(place.source) in line
        assert f"from line 41 on, byte {len(data(OLD))}," in line
        await has(server, OLD + NEWER)


async def test_lines_under_way_when_their_file_was_cut_lend_their_place_to_no_other(
    place: Place, server: StubServer
) -> None:
    server.faults.extend([Fault.NONE, Fault.NONE, *[Fault.DROP_REPLY, *[Fault.RESET] * 3] * 50])
    place.write(data(OLD))
    async with running(place):
        await server.until(lambda: server.happened[Fault.DROP_REPLY] > 0)
    assert place.progress()["next"] == 20
    server.faults.clear()
    had = list(server.stored)
    assert len(had) > 20
    truncate_and_write_less(place, NEW)
    async with running(place):
        await has(server, had + NEW)


async def test_file_that_was_copied_and_cut_is_read_on_in_its_copy(
    place: Place, server: StubServer
) -> None:
    server.faults.extend([Fault.NONE, *[Fault.DROP_REPLY, *[Fault.RESET] * 3] * 50])
    place.write(data(OLD))
    async with running(place):
        await server.until(lambda: server.happened[Fault.DROP_REPLY] > 0)
    server.faults.clear()
    append(place, NEW)
    copy_and_truncate(place, NEWER)
    async with running(place):
        await has(server, OLD + NEW + NEWER)
    assert server.duplicates > 0


async def test_switch_to_follow_sends_what_came_after_the_last_run(
    place: Place, server: StubServer
) -> None:
    place.settings["client_mode"] = "resend"
    place.write(data(OLD))
    async with running(place) as log:
        await log.seen("run 1 is finished")
    append(place, NEW)
    place.settings["client_mode"] = "follow"
    async with running(place):
        await has(server, OLD + NEW)
        rotate(place, NEWER)
        await has(server, OLD + NEW + NEWER)


async def test_switch_to_resend_ends_the_run_and_then_sends_each_change_whole(
    place: Place, server: StubServer
) -> None:
    place.write(data(OLD))
    async with running(place):
        await has(server, OLD)
    append(place, NEW)
    place.settings["client_mode"] = "resend"
    async with running(place) as log:
        await log.seen("run 1 is finished lines=47")
        assert server.stored == OLD + NEW
        append(place, NEWER)
        await log.seen("run 2 is finished")
    assert server.stored == OLD + NEW + OLD + NEW + NEWER
