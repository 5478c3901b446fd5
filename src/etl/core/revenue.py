"""The fold: events become one delta per user, in millionths, exactly.

A delta is an integer of any size; order does not matter, and nothing is ever rounded.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import cast

from etl.core.event import (
    MILLION,
    DecimalEvent,
    EventError,
    FastEvents,
    IntegerEvent,
    decode_fast,
    decode_judged,
    parse_line,
)
from etl.core.lines import BLOCK_BYTES, CACHED_BYTES, WHITE_SPACE, pieces

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


def fold(data: bytes, deltas: Deltas, *, judged: bool = False) -> list[Unusable]:
    """Add the events in `data`, whole lines, to `deltas`; return the lines that are none.

    Blank lines count for nothing. `judged`: each line is known to be an event, because a checksum
    says that nothing has changed since it was found to be one.
    """
    decode = decode_judged if judged else decode_fast
    unusable: list[Unusable] = []
    number = byte = 0
    for piece in pieces(data, CACHED_BYTES):
        events = decode(piece)
        if events is not None:
            _add(events, deltas)
            number += len(events)
        else:
            number = _fold_odd(piece, deltas, unusable, number=number, byte=byte)
        byte += len(piece)
    return unusable


def _fold_odd(
    data: bytes, deltas: Deltas, unusable: list[Unusable], *, number: int, byte: int
) -> int:
    """Fold lines of which one at least is unusual; return the number of the line behind them."""
    for piece in pieces(data, BLOCK_BYTES):
        events = decode_fast(piece)
        if events is not None:
            _add(events, deltas)
            number += len(events)
            byte += len(piece)
            continue
        for line in piece.split(b"\n")[:-1]:
            if line.strip(WHITE_SPACE):
                try:
                    user_id, amount = parse_line(line)
                except EventError as error:
                    found = Unusable(line=number, byte=byte, reason=str(error), text=line)
                    unusable.append(found)
                else:
                    deltas[user_id] += amount
            number += 1
            byte += len(line) + 1
    return number


def _add(events: FastEvents, deltas: Deltas) -> None:
    # One dictionary, one pass: with many users the look-up costs more than the arithmetic.
    if events and isinstance(events[0], DecimalEvent):
        for event in events:
            amount = int(event.amount)
            deltas[event.userId] += amount if event.name == "add_revenue" else -amount
        return
    for whole in cast("list[IntegerEvent]", events):
        if whole.name == "add_revenue":
            deltas[whole.userId] += whole.value * MILLION
        else:
            deltas[whole.userId] -= whole.value * MILLION


def format_revenue(revenue: Decimal) -> str:
    """Return an exact JSON number without trailing zeros and without an exponent."""
    text = format(revenue, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text
