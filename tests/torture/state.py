"""Rows: each small file missing, torn, or an older copy, one by one.

What each may cost is documented, and no more may happen: nothing for most of them; without the
client's progress the source is sent again by a new producer; without the log id nothing starts.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from support.pipeline import ROLES
from torture import laws
from torture.disk import EVENTS, PACE_S
from torture.rows import Row
from torture.trial import Trial, Vacuous, World
from torture.witness import require_acknowledged, require_prefix, witnessed

WATERMARK = "server_watermark.json"
PRODUCERS = "server_producers.json"
LOG_ID = "log_id"
PROGRESS = "client_progress.json"
LETTERS = "dead_letters.jsonl"
MIRROR = "processor_offset.json"
LOCKS = ("server.lock", "client.lock", "processor.lock")
HARMS = ("missing", "empty", "torn", "flipped", "older")
TIMES = 5
# Our own pid lives, and pid 1 does; whose a lock is, the kernel knows and no text.
STALE = (f"server {os.getpid()}\n", "client 1\n", "\0\0", "", "x" * 4096)


def harm(trial: Trial, path: Path, how: str, older: bytes) -> None:
    """Do to a file what a crash, a bad disk or an operator may do."""
    data = path.read_bytes()
    at = trial.chance.randrange(max(1, len(data)))
    match how:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "torn":
            path.write_bytes(data[:at])
        case "flipped" if data:
            mask = 1 << trial.chance.randrange(8)
            path.write_bytes(data[:at] + bytes((data[at] ^ mask,)) + data[at + 1 :])
        case _:
            path.write_bytes(older)
    trial.count(f"{path.name} {how}")


async def exact(trial: Trial, file: str, harms: tuple[str, ...], *, pace_s: float = 0.0) -> None:
    """Harm a file of which nothing may depend, again and again, between kill and start."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth) as world, witnessed(world, pace_s=pace_s) as witness:
        await world.run.start(*ROLES)
        path, older, midway = world.run.data / file, b"", 0
        for number in range(TIMES):
            await witness.until_part(0.95 * (number + trial.chance.random()) / TIMES)
            await world.run.kill(*ROLES)
            if path.exists():
                now = path.read_bytes()
                if older:
                    midway += 0 < witness.good() < len(truth.good)
                    harm(trial, path, trial.chance.choice(harms), older)
                    await require_acknowledged(world, witness.good())
                    await world.online()
                if not older or trial.chance.random() < 0.3:
                    older = now
            await world.run.start(*ROLES)
        if not midway:
            raise Vacuous(f"{file} was not harmed midway")
        await world.settle()
        laws.require(len(witness.runs) == 1, "log", f"{len(witness.runs)} runs sent it")
        await _check_mirror(world)


async def _check_mirror(world: World) -> None:
    applied = await world.applied()
    await world.run.stop("processor")
    laws.mirror(world.run.data, applied)


async def no_log_id(trial: Trial) -> None:
    """Without the id of its log nothing starts: under a new one all would be counted again."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth) as world, witnessed(world) as witness:
        await world.run.start(*ROLES)
        await world.until_part(trial.chance.uniform(0.1, 0.8))
        await world.run.kill(*ROLES)
        await world.require_midway()
        path = world.run.data / LOG_ID
        kept = path.read_bytes()
        harm(trial, path, trial.chance.choice(("missing", "missing", "empty", "torn")), kept)
        applied = await world.applied()
        await _refused_without_id(world)
        laws.require(await world.applied() == applied, "log id", "something was applied")
        await require_acknowledged(world, witness.good())
        path.write_bytes(kept)
        await world.run.start("server", "client")  # the processor goes on by itself
        await world.settle()


async def _refused_without_id(world: World) -> None:
    """The server ends and says why; the processor says it, and waits."""
    server = world.run.roles["server"] = await world.run.launch("server")
    laws.require(await server.ended() == 1, "log id", "the server ended otherwise than with 1")
    laws.require(
        any(LOG_ID in line and "CRITICAL" in line for line in server.log),
        "log id",
        f"the server does not say why: {server.log[-1]}",
    )
    processor = world.run.roles["processor"] = await world.run.launch("processor")
    said = await processor.said("ERROR", "CRITICAL", "working")
    laws.require(LOG_ID in said, "log id", f"the processor does not say why: {said}")
    world.trial.count("starts refused", 2)


async def no_progress(trial: Trial) -> None:
    """Without its progress the client is a new producer, which sends all once more: documented."""
    truth = trial.truth(events=EVENTS // 2)
    async with trial.world(truth) as world, witnessed(world) as witness:
        await world.run.start(*ROLES)
        await witness.until_part(trial.chance.uniform(0.1, 0.8))
        await world.run.kill("client")
        first = witness.good()
        if not 0 < first < len(truth.good):
            raise Vacuous("the fault did not strike midway")
        how = trial.chance.choice(("missing", "torn", "empty"))
        harm(trial, world.run.data / PROGRESS, how, b"")
        await world.run.start("client")
        await world.run.roles["client"].said("is finished")
        stored = laws.stored(world.run.data)
        again = stored[len(stored) - len(truth.good) :]
        laws.require(again == truth.good, "log", "the second run is not the whole source")
        require_prefix(world, stored[: len(stored) - len(truth.good)], first)
        await world.database.until_applied(len(stored))
        laws.compare_totals("final", await world.database.true_totals(), laws.totals(stored))
        _check_letters_of_last_run(world)
        await world.online()


def _check_letters_of_last_run(world: World) -> None:
    letters = [json.loads(line) for line in (world.run.data / LETTERS).read_bytes().splitlines()]
    last = letters[-1]["producer"]
    found = [letter["line"] for letter in letters if letter["producer"] == last]
    laws.require(found == world.truth.bad_lines, "completeness", "letters of the second run")


async def letters(trial: Trial) -> None:
    """A torn last letter is written again; of a lost file only the letters still to come."""
    truth = trial.truth(events=EVENTS, bad_every=5)
    async with trial.world(truth) as world, witnessed(world) as witness, world.watched():
        await world.run.start(*ROLES)
        torn = trial.chance.random() < 0.7
        for number in range(TIMES if torn else 1):
            await witness.until_part(0.9 * (number + 0.1 + 0.9 * trial.chance.random()) / TIMES)
            await world.run.kill("client")
            path = world.run.data / LETTERS
            if 0 < witness.good() < len(truth.good):
                trial.count("letters torn" if torn else "letters lost")
            if torn:
                _tear_letters(trial, path)
            else:
                path.unlink()
            lost_before = json.loads((world.run.data / PROGRESS).read_bytes())["next"]
            await world.run.start("client")
        if not trial.counts:
            raise Vacuous("no letter was harmed midway")
        if torn:
            await world.settle()
            return
        await world.drained()
        laws.log(world.run.data, truth.good)
        laws.dead_letters(world.run.data, [n for n in truth.bad_lines if n > lost_before])


def _tear_letters(trial: Trial, path: Path) -> None:
    """Cut the file after its last letter that progress may not have passed, or add half a one."""
    data = path.read_bytes()
    line = data.splitlines(keepends=True)[-1]
    half = line[: trial.chance.randrange(1, len(line))]
    path.write_bytes(data + trial.chance.choice((half, bytes(len(half)), half + bytes(40))))


async def stale_locks(trial: Trial) -> None:
    """Lock files of processes that are gone, of foreign ones, unreadable, or removed."""
    truth = trial.truth(events=EVENTS)
    async with trial.world(truth) as world, world.watched():
        await world.run.start(*ROLES)
        for number in range(TIMES):
            await world.until_part(0.9 * (number + trial.chance.random()) / TIMES)
            await world.run.kill(*ROLES)
            midway = await world.midway()
            for name in LOCKS:
                (world.run.data / name).write_text(trial.chance.choice(STALE))
                if trial.chance.random() < 0.3:
                    (world.run.data / name).unlink()
            trial.count("stale locks", len(LOCKS) * midway)
            await world.run.start(*ROLES)
        if not trial.counts["stale locks"]:
            raise Vacuous("no restart came midway")
        await world.settle()


async def wiped(trial: Trial) -> None:
    """A wiped data directory is a new log: counted anew beside the old one, which is named."""
    truth = trial.truth(events=EVENTS // 2)
    async with trial.world(truth) as world, witnessed(world) as witness:
        await world.run.start(*ROLES)
        await witness.until_part(trial.chance.uniform(0.2, 0.8))
        await world.run.kill(*ROLES)
        before, old = await world.applied(), (world.run.data / LOG_ID).read_text().strip()
        await world.require_midway()
        totals = await world.database.true_totals()
        shutil.rmtree(world.run.data)
        trial.count("directories wiped")
        await world.run.start(*ROLES)
        said = await world.run.roles["processor"].said("other logs have offsets")
        laws.require(old in said, "named", f"{old} is not in {said}")
        await world.run.roles["client"].said("is finished")
        await world.database.until_applied(before + len(truth.good))
        laws.log(world.run.data, truth.good)
        laws.dead_letters(world.run.data, truth.bad_lines)
        expected = laws.totals(truth.good)
        for user, total in totals.items():
            expected[user] = expected.get(user, total - total) + total
        laws.compare_totals("final", await world.database.true_totals(), expected)


def _exact(file: str, *harms: str, pace_s: float = 0.0) -> Callable[[Trial], Awaitable[None]]:
    return lambda trial: exact(trial, file, harms, pace_s=pace_s)


ROWS = [
    Row(name="state-watermark", run=_exact(WATERMARK, *HARMS), trials=10, short=True),
    Row(name="state-producers", run=_exact(PRODUCERS, *HARMS, pace_s=PACE_S), trials=5),
    Row(name="state-log-id", run=no_log_id, trials=5),
    Row(name="state-progress-lost", run=no_progress, trials=5),
    Row(name="state-progress-older", run=_exact(PROGRESS, "older"), trials=5),
    Row(name="state-dead-letters", run=letters, trials=8),
    Row(name="state-mirror", run=_exact(MIRROR, *HARMS), trials=5),
    Row(name="state-locks", run=stale_locks, trials=3),
    Row(name="state-wiped", run=wiped, trials=3),
]
