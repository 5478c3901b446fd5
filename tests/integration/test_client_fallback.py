"""The client against a server with the original's contract: one event a request."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.client_process import Place, running
from support.stub_server import Fault, OriginalServer, StubServer

pytestmark = pytest.mark.asyncio

LINES = [b'{"userId":"u","name":"add_revenue","value":%d}' % value for value in range(100)]


def place_for(directory: Path, url: str) -> Place:
    return Place(directory, url, {"batch_events": 20})


async def test_original_server_gets_one_event_a_request(tmp_path: Path) -> None:
    async with OriginalServer() as server:
        place = place_for(tmp_path, server.url)
        place.write(b"\n".join([*LINES[:50], b" ", b"bad", *LINES[50:]]))
        async with running(place) as log:
            await log.seen("run 1 is finished lines=102 accepted=100 rejected=1 blank=1")
    assert server.stored == LINES
    assert {(one.content_type, one.producer) for one in server.received} == {
        ("application/json", "")
    }
    (letter,) = place.letters()
    assert (letter["line"], letter["text"]) == (52, "bad")


async def test_stop_and_restart_send_no_event_twice(tmp_path: Path) -> None:
    async with OriginalServer() as server:
        place = place_for(tmp_path, server.url)
        place.write(b"\n".join(LINES) + b"\n")
        async with running(place):
            await server.until(lambda: len(server.stored) > 30)
        assert len(server.stored) < 100
        async with running(place) as log:
            await log.seen("run 1 is finished")
    assert server.stored == LINES


@pytest.mark.parametrize("ours_first", [True, False])
async def test_server_swapped_during_a_run_gets_the_rest(tmp_path: Path, ours_first: bool) -> None:
    ours, original = StubServer(), OriginalServer()
    first, second = (ours, original) if ours_first else (original, ours)
    lines = LINES * 20
    await first.listen()
    place = place_for(tmp_path, first.url)
    place.settings["batch_events"] = 5
    place.write(b"\n".join([b"bad", *lines]) + b"\n")
    async with running(place) as log:
        await first.until(lambda: len(first.stored) >= 100)
        await first.close()
        second.port = first.port
        await second.listen()
        await log.seen("run 1 is finished lines=2001 accepted=2000 rejected=1 blank=0")
    await second.close()
    together = first.stored + second.stored
    # What the first one took as it closed may have gone without an answer, unless it is ours.
    assert together[:100] == lines[:100]
    assert set(together) == set(LINES)
    assert len(lines) <= len(together) <= len(lines) + 20
    assert second.stored[-100:] == LINES
    assert len(place.letters()) == 1


async def test_swap_back_leaves_out_what_the_other_server_took(tmp_path: Path) -> None:
    ours, original = StubServer(), OriginalServer()
    lines = [b'{"userId":"u","name":"add_revenue","value":%d}' % value for value in range(3000)]
    await ours.listen()
    place = place_for(tmp_path, ours.url)
    place.write(b"\n".join(lines) + b"\n")
    original.port = ours.port
    async with running(place) as log:
        ours.faults.extend([Fault.NONE] * 20 + [Fault.RESET] * 1000)
        await log.seen("takes no events")
        await ours.close()
        await original.listen()
        await original.until(lambda: len(original.stored) >= 100)
        await original.close()
        ours.faults.clear()
        await ours.listen()
        await log.seen("run 1 is finished lines=3000 accepted=3000")
    await ours.close()
    assert len(original.stored) >= 100
    assert sorted(set(ours.stored + original.stored)) == sorted(lines)
    assert len(ours.stored + original.stored) <= len(lines) + 1
