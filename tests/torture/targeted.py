"""Rows aimed at one rule each, that need neither root nor a tool.

`unplug` cuts the power in effigy: the server writes down what it has synced, and after a kill of
everything each partition keeps that much for certain and the rest at random.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import zlib
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.pipeline import ROLES
from torture import laws
from torture.rows import Row
from torture.trial import APPLIED_AT_LEAST, Trial, Truth, World

EVENTS = 20_000
CUTS = 6
HOOK = Path(__file__).parent / "syncs"
WATERMARK = "server_watermark.json"
# So long nothing may happen that a wrong reader would do at once.
NOTHING_S = 1.0


def _hooked(trial: Trial, truth: Truth) -> AbstractAsyncContextManager[World]:
    """A world with the hook under its server, before whatever source the trial uses."""
    return trial.world(
        truth,
        PYTHONPATH=f"{HOOK}:{trial.env.get('PYTHONPATH', '')}".rstrip(":"),
        TORTURE_SYNCS=str(trial.directory / "syncs"),
        TORTURE_FAIL_SYNC=str(trial.directory / "fail-sync"),
    )


def _synced_sizes(trial: Trial) -> dict[int, int]:
    """How much of each inode was on disk at its last sync."""
    lines = (trial.directory / "syncs").read_text().splitlines()
    return {int(inode): int(size) for inode, size in map(str.split, lines)}


def _cut_power(trial: Trial, data: Path, *, keep: bool) -> None:
    """Leave of each partition what was synced, with `keep` also some of the rest, torn."""
    synced = _synced_sizes(trial)
    for path in laws.partitions(data):
        size = path.stat().st_size
        certain = min(size, synced.get(path.stat().st_ino, 0))
        with path.open("rb+") as file:
            first_line = file.readline()
            file.truncate(trial.chance.randint(certain, size) if keep else certain)
            if keep and path == laws.partitions(data)[-1]:
                file.seek(0, 2)
                file.write(_torn(trial.chance, first_line))
                trial.count("torn tails")


def _torn(chance: random.Random, line: bytes) -> bytes:
    """What a write may leave that never became whole."""
    size = chance.randrange(1, max(2, len(line)))
    return chance.choice((line[:size], bytes(size)))


def _require_acknowledged(data: Path, truth: Truth) -> None:
    """What the client holds for acknowledged stands in the partitions, whole and in order."""
    lines = json.loads((data / "client_progress.json").read_bytes())["next"]
    good = lines - sum(bad <= lines for bad in truth.bad_lines)
    found = laws.stored(data)[:good]
    laws.require(
        found == truth.good[:good],
        "acknowledged",
        f"{good} events are acknowledged, {len(found)} in the log, or not the same",
    )


async def unplug(trial: Trial) -> None:
    """Cut the power again and again: everything dies, and what was not synced may be gone."""
    truth = trial.truth(events=EVENTS)
    async with _hooked(trial, truth) as world:
        await world.run.start(*ROLES)
        for number in range(CUTS):
            old = (world.run.data / WATERMARK).read_bytes()
            await world.until_part(0.9 * (number + trial.chance.random()) / CUTS)
            await world.run.kill(*ROLES)
            trial.count("power cuts", int(await world.midway()))
            _cut_power(trial, world.run.data, keep=True)
            if trial.chance.random() < 0.5:
                (world.run.data / WATERMARK).write_bytes(old)
            _require_acknowledged(world.run.data, truth)
            await world.online()
            await world.run.start(*ROLES)
        await world.settle()


async def fail_sync(trial: Trial) -> None:
    """Let one sync fail: the server ends, and nothing that it did not sync was acknowledged."""
    truth = trial.truth(events=EVENTS)
    (trial.directory / "fail-sync").write_text(str(trial.chance.randrange(5, 30)))
    async with _hooked(trial, truth) as world:
        await world.run.start(*ROLES)
        ended = asyncio.create_task(world.run.roles["server"].ended())
        finished = asyncio.create_task(world.run.roles["client"].said("is finished"))
        await asyncio.wait({ended, finished}, return_when=asyncio.FIRST_COMPLETED)
        finished.cancel()
        await asyncio.gather(finished, return_exceptions=True)
        if not ended.done():
            ended.cancel()
            raise laws.ViolationError("failed sync: the server goes on after it")
        laws.require(ended.result() == 1, "failed sync", f"exit code {ended.result()}")
        await world.require_midway()
        trial.count("failed syncs")
        await world.run.kill("client", "processor")
        _cut_power(trial, world.run.data, keep=False)
        _require_acknowledged(world.run.data, truth)
        await world.run.start(*ROLES)
        await world.settle()


def _batch(line: bytes) -> bytes:
    """A whole batch of one event, as this server would write it."""
    stored = line + b"\n"
    said = f'{{"lines":1,"bytes":{len(stored)},"crc32":"{zlib.crc32(stored):08x}"'.encode()
    check = f',"header_crc32":"{zlib.crc32(said):08x}"}}'.encode()
    return line[:-1] + b',"_batch":' + said + check + b"}\n"


async def past_watermark(trial: Trial) -> None:
    """Let whole batches stand past the watermark, unsynced, and take them away again."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth) as world, world.watched():
        await world.run.start(*ROLES)
        await world.until_part(0.2 + trial.chance.random() / 2)
        world.run.roles["server"].send_signal(signal.SIGSTOP)
        await world.require_midway()
        durable = json.loads((world.run.data / WATERMARK).read_bytes())["events"]
        newest = laws.partitions(world.run.data)[-1]
        size = newest.stat().st_size
        with newest.open("ab") as file:
            file.write(_batch(b'{"userId":"ghost","name":"add_revenue","value":1}'))
        await world.run.kill("processor")
        await world.run.start("processor")
        await world.run.roles["processor"].said("working")
        await world.database.until(APPLIED_AT_LEAST, True, durable)
        await _require_nothing_past(world, durable)
        with newest.open("ab") as file:
            file.truncate(size)
        world.run.roles["server"].send_signal(signal.SIGCONT)
        trial.count("batches past the watermark")
        await world.settle()


async def _require_nothing_past(world: World, durable: int) -> None:
    try:
        async with asyncio.timeout(NOTHING_S):
            await world.database.until(APPLIED_AT_LEAST, True, durable + 1)
    except TimeoutError:
        return
    raise laws.ViolationError("acknowledged: events past the watermark are applied")


async def far_east(trial: Trial) -> None:
    """Run where local time is nine hours ahead: names are UTC all the same."""
    truth = trial.truth(events=EVENTS // 4)
    before = _now() - timedelta(seconds=5)
    async with trial.world(truth, TZ="Asia/Tokyo") as world, world.watched():
        await world.run.start(*ROLES)
        await world.settle()
        for path in laws.partitions(world.run.data):
            minute = datetime.strptime(path.name[14:24], "%y%m%d%H%M").replace(tzinfo=UTC)
            begins = minute + timedelta(seconds=5 * int(path.name[24:26]))
            laws.require(before <= begins <= _now(), "names", f"{path.name} is not UTC")
        trial.count("names", len(laws.partitions(world.run.data)))


def _now() -> datetime:
    return datetime.now(UTC)


ROWS = [
    Row(name="unplug", run=unplug, trials=20, short=True),
    Row(name="unplug-failed-sync", run=fail_sync, trials=20, short=True),
    Row(name="past-watermark", run=past_watermark, trials=10, short=True),
    Row(name="far-east", run=far_east, trials=2),
]
