"""What the client keeps: durable in the right order, also on a full disk and without notice."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest
import pytest_asyncio

from etl.runtime import files
from etl.source import dead_letters, link, watch
from support.client_process import Place, process, running
from support.stub_server import Fault, StubServer

pytestmark = pytest.mark.asyncio

GOOD = [b'{"userId":"u","name":"add_revenue","value":%d}' % value for value in range(40)]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[StubServer]:
    async with StubServer() as stub:
        yield stub


@pytest.fixture
def place(tmp_path: Path, server: StubServer) -> Place:
    return Place(tmp_path, server.url, {"batch_events": 20})


async def test_run_is_known_before_its_first_request(place: Place, server: StubServer) -> None:
    server.faults.append(Fault.SILENCE)
    place.write(b"\n".join(GOOD[:10]) + b"\n")
    async with process(place):
        await server.until(lambda: len(server.received) == 1)
    async with process(place) as client:
        await client.logs("run 1 is finished")
    first, again = server.received
    assert (first.producer, first.epoch, first.first) == (again.producer, again.epoch, again.first)
    assert server.stored == GOOD[:10]


async def test_line_taken_for_the_last_is_not_joined_with_what_follows(
    place: Place, server: StubServer
) -> None:
    """Killed when only the server knows of the line without a break, which is then completed."""
    server.faults.extend([Fault.NONE, Fault.DROP_REPLY, *[Fault.UNAVAILABLE] * 1000])
    place.write(b"\n".join(GOOD[:20]) + b'\n{"userId":"u"')
    async with process(place):
        await server.until(lambda: server.happened[Fault.UNAVAILABLE] > 0)
    server.faults.clear()
    place.append(b',"name":"add_revenue","value":7}\n')
    async with running(place) as log:
        await log.seen("run 1 is finished lines=21 accepted=20 rejected=1")
        await log.seen("run 2 is finished lines=21 accepted=21 rejected=0")
    last = b'{"userId":"u","name":"add_revenue","value":7}'
    assert server.stored == [*GOOD[:20], *GOOD[:20], last]
    (letter,) = place.letters()
    assert (letter["line"], letter["text"]) == (21, '{"userId":"u"')


async def test_other_file_after_a_kill_is_not_taken_for_the_one_in_flight(
    place: Place, server: StubServer
) -> None:
    server.faults.extend([Fault.DROP_REPLY, *[Fault.UNAVAILABLE] * 1000])
    place.write(b"\n".join(GOOD[:10]) + b"\n")
    async with process(place):
        await server.until(lambda: server.happened[Fault.UNAVAILABLE] > 0)
    server.faults.clear()
    place.write(b"\n".join(GOOD[20:30]) + b"\n")
    async with running(place) as log:
        await log.seen("run 2 is finished lines=10 accepted=10")
        assert any("run 1 was not finished" in line for line in log.lines)
    assert server.stored == GOOD[:10] + GOOD[20:30]


async def test_progress_waits_for_the_dead_letters(
    place: Place, server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    place.write(b"\n".join([*GOOD[:20], b"bad", *GOOD[20:]]) + b"\n")
    with monkeypatch.context() as patch:
        patch.setattr(dead_letters.DeadLetters, "append", full)
        async with running(place) as log:
            await log.seen("dead_letters.jsonl can't be written: No space left on device")
        assert place.progress()["next"] == 20
        assert server.stored[:20] == GOOD[:20]
    async with running(place) as log:
        await log.seen("run 1 is finished lines=41 accepted=40 rejected=1 blank=0")
    assert server.stored == GOOD
    assert [letter["line"] for letter in place.letters()] == [21]


async def test_full_disk_is_waited_for(
    place: Place, server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    place.write(b"\n".join([*GOOD[:20], b"bad", *GOOD[20:]]) + b"\n")
    monkeypatch.setattr(files, "write_all", full)
    async with running(place) as log:
        await log.seen("client_progress.json can't be written: No space left on device")
        assert server.received == []
        monkeypatch.undo()
        await log.seen("client_progress.json is written again")
        await log.seen("run 1 is finished lines=41")
    assert server.stored == GOOD
    assert len([line for line in log.lines if "can't be written" in line]) == 1


@pytest.mark.parametrize("error", [FileNotFoundError, RuntimeError("no watches left")])
async def test_change_without_a_notification_is_found(
    place: Place, server: StubServer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def deaf(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(watch, "awatch", deaf)
    async with running(place) as log:
        place.write(GOOD[0] + b"\n")
        await log.seen("run 1 is finished")
        place.append(GOOD[1] + b"\n")
        await log.seen("run 2 is finished")
    assert server.stored == [GOOD[0], *GOOD[:2]]


async def test_request_without_an_answer_is_sent_again(
    place: Place, server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "REPLY_TIMEOUT_S", 0.3)
    server.faults.extend([Fault.SILENCE, Fault.SILENCE])
    place.write(b"\n".join(GOOD) + b"\n")
    async with running(place) as log:
        assert "no answer in time" in await log.seen("takes no events")
        await log.seen("run 1 is finished")
    assert server.stored == GOOD


async def test_older_copy_of_the_progress_takes_no_new_line_for_a_known_one(
    place: Place, server: StubServer
) -> None:
    path = place.data / "client_progress.json"
    place.write(b"\n".join(GOOD[:10]) + b"\n")
    async with running(place) as log:
        await log.seen("run 1 is finished")
        older = path.read_bytes()
        place.write(b"\n".join(GOOD[10:20]) + b"\n")
        await log.seen("run 2 is finished")
    path.write_bytes(older)
    place.write(b"\n".join(GOOD[20:30]) + b"\n")
    async with running(place) as log:
        await log.seen("run 2 is finished lines=10 accepted=10")
    assert server.stored == GOOD[:30]
    assert server.duplicates == 0
