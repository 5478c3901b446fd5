"""The client in follow mode as a process, killed while its file is rotated."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.client_process import Place, process
from support.following import OLD, append, copy_and_truncate, events, has, rotate
from support.stub_server import Fault, StubServer

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def server() -> AsyncIterator[StubServer]:
    async with StubServer() as stub:
        yield stub


@pytest.fixture
def place(tmp_path: Path, server: StubServer) -> Place:
    return Place(tmp_path, server.url, {"client_mode": "follow", "batch_events": 10})


@pytest.mark.parametrize("attempt", range(3))
async def test_client_killed_at_any_moment_of_a_rotation_loses_and_doubles_nothing(
    place: Place, server: StubServer, attempt: int
) -> None:
    # Random, but the same again with the seed that pytest prints at its start.
    chance = random.Random(random.getrandbits(32) + attempt)  # noqa: S311  no secret
    server.faults.extend(
        chance.choice([Fault.NONE, Fault.NONE, Fault.DROP_REPLY, Fault.RESET]) for _ in range(400)
    )
    written: list[bytes] = []

    def go_on(changes: int) -> None:
        for _ in range(changes):
            lines = events(len(written) + 1, chance.randrange(1, 150))
            written.extend(lines)
            chance.choice([append, rotate, copy_and_truncate])(place, lines)

    place.write(b"")
    append(place, OLD)
    written.extend(OLD)
    async with process(place) as client:
        await client.logs("run 1 begins")
    for _ in range(6):
        go_on(chance.randrange(3))
        async with process(place):
            go_on(1)
            wanted = min(len(server.stored) + chance.randrange(300), len(written))
            await server.until(lambda wanted=wanted: len(server.stored) >= wanted)  # type: ignore[misc]
            go_on(1)
    async with process(place):
        await has(server, written)
