"""Rows: torn ends, and bits that flip where the log was durable."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from etl.log.header import Batch, Header, Identity, encode
from etl.log.names import name_after, name_at
from etl.log.scan import hop, open_partition
from etl.runtime.errors import CorruptError
from support.pipeline import ROLES
from torture import laws
from torture.disk import EVENTS, PACE_S
from torture.rows import Row
from torture.trial import Trial, Vacuous, World
from torture.witness import require_acknowledged, witnessed

TEARS = 8
NEXT_LINES = 100
KINDS = ("garbage", "zeros", "cut", "cut and zeros", "whole", "nothing")


async def torn_tail(trial: Trial) -> None:
    """What a killed write may leave stands at the end of the log, or as a partition of its own."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth) as world, witnessed(world) as witness, world.watched():
        await world.run.start(*ROLES)
        for number in range(TEARS):
            await witness.until_part(0.9 * (number + trial.chance.random()) / TEARS)
            victims = trial.chance.choice((("server",), ("server", "client"), ROLES))
            await world.run.kill(*victims)
            acknowledged = witness.good()
            tear(world)
            if 0 < acknowledged < len(truth.good):
                trial.count("torn tails")
            await require_acknowledged(world, acknowledged)
            await world.run.start(*victims)
        if not trial.counts["torn tails"]:
            raise Vacuous("no tail was torn midway")
        await world.settle()
        repaired = sum("was torn at byte" in line for line in world.run.log_of("server"))
        trial.count("torn tails repaired", repaired)


def tear(world: World) -> str:
    """Append what was never acknowledged to the newest partition, or to one after it."""
    chance = world.trial.chance
    newest = laws.partitions(world.run.data)[-1]
    following = next_batch(world, newest)
    kind = chance.choice(KINDS)
    cut = following[: chance.randrange(1, len(following))]
    left = {
        "garbage": chance.randbytes(chance.randrange(1, 5000)),
        "zeros": bytes(chance.randrange(1, 5000)),
        "cut": cut,
        "cut and zeros": cut.ljust(len(following), b"\0"),
        "whole": following,
        "nothing": b"",
    }[kind]
    target = newest
    if chance.random() < 0.4:
        target = newest.with_name(max(name_at(time.time()), name_after(newest.name)))
        world.trial.count("torn new partitions")
    with target.open("ab") as file:
        file.write(left)
    return kind


def next_batch(world: World, newest: Path) -> bytes:
    """The batch that the server would have written next for its client."""
    batches = _batches(newest)
    header = batches[-1][1] if batches else None
    if header is None or header.identity is None:
        raise Vacuous("nothing was written yet")
    who, first = header.identity, header.identity.next
    lines = world.truth.source.split(b"\n")[first : first + NEXT_LINES]
    bad = set(world.truth.bad_lines)
    good = [line for at, line in enumerate(lines, first + 1) if line and at not in bad]
    if not good:
        raise Vacuous("nothing is left to be written")
    identity = Identity(
        producer=who.producer, epoch=who.epoch, sequence=first, next=first + NEXT_LINES
    )
    data = b"\n".join(good) + b"\n"
    return encode(Batch(data=data, events=len(good), identity=identity))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flip:
    """One bit of one byte of a partition, and how many events stand from its batch on."""

    path: Path
    byte: int
    mask: int
    lines_from_there: int

    def toggle(self) -> None:
        """Flip the bit; a second time it is as it was."""
        with self.path.open("rb+") as file:
            file.seek(self.byte)
            old = file.read(1)[0]
            file.seek(self.byte)
            file.write(bytes((old ^ self.mask,)))


async def bit_flip(trial: Trial) -> None:
    """A bit flips below the watermark: that partition stops, the others go on."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth) as world, witnessed(world, pace_s=PACE_S) as witness:
        await world.run.start(*ROLES)
        await world.until_part(trial.chance.uniform(0.05, 0.3))
        await world.run.kill("processor")
        await witness.until_part(1.0)
        flip = await _choose_flip(world)
        await world.require_midway()
        flip.toggle()
        trial.count("bit flips")
        if trial.chance.random() < 0.5:
            await _restart_server(world, flip)
        await world.run.start("processor")
        await world.run.roles["processor"].said(f"{flip.path.name} at byte")
        await world.database.until_applied(len(truth.good) - flip.lines_from_there)
        await world.online()
        flip.toggle()
        if trial.chance.random() < 0.5:  # else it is tried again by itself, after 10 s
            await world.run.kill("processor")
            await world.run.start("processor")
        await world.settle()


async def _restart_server(world: World, flip: _Flip) -> None:
    """A start beside the damage either finds nothing to do there, or refuses and names it."""
    before = flip.path.read_bytes()
    await world.run.kill("server")
    role = world.run.roles["server"] = await world.run.launch("server")
    try:
        await role.said("listening")
    except AssertionError:
        laws.require(await role.ended() == 1, "damage", "the start ended otherwise than with 1")
        laws.require(
            any(flip.path.name in line for line in role.log), "damage", "no word of the file"
        )
        world.trial.count("starts refused beside damage")
    laws.require(flip.path.read_bytes() == before, "damage", "the damaged file was changed")
    if role.process.returncode is not None:
        flip.toggle()
        await world.run.start("server")
        flip.toggle()


async def _choose_flip(world: World) -> _Flip:
    """Choose a bit in what is durable and not applied."""
    chance = world.trial.chance
    rows = await world.database.connection.fetch(
        "SELECT partition, bytes FROM partition_offsets ORDER BY partition"
    )
    applied = {row["partition"]: row["bytes"] for row in rows}
    waiting = [
        path
        for path in laws.partitions(world.run.data)
        if path.stat().st_size > applied.get(path.name, 0)
    ]
    if len(waiting) < 2:
        raise Vacuous("too few partitions wait")
    path = chance.choice(waiting)
    byte = chance.randrange(applied.get(path.name, 0), path.stat().st_size)
    behind = sum(header.lines for end, header in _batches(path) if end > byte)
    return _Flip(path=path, byte=byte, mask=1 << chance.randrange(8), lines_from_there=behind)


def _batches(path: Path) -> list[tuple[int, Header]]:
    """Where each batch of a partition ends, and its header; a torn end is left out."""
    found: list[tuple[int, Header]] = []
    fd = open_partition(path)
    try:
        with contextlib.suppress(CorruptError):
            for at, one in hop(fd, path.name, 0, path.stat().st_size):
                found.append((at + one.stored_bytes, one.header))
    finally:
        os.close(fd)
    return found


ROWS = [
    Row(name="torn-tail", run=torn_tail, trials=20, short=True),
    Row(name="bit-flip", run=bit_flip, trials=10),
]
