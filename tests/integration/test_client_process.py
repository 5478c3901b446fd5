"""The client as a process: killed, stopped, started twice, on a full disk."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.client_process import Place, process
from support.stub_server import Fault, StubServer

pytestmark = pytest.mark.asyncio

KILLS = 6


@pytest_asyncio.fixture
async def server() -> AsyncIterator[StubServer]:
    async with StubServer() as stub:
        yield stub


@pytest.fixture
def place(tmp_path: Path, server: StubServer) -> Place:
    return Place(tmp_path, server.url, {"batch_events": 10})


def random_source(seed: int, lines: int) -> tuple[bytes, list[bytes], list[int]]:
    """Lines of 40-bit values, every seventh of them bad; the events and the bad lines."""
    source = random.Random(seed)  # noqa: S311  no secret
    texts = []
    bad = []
    for number in range(1, lines + 1):
        value = source.getrandbits(40)
        if value % 7:
            texts.append(b'{"userId":"u","name":"add_revenue","value":%d}' % value)
        else:
            texts.append(b"bad %d" % value)
            bad.append(number)
    good = [text for text in texts if text.startswith(b"{")]
    return b"\n".join(texts) + b"\n", good, bad


@pytest.mark.parametrize("attempt", range(3))
async def test_client_killed_at_any_moment_loses_and_doubles_nothing(
    place: Place, server: StubServer, attempt: int
) -> None:
    # Random, but the same again with the seed that pytest prints at its start.
    seed = random.getrandbits(32) + attempt
    moments = random.Random(seed)  # noqa: S311  no secret
    data, good, bad = random_source(seed, 3000)
    server.faults.extend(
        moments.choice([Fault.NONE, Fault.NONE, Fault.DROP_REPLY, Fault.RESET]) for _ in range(150)
    )
    place.write(data)
    for _ in range(KILLS):
        wanted = len(server.received) + moments.randrange(1, 40)
        async with process(place):
            await server.until(lambda wanted=wanted: len(server.received) >= wanted)  # type: ignore[misc]
    assert 0 < len(server.stored) < len(good)
    async with process(place) as client:
        summary = await client.logs("run 1 is finished")
    assert server.duplicates > 0
    assert server.stored == good
    assert [letter["line"] for letter in place.letters()] == bad
    assert f"accepted={len(good)} rejected={len(bad)} blank=0" in summary
    assert sorted(path.name for path in place.data.iterdir()) == [
        "client.lock",
        "client_progress.json",
        "dead_letters.jsonl",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_client_stops_quickly_and_goes_on_where_it_was(
    place: Place, server: StubServer, number: signal.Signals
) -> None:
    data, good, bad = random_source(1, 3000)
    place.write(data)
    async with process(place) as client:
        await server.until(lambda: len(server.received) >= 20)
        assert await client.stop(number) == 0
        assert "Traceback" not in "".join(client.log)
    sent = sum(one.lines for one in server.received)
    assert place.progress()["next"] == sent < 3000
    async with process(place) as client:
        await client.logs("run 1 is finished")
    assert server.duplicates == 0
    assert server.stored == good
    assert [letter["line"] for letter in place.letters()] == bad


async def test_client_stops_while_the_server_is_silent(place: Place, server: StubServer) -> None:
    server.faults.append(Fault.SILENCE)
    place.write(random_source(1, 10)[0])
    async with process(place) as client:
        await server.until(lambda: server.happened[Fault.SILENCE] == 1)
        assert await client.stop(signal.SIGTERM) == 0


async def test_second_client_on_a_directory_ends_and_names_the_first(
    place: Place, server: StubServer
) -> None:
    async with process(place) as first:
        place.write(random_source(1, 10)[0])
        await first.logs("run 1 is finished")
        async with process(place) as second:
            assert await second.ended() == 1
        assert f"in use by client with pid {first.pid}" in "".join(second.log)
        place.write(random_source(2, 10)[0])
        await first.logs("run 2 is finished")


async def test_progress_of_another_format_ends_the_client(place: Place) -> None:
    place.data.mkdir()
    (place.data / "client_progress.json").write_text('{"format":9}')
    async with process(place) as client:
        assert await client.ended() == 1
    assert "client_progress.json has format 9" in "".join(client.log)
