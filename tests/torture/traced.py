"""One process under strace, which strikes at a system call of a given name and number.

What the process does in threads it does at once instead (`one_thread/`), so the number of a call is
the same in every run, and no call is missed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.pipeline import Role
from torture import laws
from torture.trial import Trial, Truth, World

EMPTY = "TRUNCATE users_revenue, partition_offsets, dead_letters, deferred_revenue"
# Less than a line.
TORN_BYTES = 60
ONE_THREAD = Path(__file__).parent / "one_thread"
_CALL = re.compile(r"^\d+ +([a-z0-9]+)\(", re.MULTILINE)
# Whatever changes a file or speaks to another process.
CALLS = (
    *("write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg", "fdatasync", "fsync"),
    *("rename", "renameat", "renameat2", "ftruncate", "unlink", "unlinkat", "link", "linkat"),
    *("mkdir", "mkdirat"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """What shall befall the process: `action` as strace writes it, at the n-th such call.

    With `paths` only calls on these files count.
    """

    call: str
    number: int
    action: str = "signal=SIGKILL"
    paths: tuple[str, ...] = ()

    def options(self, data: Path) -> list[str]:
        narrowed = [option for path in self.paths for option in ("-P", str(data / path))]
        inject = f"inject={self.call}:{self.action}:when={self.number}"
        return [*narrowed, "-e", f"trace={self.call}", "-e", inject]


@dataclass(slots=True, kw_only=True)
class Point:
    """One run of the pipeline in which one process is traced."""

    world: World
    victim: str
    options: list[str]
    traced: Role = field(init=False)

    @property
    def output(self) -> Path:
        return self.world.run.directory / "strace.txt"

    async def start(self) -> None:
        """Start all three; nobody waits for a traced server, which may end before it listens."""
        for name in ("processor", "server", "client"):
            if name == self.victim:
                command = ("strace", "-D", "-f", "-qq", "-o", str(self.output), *self.options)
                role = await self.world.run.launch(name, *command, **self._environment())
                self.traced = self.world.run.roles[name] = role
            else:
                await self.world.run.start(name)

    async def ended(self) -> bool:
        """Wait until the work is done or the traced process has ended; say which."""
        end = asyncio.create_task(self.traced.process.wait())
        work = asyncio.create_task(self._work())
        await asyncio.wait({end, work}, return_when=asyncio.FIRST_COMPLETED)
        if not end.done():
            try:
                await work
            except AssertionError:
                await self.traced.ended()  # its log has ended; so has it, or will at once
        for task in (end, work):
            task.cancel()
        await asyncio.gather(end, work, return_exceptions=True)
        return self.traced.process.returncode is not None

    async def _work(self) -> None:
        if self.victim == "server":
            await self.traced.said("listening")  # there may be nothing to do for it
        await self.world.drained()

    async def again(self) -> None:
        """Start another in the place of the traced one."""
        await self.traced.ended()
        await self.world.run.start(self.victim)

    def injected(self) -> bool:
        """Say whether strace has struck."""
        return "INJECTED" in self.output.read_text(errors="replace")

    def calls(self) -> list[str]:
        """The names of the calls that the traced process made."""
        return sorted(set(_CALL.findall(self.output.read_text(errors="replace"))))

    def _environment(self) -> dict[str, str]:
        paths = self.world.trial.env.get("PYTHONPATH") or os.environ.get("PYTHONPATH", "")
        return {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ONE_THREAD), paths))),
            "PYTHONDONTWRITEBYTECODE": "1",
        }


@dataclass(slots=True, kw_only=True)
class Place:
    """Where points follow one another: each with an emptied database and a directory of its own."""

    trial: Trial
    truth: Truth
    url: str
    victim: str
    port: int
    template: Path | None = None

    async def leave_torn(self) -> None:
        """Let each point begin with a full log that has a torn tail and no watermark."""
        template = self.trial.directory / "template"
        async with self._started(template, "-e", "trace=none") as point:
            await point.world.settle(alive=False)
        newest = laws.partitions(template)[-1]
        with newest.open("ab") as file:
            file.write(newest.read_bytes()[:TORN_BYTES])
        (template / "server_watermark.json").unlink()
        self.template = template

    async def calls(self) -> list[str]:
        """Run once without a strike; return the names of the calls that are made."""
        data = self.trial.directory / "data"
        async with self._started(data, "-e", f"trace={','.join(CALLS)}") as point:
            laws.require(not await point.ended(), "clean", f"{self.victim} ended by itself")
            await point.world.settle()
            code = await point.traced.end(signal.SIGTERM)
            laws.require(code == 0, "clean", f"{self.victim} ends with {code}")
            calls = point.calls()
        shutil.rmtree(data)
        return calls

    async def killed(self, strike: Strike) -> bool:
        """Kill at one call, start again, check all laws; say whether it came to the call."""
        data = self.trial.directory / f"{strike.call}-{strike.number}"
        async with self._started(data, *strike.options(data)) as point:
            if not await point.ended():
                await point.traced.end(signal.SIGTERM)
            code = point.traced.process.returncode
            laws.require(code in {0, -signal.SIGKILL}, "clean", f"{self.victim} ends with {code}")
            await point.again()
            await point.world.settle()
            self._count_repairs(point.world)
        shutil.rmtree(data)
        return code != 0

    async def failed(self, strike: Strike, *, ends: bool | None) -> bool:
        """Let one call fail, check all laws; say whether it came to the call.

        `ends` says whether the process must end by itself then, with 1; None leaves it the choice.
        """
        data = self.trial.directory / f"{strike.call}-{strike.number}"
        async with self._started(data, *strike.options(data)) as point:
            ended = await point.ended()
            if ended:
                self._nothing_acknowledged(data)
                code = await point.traced.ended()
                laws.require(code == 1, "failed sync", f"{self.victim} ends with {code}")
                await point.again()
            injected = point.injected()
            if injected and ends is not None:
                told = f"{strike} ends the process: {ended}"
                laws.require(ended == ends, "failed sync", told)
            if not ended:
                await point.traced.end(signal.SIGTERM)
                await point.again()
            await point.world.settle()
        shutil.rmtree(data)
        return injected

    @asynccontextmanager
    async def _started(self, data: Path, *options: str) -> AsyncIterator[Point]:
        async with self.trial.world(
            self.truth, database_url=self.url, data=data, ETL_BATCH_EVENTS="10"
        ) as world:
            await world.database.connection.execute(EMPTY)
            if self.template is not None:
                shutil.copytree(self.template, data)
            world.run.port = self.port
            point = Point(world=world, victim=self.victim, options=list(options))
            await point.start()
            yield point

    def _count_repairs(self, world: World) -> None:
        torn = sum("was torn at byte" in line for line in world.run.log_of("server"))
        if torn:
            self.trial.count("torn tails repaired", torn)

    def _nothing_acknowledged(self, data: Path) -> None:
        """Check that the client counts no more than the watermark does."""
        acknowledged = _member(data / "client_progress.json", "accepted")
        durable = _member(data / "server_watermark.json", "events")
        told = f"{acknowledged} acknowledged, {durable} durable"
        laws.require(acknowledged <= durable, "acknowledged", told)


def free_port() -> int:
    """A port where nobody listens now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _member(path: Path, name: str) -> int:
    """Return a number in a state file; 0 where that does not exist yet, or holds nothing."""
    try:
        return int(json.loads(path.read_bytes())[name])
    except (FileNotFoundError, ValueError):
        return 0
