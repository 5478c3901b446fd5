"""An independent reader of events, slow and strict, to compare with.

Written against the rules, with other means than the parser: pairs instead of dictionaries, exact
fractions instead of decimals, and numbers by their own grammar.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import NoReturn

NAMES = {"add_revenue": 1, "subtract_revenue": -1}
LINE_BYTES_MAX = 65536
DEPTH_MAX = 64
# An exponent beyond this can't be made up for by the digits that fit a line.
EXPONENT_MAX = 10**6
_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


class _Text(str):
    """A number as it was written."""

    __slots__ = ()


class _Pairs(list[tuple[str, object]]):
    """An object, with all its members."""


def read(line: bytes) -> tuple[str, Fraction] | None:
    """Return user id and what the event on a line adds, or None for no event."""
    return None if b"\n" in line else read_document(line)


def read_document(document: bytes) -> tuple[str, Fraction] | None:
    """Return the same of an event that may be spread over lines."""
    if len(document) > LINE_BYTES_MAX:
        return None
    try:
        text = document.decode("utf-8", "strict")
        found = json.loads(
            text,
            parse_int=_Text,
            parse_float=_Text,
            parse_constant=_refuse,
            object_pairs_hook=_Pairs,
        )
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, _Pairs) or _is_deeper(found, DEPTH_MAX):
        return None
    return _event(found)


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def _event(members: _Pairs) -> tuple[str, Fraction] | None:
    if any(name == "_batch" for name, _ in members):
        return None
    user_id, name, value = (
        next((value for name, value in reversed(members) if name == wanted), None)
        for wanted in ("userId", "name", "value")
    )
    if type(user_id) is not str or type(name) is not str or name not in NAMES:
        return None
    if not 0 < len(user_id) < 256 or any(c == "\0" or "\ud800" <= c <= "\udfff" for c in user_id):
        return None
    number = _exact(value) if isinstance(value, _Text) else None
    if number is None or abs(number) >= 10**18 or (number * 10**6).denominator != 1:
        return None
    return user_id, NAMES[name] * number


def _exact(text: _Text) -> Fraction | None:
    match = _NUMBER.fullmatch(text)
    assert match is not None, text
    sign, whole, decimals, exponent = match.groups()
    digits = whole + (decimals or "")
    coefficient = sum(
        int(digits[max(0, end - 4000) : end]) * 10 ** (len(digits) - end)
        for end in range(len(digits), 0, -4000)
    )
    if not coefficient:
        return Fraction(0)
    power = int(exponent or 0) - len(decimals or "")
    if abs(power) > EXPONENT_MAX:
        return None
    size = Fraction(coefficient) * Fraction(10) ** power
    return -size if sign else size


def _is_deeper(value: object, levels: int) -> bool:
    if isinstance(value, _Pairs):
        inner = [member for _, member in value]
    elif isinstance(value, list):
        inner = value
    else:
        return False
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)
