"""A file that is followed while it is written, rotated and cut a hundred times: exact totals."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from support.database import Database, prepared
from support.oracle import totals
from support.pipeline import Pipeline, pipeline

CHANGES = 100
KEPT = 12
_APPLIED_AT_LEAST = "SELECT coalesce(sum(lines), 0) >= $1 FROM partition_offsets"


class Writer:
    """Appends lines to whatever has the source's name, in a thread; some arrive in two parts."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.good: list[bytes] = []
        self.bad: list[bytes] = []
        self._path = path
        self._chance = chance
        self._fd = -1
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let nothing be written, nor half of a line stand there, within."""
        with self._news:
            yield

    async def more(self, lines: int) -> None:
        """Return when so many more lines have been written."""
        wanted = len(self.good) + lines

        def wait() -> bool:
            with self._news:
                return self._news.wait_for(lambda: len(self.good) >= wanted, timeout=60)

        assert await asyncio.to_thread(wait)

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._news:
                self._open()
                for _ in range(self._chance.randrange(1, 20)):
                    self._write(self._line())
                self._news.notify_all()
            self._stop.wait(self._chance.choice([0, 0, 0.002, 0.02]))
        os.close(self._fd)

    def _open(self) -> None:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            there = None
        if self._fd >= 0:
            if there and os.path.samestat(there, os.fstat(self._fd)):
                return
            os.close(self._fd)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def _line(self) -> bytes:
        value = self._chance.getrandbits(40)
        if value % 50 == 0:
            self.bad.append(b"bad %d" % value)
            return self.bad[-1]
        user = self._chance.randrange(100)
        self.good.append(b'{"userId":"u%d","name":"add_revenue","value":%d}' % (user, value))
        return self.good[-1]

    def _write(self, line: bytes) -> None:
        line += b"\n"
        cut = self._chance.randrange(len(line)) if self._chance.random() < 0.1 else 0
        if cut:
            os.write(self._fd, line[:cut])
            self._stop.wait(0.005)
        os.write(self._fd, line[cut:])


class Scene:
    """What happens to the file, and to the client."""

    def __init__(
        self, run: Pipeline, database: Database, writer: Writer, chance: random.Random
    ) -> None:
        self._run = run
        self._database = database
        self._writer = writer
        self._chance = chance
        self._number = 0
        self.up = True
        self.kills = 0

    async def change(self) -> None:
        """Do one thing to the file, any; and perhaps kill the client, or start it."""
        if self._chance.random() < 0.3:
            await self.turn()
        if not self._run.source.exists():
            await self._writer.more(1)
        done = self._chance.choice(
            [
                self.rename,
                self.rename,
                self.rename_and_create,
                self.copy_and_truncate,
                self.truncate,
                self.unlink,
                self.swap_symlink,
            ]
        )
        await done()
        await self._writer.more(self._chance.choice([0, 1, 10, 100]))

    async def turn(self) -> None:
        if self.up:
            await self._run.kill("client")
            self.kills += 1
        else:
            await self._run.start("client")
        self.up = not self.up

    async def read(self) -> None:
        """Wait until all is read that stands there; what follows takes it away."""
        if not self.up:
            await self.turn()
        await self._database.until(_APPLIED_AT_LEAST, True, len(self._writer.good))

    async def rename(self) -> None:
        # The oldest goes: it has been read, unless the client was down for very long.
        self._number += 1
        if self._number % KEPT == 0:
            await self.read()
            for old in sorted(self._run.directory.glob("events.jsonl.0*"))[:-2]:
                old.unlink()
        self._run.source.rename(self._run.source.with_name(f"events.jsonl.{self._number:06}"))

    async def rename_and_create(self) -> None:
        with self._writer.paused():
            await self.rename()
            self._run.source.touch()

    async def copy_and_truncate(self) -> None:
        with self._writer.paused():
            if self._run.source.is_symlink():
                return
            self._number += 1
            name = f"events.jsonl.{self._number:06}"
            shutil.copyfile(self._run.source, self._run.source.with_name(name))
            os.truncate(self._run.source, 0)

    async def truncate(self) -> None:
        with self._writer.paused():
            await self.read()
            os.truncate(self._run.source, 0)

    async def unlink(self) -> None:
        with self._writer.paused():
            await self.read()
            self._run.source.unlink()

    async def swap_symlink(self) -> None:
        with self._writer.paused():
            await self.read()
            self._number += 1
            target = self._run.directory / f"target-{self._number}"
            target.touch()
            link = self._run.directory / "link.tmp"
            link.symlink_to(target)
            link.replace(self._run.source)


@pytest.mark.asyncio
async def test_a_file_rotated_and_cut_at_random_counts_each_line_once(
    tmp_path: Path, database_url: str
) -> None:
    # Random, but the same again with the seed that pytest prints at its start.
    seed = int(os.environ.get("FOLLOW_SEED", random.getrandbits(32)))
    print(f"seed {seed}")  # noqa: T201  shown when it fails
    chance = random.Random(seed)  # noqa: S311  no secret
    settings = {"ETL_CLIENT_MODE": "follow", "ETL_BATCH_EVENTS": "50"}
    async with (
        prepared(database_url) as database,
        pipeline(tmp_path, database_url, **settings) as run,
    ):
        writer = Writer(run.source, random.Random(seed + 1))  # noqa: S311  no secret
        with writer:
            await writer.more(1)
            await run.start("server", "processor", "client")
            # What was rotated before a client began is not its.
            await run.roles["client"].said("begins")
            scene = Scene(run, database, writer, chance)
            try:
                for _ in range(CHANGES):
                    await scene.change()
            finally:
                run.write_logs()
        if not scene.up:
            await scene.turn()
        await scene.read()
        await run.stop("client", "processor", "server")
        await _check_exact(run, database, writer)
        assert scene.kills > 3


async def _check_exact(run: Pipeline, database: Database, writer: Writer) -> None:
    stored = [line.partition(b',"_batch"')[0].rstrip(b"}") + b"}" for line in run.stored()]
    lost, doubled = Counter(writer.good) - Counter(stored), Counter(stored) - Counter(writer.good)
    assert (lost, doubled) == (Counter(), Counter())
    assert await database.true_totals() == totals(writer.good)
    letters = map(json.loads, (run.data / "dead_letters.jsonl").read_bytes().splitlines())
    assert Counter(letter["text"].encode() for letter in letters) == Counter(writer.bad)
    assert run.faults() == []
