"""The client against a server in memory: every line once, whatever answer gets lost."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from etl.core.event import LINE_BYTES_MAX
from etl.source import link
from support.client_process import Place, running
from support.stub_server import Fault, StubServer

pytestmark = pytest.mark.asyncio


def event(number: int) -> bytes:
    return b'{"userId":"u%d","name":"add_revenue","value":%d}' % (number % 7, number)


def mixed(lines: int) -> tuple[bytes, list[bytes], list[int]]:
    """A source with good, bad and blank lines; its events, and the numbers of its bad lines."""
    texts = [event(n) for n in range(1, lines + 1)]
    bad = list(range(3, lines + 1, 5))
    for number in bad:
        texts[number - 1] = b"bad %d" % number
    for number in range(4, lines + 1, 10):
        texts[number - 1] = b" \r"
    good = [text for text in texts if text.startswith(b"{")]
    return b"".join(text + b"\n" for text in texts), good, bad


@pytest_asyncio.fixture
async def server() -> AsyncIterator[StubServer]:
    async with StubServer() as stub:
        yield stub


@pytest.fixture
def place(tmp_path: Path, server: StubServer) -> Place:
    return Place(tmp_path, server.url, {"batch_events": 20})


def letter_lines(place: Place) -> list[int]:
    return [letter["line"] for letter in place.letters()]


async def test_every_line_is_an_event_a_dead_letter_or_blank(
    place: Place, server: StubServer
) -> None:
    data, good, bad = mixed(1000)
    place.write(data)
    async with running(place) as log:
        line = await log.seen("run 1 is finished")
    assert server.stored == good
    assert letter_lines(place) == bad
    assert f"lines=1000 accepted={len(good)} rejected={len(bad)} blank=100" in line
    source = data.splitlines(keepends=True)
    for letter in place.letters():
        assert letter["text"] == f"bad {letter['line']}"
        assert letter["byte"] == len(b"".join(source[: letter["line"] - 1]))
    assert place.progress()["finished"]


@pytest.mark.parametrize("fault", [f for f in Fault if f not in (Fault.DISPLACED, Fault.SILENCE)])
async def test_faults_of_the_server_lose_and_double_nothing(
    place: Place, server: StubServer, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "UNAUTHORIZED_WAIT_S", 0.01)
    server.faults.extend([Fault.NONE, fault, Fault.NONE, Fault.NONE, fault, fault] * 3)
    data, good, bad = mixed(1000)
    place.write(data)
    async with running(place) as log:
        line = await log.seen("run 1 is finished")
    assert server.happened[fault]
    assert server.stored == good
    assert letter_lines(place) == bad
    assert f"accepted={len(good)} rejected={len(bad)} blank=100" in line


@pytest.mark.parametrize("fault", [Fault.DROP_REPLY, Fault.GARBAGE])
async def test_lines_whose_answer_was_lost_are_sent_again_and_known(
    place: Place, server: StubServer, fault: Fault
) -> None:
    server.faults.append(fault)
    place.write(mixed(20)[0])
    async with running(place) as log:
        await log.seen("run 1 is finished")
    assert server.duplicates == 20
    assert letter_lines(place) == [3, 8, 13, 18]


async def test_client_waits_for_a_server_that_is_away(place: Place, server: StubServer) -> None:
    data, good, _ = mixed(1000)
    await server.close()
    place.write(data)
    async with running(place) as log:
        await log.seen("the server takes no events")
        await server.listen()
        await server.until(lambda: len(server.stored) > 100)
        await server.close()
        await server.listen()
        await log.seen("run 1 is finished")
    assert server.stored == good


async def test_log_says_once_that_the_server_is_away(place: Place, server: StubServer) -> None:
    server.faults.extend([Fault.UNAVAILABLE] * 10)
    place.write(event(1) + b"\n")
    async with running(place) as log:
        await log.seen("run 1 is finished")
    assert sum("takes no events" in line for line in log.lines) == 1
    assert sum("takes events again failures=10" in line for line in log.lines) == 1


async def test_server_that_lost_its_state_gets_every_line_again(
    place: Place, server: StubServer
) -> None:
    data, good, bad = mixed(2000)
    server.faults.extend([Fault.NONE] * 60 + [Fault.FORGET])
    place.write(data)
    async with running(place) as log:
        line = await log.seen("run 1 is finished")
        await log.seen("going back")
    assert server.stored == good
    assert letter_lines(place) == bad
    assert f"accepted={len(good)} rejected={len(bad)} blank=200" in line


async def test_gap_that_was_said_too_early_is_no_reason_to_go_back(
    place: Place, server: StubServer
) -> None:
    server.faults.extend([Fault.NONE, Fault.EARLY])
    data, good, _ = mixed(200)
    place.write(data)
    async with running(place) as log:
        await log.seen("run 1 is finished")
    assert server.happened[Fault.EARLY] == 1
    assert not any("going back" in line for line in log.lines)
    assert server.stored == good


async def test_client_stops_sending_when_the_source_lost_what_the_server_lacks(
    place: Place, server: StubServer
) -> None:
    place.write(mixed(200)[0])
    async with running(place) as log:
        await log.seen("run 1 begins")
        await server.until(lambda: server.next != {})
        await server.until(lambda: next(iter(server.next.values()))[1] == 200)
        # The same file, so that the run does not end: other bytes, and more of them.
        place.source.write_bytes(b"x" * 10_000)
        server.next.clear()
        place.append(b"\n" + event(1) + b"\n")
        line = await log.seen("not ready")
    assert "the server lacks lines 1 to 200" in line
    assert len(server.stored) == len(mixed(200)[1])


async def test_refused_request_is_halved_until_the_line_at_fault_stands_alone(
    place: Place, server: StubServer
) -> None:
    def refusal(body: bytes) -> str | None:
        return "poison" if b"poison" in body else None

    server.refusal = refusal
    texts = [event(number) for number in range(1, 101)]
    texts[36] = b'{"userId":"poison","name":"add_revenue","value":1}'
    place.write(b"\n".join(texts) + b"\n")
    async with running(place) as log:
        line = await log.seen("run 1 is finished")
    assert server.stored == [text for text in texts if b"poison" not in text]
    (letter,) = place.letters()
    assert (letter["line"], letter["reason"]) == (37, "poison")
    assert letter["text"].encode() == texts[36]
    assert "lines=100 accepted=99 rejected=1 blank=0" in line


async def test_server_that_refuses_every_line_costs_no_line(
    place: Place, server: StubServer
) -> None:
    server.refusal = lambda _: "no"
    place.write(event(1) + b"\n")
    async with running(place) as log:
        await log.seen("it refuses any line: no")
        assert place.letters() == []


async def test_line_over_the_limit_is_a_dead_letter(place: Place, server: StubServer) -> None:
    long = b'{"userId":"' + b"u" * 3_000_000
    place.write(event(1) + b"\n" + long + b"\n" + event(2) + b"\n")
    async with running(place) as log:
        line = await log.seen("run 1 is finished")
    assert server.stored == [event(1), event(2)]
    (letter,) = place.letters()
    assert (letter["line"], letter["length"]) == (2, len(long))
    assert letter["text"].encode() == long[:LINE_BYTES_MAX]
    assert "lines=3 accepted=2 rejected=1 blank=0" in line


async def test_other_client_in_its_place_makes_it_idle(place: Place, server: StubServer) -> None:
    server.faults.append(Fault.DISPLACED)
    place.write(event(1) + b"\n")
    async with running(place) as log:
        assert "another has taken its place" in await log.seen("not ready")
    assert server.stored == []


async def test_line_without_a_break_is_sent_when_the_run_ends(
    place: Place, server: StubServer
) -> None:
    place.write(event(1) + b"\n" + event(2))
    async with running(place) as log:
        await log.seen("run 1 is finished lines=2")
    assert server.stored == [event(1), event(2)]


async def test_change_before_the_end_belongs_to_the_run(place: Place, server: StubServer) -> None:
    place.settings["quiet_ms"] = 60_000
    place.write(event(1) + b"\n")
    async with running(place) as log:
        await server.until(lambda: server.stored == [event(1)])
        place.append(event(2)[:10])
        place.append(event(2)[10:] + b"\n")
        await server.until(lambda: server.stored == [event(1), event(2)])
        assert not any("run 2" in line for line in log.lines)


def rewrite(place: Place, data: bytes) -> None:
    place.source.unlink()
    place.source.write_bytes(data)


def truncate(place: Place, data: bytes) -> None:
    place.source.write_bytes(data)


@pytest.mark.parametrize("change", [Place.write, rewrite, truncate])
async def test_source_replaced_during_a_run_is_the_next_run(
    place: Place, server: StubServer, change: Callable[[Place, bytes], None]
) -> None:
    place.settings["quiet_ms"] = 60_000
    old = [event(number) for number in range(1, 100)]
    new = [event(number) for number in range(1001, 1010)]
    place.write(b"\n".join(old) + b"\n")
    async with running(place) as log:
        await server.until(lambda: server.stored == old)
        change(place, b"\n".join(new) + b"\n")
        await log.seen("run 1 is finished lines=99")
        await server.until(lambda: server.stored == old + new)
        if change is truncate:
            await log.seen("was cut short while it was read; the run ends before line 100")


async def test_source_replaced_during_a_run_is_read_to_its_end(
    place: Place, server: StubServer
) -> None:
    place.settings["batch_events"] = 1
    old, good, _ = mixed(600)
    place.write(old + event(1))
    async with running(place) as log:
        await server.until(lambda: len(server.stored) > 20)
        place.write(event(2) + b"\n")
        await log.seen("run 1 is finished lines=601")
        await log.seen("run 2 is finished lines=1")
    assert server.stored == [*good, event(1), event(2)]


async def test_source_touched_while_running_is_sent_again(place: Place, server: StubServer) -> None:
    place.write(event(1) + b"\n")
    async with running(place) as log:
        await log.seen("run 1 is finished")
        os.utime(place.source)
        await log.seen("run 2 is finished")
    assert server.stored == [event(1), event(1)]


@pytest.mark.parametrize("touch", [False, True])
async def test_restart_with_nothing_new_sends_nothing(
    place: Place, server: StubServer, touch: bool
) -> None:
    place.write(event(1) + b"\n")
    async with running(place) as log:
        await log.seen("run 1 is finished")
    if touch:
        os.utime(place.source, ns=(1, 1))
    before = len(server.received)
    async with running(place) as log:
        await log.seen("is as run 1 sent it")
        place.write(event(2) + b"\n")
        await log.seen("run 2 is finished")
    assert [one.lines for one in server.received[before:]] == [1]
    assert server.stored == [event(1), event(2)]


async def test_source_that_appears_later_is_sent(place: Place, server: StubServer) -> None:
    late = Place(place.directory / "late", place.url, place.settings)
    async with running(late) as log:
        late.directory.mkdir(exist_ok=True)
        late.write(event(1) + b"\n")
        await log.seen("run 1 is finished")
        late.write(event(2) + b"\n")
        await log.seen("run 2 is finished")
    assert server.stored == [event(1), event(2)]


async def test_token_is_sent_and_not_logged(place: Place, server: StubServer) -> None:
    place.settings["token"] = "wrong-token"  # noqa: S105  wrong on purpose
    place.write(event(1) + b"\n")
    async with running(place) as log:
        assert "401" in await log.seen("takes no events")
    assert not any("wrong-token" in line for line in log.lines)
