"""A run ends when its source has been quiet, by a clock that the test holds."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from etl.source.feed import Feed
from etl.source.lines import Lines, Mark, Piece
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
        self.cut: list[bool] = []
        self.followed = False
        self.succeeded = False
        self.fd = os.open(path, os.O_RDONLY)

    async def nudged(self, within_s: float) -> None:
        self.waits.append(within_s)
        passed, change = self.script.pop(0)
        self.now_s += passed
        change(self.path)

    async def ended(self, byte: int, stat: Stat, *, cut: bool) -> None:
        self.ends.append((byte, stat))
        self.cut.append(cut)

    def feed(self) -> Feed:
        return Feed(
            lines=Lines(
                self.fd,
                Mark(),
                lines_max=10,
                bytes_max=1000,
                overlap_bytes=100 if self.followed else 0,
            ),
            path=self.path,
            stat=stat_of(os.fstat(self.fd)),
            watch=self,
            quiet_s=QUIET_S,
            succeeded=(lambda _: self.succeeded) if self.followed else None,
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
    assert scene.cut == [False]


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
    assert scene.cut == [True]
    assert "was cut short while it was read; the run ends before line 2" in caplog.text


@pytest.fixture
def followed(scene: Scene) -> Scene:
    scene.followed = True
    return scene


def succeed(scene: Scene, data: bytes = b"") -> Callable[[Path], None]:
    def change(path: Path) -> None:
        append(data)(path)
        scene.succeeded = True

    return change


async def test_followed_source_ends_when_it_is_succeeded_and_quiet(followed: Scene) -> None:
    followed.script = [(50, nothing), (50, nothing), (1, succeed(followed))]
    assert await followed.bodies() == [b"one\n"]
    assert followed.waits == [10, 1, 1]
    assert followed.cut == [False]


async def test_succeeded_source_is_read_on_until_it_is_quiet(followed: Scene) -> None:
    followed.script = [(50, succeed(followed, b"two\n")), (9, append(b"three\n")), (10, nothing)]
    assert await followed.bodies() == [b"one\n", b"two\n", b"three\n"]


async def test_line_of_a_followed_source_waits_for_its_break(followed: Scene) -> None:
    followed.script = [(50, append(b"tw")), (50, nothing), (50, append(b"o\nthr"))]
    feed = followed.feed()
    assert [(await feed.next() or fail()).body for _ in range(2)] == [b"one\n", b"two\n"]
    followed.script = [(50, succeed(followed))]
    assert (await feed.next() or fail()).body == b"thr"
    assert followed.ends[0][0] == 11
    assert await feed.next() is None


def fail() -> Piece:
    raise AssertionError("ended too early")


@pytest.mark.parametrize("new", [b"", b"on", b"eno\n", b"eno\nowt\n"])
async def test_followed_source_that_was_rewritten_ends_there(followed: Scene, new: bytes) -> None:
    before = stat_of(followed.path.stat())
    followed.script = [(1, rewrite(new))]
    assert await followed.bodies() == [b"one\n"]
    # As it was before: what is older than its new lines may be its copy.
    assert followed.ends == [(4, before)]
    assert followed.cut == [True]
