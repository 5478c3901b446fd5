"""The fold: events become one delta per user, in millionths, exactly.

A delta is an integer of any size; order does not matter, and nothing is ever rounded.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

from etl.core.event import (
    MILLION,
    DecimalEvent,
    EventError,
    FastEvents,
    decode_fast,
    millionths,
    parse_line,
)
from etl.core.lines import WHITE_SPACE

Deltas = defaultdict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """A line of the log that is not an event; `line` counts from 0 within what was folded."""

    line: int
    byte: int
    reason: str
    text: bytes


def new_deltas() -> Deltas:
    """Return deltas of nobody."""
    return defaultdict(int)


def fold(data: bytes, deltas: Deltas) -> list[Unusable]:
    """Add the events in `data`, whole lines, to `deltas`; return the lines that are none.

    Blank lines count for nothing.
    """
    events = decode_fast(data)
    if events is not None:
        _add(events, deltas)
        return []
    unusable: list[Unusable] = []
    byte = 0
    for number, line in enumerate(data.split(b"\n")[:-1]):
        if line.strip(WHITE_SPACE):
            try:
                user_id, amount = parse_line(line)
            except EventError as error:
                unusable.append(Unusable(line=number, byte=byte, reason=str(error), text=line))
            else:
                deltas[user_id] += amount
        byte += len(line) + 1
    return unusable


def _add(events: FastEvents, deltas: Deltas) -> None:
    if not events:
        return
    if isinstance(events[0], DecimalEvent):
        for event in events:
            value = event.value
            amount = value * MILLION if isinstance(value, int) else millionths(value)
            deltas[event.userId] += amount if event.name == "add_revenue" else -amount
        return
    # Whole units first: one multiplication a user instead of one an event.
    units: defaultdict[str, int] = defaultdict(int)
    for whole in events:
        if whole.name == "add_revenue":
            units[whole.userId] += whole.value
        else:
            units[whole.userId] -= whole.value
    for user_id, total in units.items():
        deltas[user_id] += total * MILLION


def format_revenue(revenue: Decimal) -> str:
    """Return an exact JSON number without trailing zeros and without an exponent."""
    text = format(revenue, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text
