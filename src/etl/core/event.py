"""The only event parser: every way into the system goes through it.

An event is one JSON object on one line: `userId` (1 to 255 characters, no NUL, no lone
surrogate), `name` (`add_revenue` or `subtract_revenue`) and `value` (a JSON number: a multiple
of 0.000001 below 10^18 in size, judged by its exact value). Other members are kept and ignored;
of a member given twice the last counts; `_batch` at the top level is the log's and is refused.

Invariants:

* `parse_line` decides. The fast decoders accept only what it accepts, and what they refuse is
  asked of it again, so no result depends on which way a line took.
* An amount never is a binary float.

Amounts are integers of millionths everywhere behind this module.
"""

from __future__ import annotations

import itertools
import json
import re
from decimal import (
    Context,
    Decimal,
    DecimalException,
    Inexact,
    InvalidOperation,
    Overflow,
    Subnormal,
    Underflow,
)
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

import msgspec

LINE_BYTES_MAX = 64 * 1024
USER_ID_LENGTH_MAX = 255
MILLION = 1_000_000
AMOUNT_DIGITS_MAX = 18
DEPTH_MAX = 64  # far below any recursion limit, so that depth is judged alike everywhere
RESERVED_MEMBER = "_batch"

_UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=USER_ID_LENGTH_MAX)]
_Name = Literal["add_revenue", "subtract_revenue"]
_Units = Annotated[int, msgspec.Meta(gt=-(10**18), lt=10**18)]


class Event(NamedTuple):
    """One valid event; `amount` is what it adds to the user's revenue, in millionths."""

    user_id: str
    amount: int


class EventError(ValueError):
    """A line is not an event; the message is the reason, for the sender."""


class IntegerEvent(msgspec.Struct, gc=False):
    """The common case, decoded in C: an event whose value is written as an integer, in units."""

    userId: _UserId  # noqa: N815  the wire's name
    name: _Name
    value: _Units
    reserved: msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name=RESERVED_MEMBER)


class DecimalEvent(msgspec.Struct, gc=False):
    """An event with any JSON number as value; only sound where no value is a string.

    `amount` is the value as it was read, and an integer of millionths once it was found good.
    """

    userId: _UserId  # noqa: N815  the wire's name
    name: _Name
    amount: int | Decimal = msgspec.field(name="value")
    reserved: msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name=RESERVED_MEMBER)


class _Number(str):
    """The text of a JSON number, so that it is never rounded on the way."""

    __slots__ = ()


def _refuse_constant(text: str) -> NoReturn:
    raise EventError(f"{text} is not JSON")


_loads = json.JSONDecoder(
    parse_float=_Number, parse_int=_Number, parse_constant=_refuse_constant
).decode


def parse_line(line: bytes) -> Event:
    """Read one line, without its line break, strictly.

    Raises:
        EventError: it is not an event.
    """
    if b"\n" in line:
        raise EventError("event spans lines")
    return parse_document(line)


def parse_document(document: bytes) -> Event:
    """Read one event that may be spread over lines, strictly otherwise.

    Raises:
        EventError: it is not an event.
    """
    if len(document) > LINE_BYTES_MAX:
        raise EventError(f"event is {len(document)} bytes, the limit is {LINE_BYTES_MAX}")
    if _openers(document) > DEPTH_MAX and _depth(document) > DEPTH_MAX:
        raise EventError("nested too deep")
    try:
        found = _loads(document.decode())
    except UnicodeDecodeError as error:
        raise EventError(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise EventError(f"not JSON: {error.msg.lower()} at character {error.pos}") from None
    if not isinstance(found, dict):
        raise EventError("not a JSON object")
    return _event(found)


def _openers(data: bytes) -> int:
    return data.count(b"{") + (data.count(b"[") if b"[" in data else 0)  # a search is cheaper


_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STEPS = [(byte in b"{[") - (byte in b"}]") for byte in range(256)]


def _depth(document: bytes) -> int:
    """Return how deep brackets nest outside strings, also in members that a later one replaces.

    Told from the bytes, because what has been parsed no longer shows the replaced ones, and how
    deep the parser itself can go depends on who calls it.
    """
    outside = b"".join(_ESCAPE.sub(b"", document).split(b'"')[::2])
    return max(itertools.accumulate(map(_STEPS.__getitem__, outside)), default=0)


def _event(members: dict[str, Any]) -> Event:
    if RESERVED_MEMBER in members:
        raise EventError(f"member {RESERVED_MEMBER} is reserved")
    for name in ("userId", "name", "value"):
        if name not in members:
            raise EventError(f"member {name} is missing")
    amount = parse_amount(members["value"])
    match members["name"]:
        case "add_revenue":
            return Event(_user_id(members["userId"]), amount)
        case "subtract_revenue":
            return Event(_user_id(members["userId"]), -amount)
        case other:
            raise EventError(f"name is {_shown(other)}, not add_revenue or subtract_revenue")


def _user_id(value: object) -> str:
    if not isinstance(value, str) or isinstance(value, _Number):
        raise EventError(f"userId is {_shown(value)}, not a string")
    if not 1 <= len(value) <= USER_ID_LENGTH_MAX:
        raise EventError(f"userId has {len(value)} characters, not 1 to {USER_ID_LENGTH_MAX}")
    if "\0" in value:
        raise EventError("userId contains NUL")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise EventError("userId contains a lone surrogate") from None
    return value


# Digits of the longest line fit, so every operation in this context is exact, or raises.
_EXACT = Context(
    prec=LINE_BYTES_MAX + 32,
    Emax=10**17,
    Emin=-(10**17),
    traps=[InvalidOperation, Overflow, Underflow, Inexact],
)


def parse_amount(value: object) -> int:
    """Return a JSON number as millionths.

    Raises:
        EventError: it is no number, too fine, or too large.
    """
    if not isinstance(value, _Number):
        raise EventError(f"value is {_shown(value)}, not a number")
    if len(value) <= AMOUNT_DIGITS_MAX and "." not in value and "e" not in value.lower():
        return int(value) * MILLION
    try:
        number = _EXACT.create_decimal(value)
    except Overflow:  # an exponent that no number of digits in a line makes up for
        raise EventError("value is 10^18 or larger in size") from None
    except Underflow:
        raise EventError("value is not a multiple of 0.000001") from None
    return millionths(number)


# What fits here without a signal is in range and exact; all else is looked at again.
_QUICK = Context(
    prec=AMOUNT_DIGITS_MAX + 6,
    Emax=AMOUNT_DIGITS_MAX + 6 - 1,
    Emin=-(10**6),
    traps=[InvalidOperation, Overflow, Underflow, Subnormal, Inexact],
)
_quick_scaleb, _quick_integer = _QUICK.scaleb, _QUICK.to_integral_exact


def millionths(number: Decimal) -> int:
    """Return an exact decimal number as millionths.

    Raises:
        EventError: it is too large, or not a multiple of 0.000001.
    """
    try:
        return int(_quick_integer(_quick_scaleb(number, 6)))
    except DecimalException:
        return _millionths(number)


def _millionths(number: Decimal) -> int:
    if not number:
        return 0
    if number.adjusted() >= AMOUNT_DIGITS_MAX:
        raise EventError("value is 10^18 or larger in size")
    if number.adjusted() < -6:
        raise EventError("value is not a multiple of 0.000001")
    scaled = _EXACT.scaleb(number, 6)
    if scaled != _EXACT.to_integral_value(scaled):
        raise EventError("value is not a multiple of 0.000001")
    return int(scaled)


def _shown(value: object) -> str:
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case _Number():
            return "a number"
        case str():
            return f"the string {json.dumps(value[:40])}"
        case list():
            return "an array"
        case _:
            return "an object"


_decode_integers = msgspec.json.Decoder(IntegerEvent).decode_lines
_decode_decimals = msgspec.json.Decoder(DecimalEvent).decode_lines
_STRING_VALUE = re.compile(rb'"value"[ \t\r]*:[ \t\r]*"')

FastEvents = list[IntegerEvent] | list[DecimalEvent]


def decode_fast(data: bytes) -> FastEvents | None:
    """Decode one event per line in C, if every line is one and nothing about them is unusual.

    `data` holds whole lines. None means: ask `parse_line`, line by line.

    The decoder splits on values, not on lines. So every line break must stand between `}` and
    `{`, which no JSON value contains with only a line break between them, and the number of
    lines must be the number of values: then each line is exactly one value. What the decoder
    does not check itself is ruled out on the bytes: escapes (NUL, `value` in another spelling)
    by the absence of any backslash, bad UTF-8 in skipped members by decoding, long lines by
    length, deep nesting by the number of brackets.
    """
    lines = data.count(b"\n")
    if not data.endswith(b"}\n") or data.count(b"}\n{") != lines - 1:
        return None
    if b"\\" in data or not _is_utf8(data) or _has_long_line(data) or _may_nest(data, lines):
        return None
    events = _decoded(data)
    return events if len(events) == lines else None


def decode_judged(data: bytes) -> FastEvents | None:
    """Decode whole lines of which each is known to be an event; None means the same as above.

    What the decoder does not check itself was checked then, at a third of the cost of both. Only
    escapes are left, which it reads in its own way.
    """
    if b"\\" in data:
        return None
    events = _decoded(data)
    return events if len(events) == data.count(b"\n") else None


def _decoded(data: bytes) -> FastEvents:
    try:
        return _decode_integers(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decimals(data)


def _decimals(data: bytes) -> list[DecimalEvent]:
    if _STRING_VALUE.search(data):
        return []
    try:
        events = _decode_decimals(data)
        for event in events:
            value = event.amount
            if isinstance(value, Decimal):
                event.amount = millionths(value)
            elif -(10**18) < value < 10**18:
                event.amount = value * MILLION
            else:
                return []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, EventError):
        return []
    return events


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _may_nest(data: bytes, lines: int) -> bool:
    if _openers(data) < lines + DEPTH_MAX:
        return False
    return any(_openers(line) > DEPTH_MAX for line in data.split(b"\n"))


def _has_long_line(data: bytes) -> bool:
    if len(data) <= LINE_BYTES_MAX:
        return False
    start = 0
    while len(data) - start > LINE_BYTES_MAX + 1:
        end = data.rfind(b"\n", start, start + LINE_BYTES_MAX + 1)
        if end < start:
            return True
        start = end + 1
    return False
