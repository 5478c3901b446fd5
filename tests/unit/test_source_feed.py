"""A run ends when its source has been quiet, by a clock that the test holds."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from etl.source.feed import Feed
from etl.source.lines import Lines, Mark
from etl.source.watch import Stat, Watch, stat_of

pytestmark = pytest.mark.asyncio

QUIET_S = 10.0
Step = tuple[float, Callable[[Path], None]]


def nothing(_: Path) -> None:
    pass


def append(data: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with path.open("ab") as file:
            file.write(data)

    return change


def rewrite(data: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(data)

    return change


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


class Scene(Watch):
    """A watch whose waits are steps of a script: so much time passes, and this happens."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.now_s = 100.0
        self.script: list[Step] = []
        self.waits: list[float] = []
        self.ends: list[tuple[int, Stat]] = []
        self.fd = os.open(path, os.O_RDONLY)

    async def nudged(self, within_s: float) -> None:
        self.waits.append(within_s)
        passed, change = self.script.pop(0)
        self.now_s += passed
        change(self.path)

    async def ended(self, byte: int, stat: Stat, *, cut: bool) -> None:
        self.ends.append((byte, stat))

    def feed(self) -> Feed:
        return Feed(
            lines=Lines(self.fd, Mark(), lines_max=10, bytes_max=1000),
            path=self.path,
            stat=stat_of(os.fstat(self.fd)),
            watch=self,
            quiet_s=QUIET_S,
            ended=self.ended,
            clock=lambda: self.now_s,
        )

    async def bodies(self) -> list[bytes]:
        feed = self.feed()
        bodies = []
        while (piece := await feed.next()) is not None:
            bodies.append(piece.body)
        return bodies


@pytest_asyncio.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"one\n")
    scene = Scene(path)
    yield scene
    os.close(scene.fd)


async def test_run_ends_when_the_source_is_quiet(scene: Scene) -> None:
    scene.script = [(4, nothing), (6, nothing)]
    assert await scene.bodies() == [b"one\n"]
    assert scene.waits == [10, 6]
    assert scene.ends == [(4, stat_of(scene.path.stat()))]


@pytest.mark.parametrize("change", [append(b"two\n"), append(b"tw"), touch])
async def test_change_begins_the_quiet_anew(scene: Scene, change: Callable[[Path], None]) -> None:
    scene.script = [(6, change), (9, nothing), (1, nothing)]
    await scene.bodies()
    assert scene.waits == [10, 10, 1]


async def test_end_is_told_before_the_line_without_a_break_is_read(scene: Scene) -> None:
    append(b"two")(scene.path)
    scene.script = [(10, nothing)]
    feed = scene.feed()
    first = await feed.next()
    assert first is not None
    assert (first.body, scene.ends) == (b"one\n", [])
    last = await feed.next()
    assert last is not None
    assert (last.body, scene.ends[0][0]) == (b"two", 7)
    append(b" and more\n")(scene.path)
    assert await feed.next() is None


async def test_source_that_was_replaced_ends_without_waiting(scene: Scene) -> None:
    new = scene.path.with_name("new")
    new.write_bytes(b"another\n")
    new.replace(scene.path)
    assert await scene.bodies() == [b"one\n"]
    assert scene.waits == []


async def test_source_that_is_gone_ends_when_it_is_quiet(scene: Scene) -> None:
    scene.path.rename(scene.path.with_name("away"))
    scene.script = [(10, nothing)]
    assert await scene.bodies() == [b"one\n"]


@pytest.mark.parametrize("rest", [b"", b"on"])
async def test_source_that_was_cut_short_ends_where_it_was_read(
    scene: Scene, rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = stat_of(scene.path.stat())
    scene.script = [(1, rewrite(rest))]
    assert await scene.bodies() == [b"one\n"]
    assert scene.ends == [(4, before)]
    assert "was cut short while it was read; the run ends before line 2" in caplog.text
