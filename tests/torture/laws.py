"""The laws that hold after every fault, checked by other code than that which must keep them.

`online` holds at any moment; the others once faults are off and the pipeline is drained.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

import asyncpg

_NAME = re.compile(r"server_events_\d{12}\.jsonl")
_HEADER = b',"_batch":{'

SNAPSHOT_OFFSETS = "SELECT partition, bytes, lines FROM partition_offsets WHERE log_id = $1"
SNAPSHOT_TOTALS = """
    SELECT user_id, sum(part) AS total
    FROM (SELECT user_id, revenue FROM users_revenue
          UNION ALL
          SELECT user_id, delta FROM deferred_revenue) AS parts (user_id, part)
    GROUP BY user_id
"""


class ViolationError(AssertionError):
    """A law does not hold."""


def require(true: bool, law: str, what: str) -> None:
    if not true:
        raise ViolationError(f"{law}: {what}")


def partitions(data: Path) -> list[Path]:
    """All partitions, oldest first by name."""
    return sorted(path for path in data.iterdir() if _NAME.fullmatch(path.name))


def without_header(line: bytes) -> bytes:
    """A stored line as it was sent."""
    at = line.rfind(_HEADER)
    return line if at < 0 else line[:at] + line[line.index(b"}", at) + 1 :]


def stored(data: Path) -> list[bytes]:
    """All events of the log, in order, as they were sent."""
    return [
        without_header(line)
        for path in partitions(data)
        for line in path.read_bytes().split(b"\n")[:-1]
    ]


def totals(lines: Iterable[bytes]) -> dict[str, Decimal]:
    """Every user's revenue, by the standard library alone."""
    found: defaultdict[str, Decimal] = defaultdict(Decimal)
    for line in lines:
        event = json.loads(line, parse_float=Decimal, parse_int=Decimal)
        found[event["userId"]] += event["value"] * (1 if event["name"] == "add_revenue" else -1)
    return dict(found)


def compare_totals(law: str, found: dict[str, Decimal], expected: dict[str, Decimal]) -> None:
    """Compare exactly; a user without revenue counts too."""
    if found == expected:
        return
    users = sorted(
        user for user in found.keys() | expected.keys() if found.get(user) != expected.get(user)
    )
    shown = ", ".join(f"{u}: {found.get(u)} not {expected.get(u)}" for u in users[:3])
    raise ViolationError(f"{law}: {len(users)} users differ: {shown}")


async def online(data: Path, connection: asyncpg.Connection) -> int:
    """Check that one snapshot of offsets and totals fits the bytes below these offsets.

    Return the number of events applied.
    """
    try:
        log_id = (data / "log_id").read_text().strip()
    except FileNotFoundError:
        return 0  # nobody has opened the directory yet
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        offsets = await connection.fetch(SNAPSHOT_OFFSETS, log_id)
        rows = await connection.fetch(SNAPSHOT_TOTALS)
    lines = list(_below(data, offsets))
    require(
        len(lines) == sum(row["lines"] for row in offsets),
        "online",
        "offsets do not count the lines below them",
    )
    compare_totals("online", {row["user_id"]: row["total"] for row in rows}, totals(lines))
    return len(lines)


def _below(data: Path, offsets: Iterable[asyncpg.Record]) -> Iterator[bytes]:
    for row in offsets:
        part = (data / row["partition"]).read_bytes()[: row["bytes"]]
        require(part.endswith(b"\n") or not part, "online", f"{row['partition']}: torn offset")
        yield from (without_header(line) for line in part.split(b"\n")[:-1])


def log(data: Path, sent: list[bytes]) -> None:
    """The log holds exactly the accepted events, in the order they were sent."""
    found = stored(data)
    if found != sent:
        missing, surplus = Counter(sent) - Counter(found), Counter(found) - Counter(sent)
        raise ViolationError(
            f"log: {len(found)} events, {len(sent)} were sent; "
            f"{missing.total()} are missing, {surplus.total()} too many"
        )


def dead_letters(data: Path, bad_lines: list[int]) -> None:
    """Each bad line is one dead letter, under its own number, in order."""
    path = data / "dead_letters.jsonl"
    found = [json.loads(line)["line"] for line in path.read_bytes().splitlines()]
    require(found == bad_lines, "completeness", f"{len(found)} dead letters, not {len(bad_lines)}")


def mirror(data: Path, lines: int) -> None:
    """The mirror adds up to what was applied."""
    found = sum(json.loads((data / "processor_offset.json").read_bytes()).values())
    require(found == lines, "mirror", f"says {found}, applied are {lines}")


def clean(data: Path, logged: Iterable[str]) -> None:
    """No traceback, no leftover temporary file."""
    faults = [line for line in logged if "Traceback" in line or "nothing answered" in line]
    require(not faults, "clean", "; ".join(faults[:3]))
    left = [path.name for path in data.glob("*.tmp") if not _in_use(path)]
    require(not left, "clean", f"left over: {left}")


def _in_use(path: Path) -> bool:
    """Say whether the process that a temporary file is named after still lives: it is at work."""
    return Path("/proc", path.name.split(".")[-2]).exists()
