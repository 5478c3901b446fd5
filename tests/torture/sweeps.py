"""Rows: each process killed at every system call, and calls that fail, one after the other."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from etl.log.names import WINDOW_S, name_at
from torture.rows import Row
from torture.traced import Place, Strike, free_port
from torture.trial import Trial, Vacuous

EVENTS = 30
BAD_EVERY = 13
POINTS_MAX = 250
# So many windows from now on may a trial's first partition be named after.
WINDOWS = 6


async def sweep(trial: Trial, victim: str) -> None:
    """Kill at the first call of each name, the second, and so on, until none is left."""
    await _sweep(await _place(trial, victim))


async def sweep_recovery(trial: Trial) -> None:
    """The same for a server that starts on a log with a torn tail and without a watermark."""
    place = await _place(trial, "server")
    await place.leave_torn()
    await _sweep(place)
    if not trial.counts["torn tails repaired"]:
        raise Vacuous("no torn tail was repaired")


async def _sweep(place: Place) -> None:
    trial = place.trial
    for call in await place.calls():
        strike = Strike(call=call, number=1)
        while await place.killed(strike):
            trial.count("sweep points")
            strike = replace(strike, number=strike.number + 1)
            if trial.counts["sweep points"] > POINTS_MAX:
                raise AssertionError(f"more than {POINTS_MAX} calls, the last was {strike}")


async def fail(trial: Trial, victim: str, *errors: tuple[str, str, bool | None]) -> None:
    """Let each call of some names fail once; whether the process must end is said with it."""
    place = await _place(trial, victim)
    for call, error, ends in errors:
        number = 1
        while await place.failed(_failing(call, error, number), ends=ends):
            trial.count(f"{call} {error}")
            number += 1
    if not trial.counts:
        raise Vacuous("no call failed")


def _failing(call: str, error: str, number: int) -> Strike:
    """Narrow a write to the files in which a full disk shows; the rest are logs and sockets."""
    paths: tuple[str, ...] = ()
    if call == "write":
        windows = (name_at(time.time() + WINDOW_S * n) for n in range(WINDOWS))
        paths = ("dead_letters.jsonl", *windows)
    return Strike(call=call, number=number, action=f"error={error}", paths=paths)


async def _place(trial: Trial, victim: str) -> Place:
    return Place(
        trial=trial,
        truth=trial.truth(events=EVENTS, bad_every=BAD_EVERY),
        url=await trial.new_database(),
        victim=victim,
        port=free_port(),
    )


def _sweeping(victim: str) -> Callable[[Trial], Awaitable[None]]:
    return lambda trial: sweep(trial, victim)


def _failing_calls(
    victim: str, *errors: tuple[str, str, bool | None]
) -> Callable[[Trial], Awaitable[None]]:
    return lambda trial: fail(trial, victim, *errors)


SERVER_ERRORS = (
    ("fdatasync", "EIO", True),
    ("fsync", "EIO", None),
    ("write", "ENOSPC", False),
    ("pwrite64", "ENOSPC", None),
    ("rename", "ENOSPC", None),
)
# The client never ends by itself.
CLIENT_ERRORS = (
    ("fdatasync", "EIO", False),
    ("fsync", "EIO", False),
    ("write", "ENOSPC", False),
    ("rename", "ENOSPC", False),
)
PROCESSOR_ERRORS = (("fsync", "EIO", None), ("rename", "ENOSPC", False))

ROWS = [
    Row(name="sweep-server", run=_sweeping("server"), trials=1, needs=("strace",)),
    Row(name="sweep-recovery", run=sweep_recovery, trials=1, needs=("strace",)),
    Row(name="sweep-client", run=_sweeping("client"), trials=1, needs=("strace",)),
    Row(name="sweep-processor", run=_sweeping("processor"), trials=1, needs=("strace",)),
    Row(
        name="fail-server",
        run=_failing_calls("server", *SERVER_ERRORS),
        trials=2,
        needs=("strace",),
    ),
    Row(
        name="fail-client",
        run=_failing_calls("client", *CLIENT_ERRORS),
        trials=2,
        needs=("strace",),
    ),
    Row(
        name="fail-processor",
        run=_failing_calls("processor", *PROCESSOR_ERRORS),
        trials=2,
        needs=("strace",),
    ),
]
