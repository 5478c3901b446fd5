"""Rows: the power is cut, and the machine comes back with what was synced.

The data directory stands on an image of its own; PostgreSQL is elsewhere and stays up, which is
the harder case: it must not know of anything that the log has lost.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.pipeline import ROLES
from torture import laws
from torture.image import Image, mounted
from torture.rows import Row
from torture.trial import Trial, Vacuous, World
from torture.witness import Witness, moment, require_acknowledged, witnessed

CUTS = 5
EVENTS = 20_000

_NO_SYNC = """
int fsync(int fd) { return 0; }
int fdatasync(int fd) { return 0; }
"""


async def power_cut(trial: Trial) -> None:
    """Cut the power again and again while events flow, and look before anything is restarted."""
    truth = trial.truth(events=EVENTS)
    with mounted(trial.directory) as image:
        async with trial.world(truth, data=image.data) as world, witnessed(world) as witness:
            midway = 0
            for number in range(CUTS):
                await world.run.start(*ROLES)
                await witness.until_part(0.9 * (number + trial.chance.random()) / CUTS)
                midway += await _cut(world, witness, image)
            if not midway:
                raise Vacuous("no power cut came midway")
            await world.run.start(*ROLES)
            await world.settle()
            laws.require(len(witness.runs) == 1, "log", f"{len(witness.runs)} runs sent it")


async def _cut(world: World, witness: Witness, image: Image) -> bool:
    """One cut, the kernel's repair, and the check; say whether it came midway."""
    await moment(world.trial.chance.uniform(0, 0.03))
    written = _bytes(image.data)
    image.cut_power()
    await world.run.kill(*ROLES)
    acknowledged = witness.good()
    image.unmount()
    image.mount()
    world.trial.count("power cuts")
    if _bytes(image.data) < written:
        world.trial.count("cuts that took bytes away")
    await require_acknowledged(world, acknowledged)
    await world.online()
    midway = 0 < acknowledged < len(world.truth.good)
    if midway:
        world.trial.count("power cuts midway")
    return midway


def _bytes(data: Path) -> int:
    """The bytes of all partitions; a directory that was never synced may be gone."""
    return sum(path.stat().st_size for path in laws.partitions(data)) if data.exists() else 0


async def control(trial: Trial) -> None:
    """Without real syncs the same trial must find a violation, or it would find none at all."""
    library = _without_sync(trial.directory)
    trial.env = {**trial.env, "LD_PRELOAD": str(library)}
    try:
        await power_cut(trial)
    except laws.ViolationError as error:
        if not str(error).startswith("acknowledged"):
            raise
        trial.count("losses found without sync")
    else:
        raise laws.ViolationError("acknowledged: nothing was lost without a single sync")


def _without_sync(directory: Path) -> Path:
    """Build a library that makes every sync a lie."""
    source = directory / "no_sync.c"
    source.write_text(_NO_SYNC)
    library = directory / "no_sync.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


_NEEDS = ("root", "mkfs.ext4", "mount", "umount")

ROWS = [
    Row(name="power-cut", run=power_cut, trials=25, needs=_NEEDS),
    Row(name="power-cut-control", run=control, trials=3, needs=(*_NEEDS, "gcc")),
]
