"""Rows: the disk is full, slow, or fails a sync, and the server runs out of descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
from pathlib import Path

from support.pipeline import ROLES, Role
from torture import laws
from torture.image import Image, mounted
from torture.rows import Row
from torture.trial import Trial, Vacuous, World
from torture.witness import Witness, moment, require_acknowledged, witnessed

EVENTS = 20_000
FILLS = 5
FAILED_SYNCS = 4
SYNC_FAILS_AT_MAX = 30
IMAGE_MEGABYTES = 16
REFUSED = "the server takes no events"
UNWRITTEN = "can't be written"
# Requests so far apart that the flow outlives a partition's window of 5 s.
PACE_S = 0.06
FLOOD = 20
NOTICED_S = 5.0


async def full(trial: Trial) -> None:
    """The disk fills up in the middle of the flow; then there is room again."""
    truth = trial.truth(events=EVENTS, bad_every=7)
    with mounted(trial.directory, megabytes=IMAGE_MEGABYTES) as image:
        async with trial.world(truth, data=image.data) as world, world.watched():
            await world.run.start(*ROLES)
            midway = 0
            for number in range(FILLS):
                await world.until_part(0.9 * (number + trial.chance.random()) / FILLS)
                if not _said(world.run.roles["client"].log, "is finished"):
                    midway += await _fill(world, image)
            if not midway:
                raise Vacuous("the disk was never full midway")
            await world.settle()
            trial.count("client files refused", _said(world.run.log_of("client"), UNWRITTEN))
            trial.count("requests refused", _said(world.run.log_of("client"), REFUSED))


async def _fill(world: World, image: Image) -> bool:
    """One full disk, until someone has noticed; say whether it was midway."""
    chance, client = world.trial.chance, world.run.roles["client"]
    heard = (REFUSED, UNWRITTEN, "is finished")
    before = _said(client.log, *heard)
    image.fill(leave=chance.choice((0, 0, 4096, 8192)))
    # A client that is still in trouble from the time before does not say so again.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(NOTICED_S):
            await client.said(*heard, times=before + 1)
    await moment(chance.uniform(0, 0.3))
    victim = chance.choice(("", "", *ROLES))
    midway = await world.midway()
    if victim:
        await world.run.kill(victim)
        world.trial.count(f"{victim} kills on a full disk")
    image.free()
    if victim:
        await world.run.start(victim)
    if midway:
        world.trial.count("full disks")
    return midway


def _said(log: list[str], *texts: str) -> int:
    return sum(any(text in line for text in texts) for line in log)


async def start_server(world: World, *before: str) -> Role:
    """Start the server as another command runs it, and wait until it listens."""
    role = world.run.roles["server"] = await world.run.launch("server", *before)
    line = await role.said("listening")
    world.run.port = int(line.rpartition("port=")[2])
    return role


def strace(call: str, what: str, *, report: Path = Path("/dev/null")) -> tuple[str, ...]:
    """The command that does something to a system call; the program stays our own child."""
    quiet = ("strace", "-D", "-f", "-qq", "-o", str(report))
    return (*quiet, "-e", f"trace={call}", "-e", f"inject={call}:{what}")


async def failed_sync(trial: Trial) -> None:
    """A sync fails once: the server ends, and nothing that was under way is acknowledged."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth) as world, witnessed(world) as witness, world.watched():
        await world.run.start(*ROLES)
        await world.run.kill("server")
        midway = sum([await _fail_sync(world, witness) for _ in range(FAILED_SYNCS)])
        if not midway:
            raise Vacuous("no sync failed midway")
        await world.run.start("server")
        await world.settle()


async def _fail_sync(world: World, witness: Witness) -> bool:
    at = world.trial.chance.randrange(1, SYNC_FAILS_AT_MAX)
    report = world.trial.directory / "strace"
    role = await start_server(world, *strace("fdatasync", f"error=EIO:when={at}", report=report))
    await _ended_or_all_sent(role, witness)
    if role.process.returncode is None:
        failed = "INJECTED" in report.read_text()
        laws.require(not failed, "failed sync", "the server went on after it")
        await world.run.kill("server")
        return False  # the flow was over before
    code = await role.ended()
    laws.require(code == 1, "failed sync", f"the exit code is {code}")
    acknowledged = witness.good()
    durable = _durable_events(world.run.data)
    laws.require(
        acknowledged <= durable, "failed sync", f"{acknowledged} acknowledged, {durable} durable"
    )
    world.trial.count("failed syncs")
    if len(laws.stored(world.run.data)) > durable:
        world.trial.count("failed syncs that left bytes")
    await require_acknowledged(world, acknowledged)
    return 0 < acknowledged < len(world.truth.good)


async def _ended_or_all_sent(role: Role, witness: Witness) -> None:
    ended = asyncio.create_task(role.ended())
    sent = asyncio.create_task(witness.until_part(1.0))
    _, rest = await asyncio.wait({ended, sent}, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def _durable_events(data: Path) -> int:
    """What the watermark says, read by other code than that which wrote it."""
    return int(json.loads((data / "server_watermark.json").read_bytes())["events"])


async def slow_sync(trial: Trial) -> None:
    """Every sync takes long, and the server is killed within."""
    truth = trial.truth(events=4_000)
    delay = trial.chance.choice((50, 300, 1000))
    slow = strace("fdatasync", f"delay_exit={delay}ms")
    async with (
        trial.world(truth, ETL_BATCH_EVENTS="250") as world,
        witnessed(world) as witness,
        world.watched(),
    ):
        await start_server(world, *slow)
        await world.run.start("processor", "client")
        for part in sorted(trial.chance.uniform(0.05, 0.9) for _ in range(2)):
            await witness.until_part(part)
            await moment(trial.chance.uniform(0, delay / 1000))
            await world.run.kill("server")
            if 0 < witness.good() < len(truth.good):
                trial.count("kills within a slow sync")
            await require_acknowledged(world, witness.good())
            await start_server(world, *slow)
        await world.settle()
        trial.count("slow disks")


async def out_of_descriptors(trial: Trial) -> None:
    """The server may open nothing more, over the change of partitions; then it may again."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth) as world, witnessed(world, pace_s=PACE_S), world.watched():
        await world.run.start(*ROLES)
        await world.until_part(trial.chance.uniform(0.02, 0.2))
        pid = world.run.roles["server"].process.pid
        allowed = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  nothing but their number
        spare = trial.chance.choice((0, 0, 1, 2))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + spare, allowed[1]))
        flood = [asyncio.create_task(_occupy(world.run.port)) for _ in range(FLOOD)]
        try:
            # Where what is spare is enough for a new partition, nothing is refused: vacuous.
            await world.run.roles["client"].said(REFUSED, "is finished")
        finally:
            for task in flood:
                task.cancel()
            await asyncio.gather(*flood, return_exceptions=True)
        await world.require_midway()
        trial.count("out of descriptors")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, allowed)
        await world.settle()
        laws.require(
            world.run.roles["server"].process.returncode is None, "alive", "the server has ended"
        )


async def _occupy(port: int) -> None:
    """Hold a connection without a word, and come again whenever it is closed."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await reader.read()
            finally:
                writer.transport.abort()
        await moment(0.01)


_IMAGE = ("root", "mkfs.ext4", "mount", "umount")

ROWS = [
    Row(name="disk-full", run=full, trials=10, needs=_IMAGE),
    Row(name="sync-error", run=failed_sync, trials=10, needs=("strace",)),
    Row(name="slow-sync", run=slow_sync, trials=5, needs=("strace",)),
    Row(name="out-of-descriptors", run=out_of_descriptors, trials=5),
]
