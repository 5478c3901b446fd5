"""User ids: how long, which characters, and that they are taken as they are."""

from __future__ import annotations

from corpus.case import Case, event, refused, with_user

_EMOJI = "\N{PILE OF POO}"
_NO_JSON = "not JSON"

_TAKEN: dict[str, tuple[bytes, str]] = {
    "one character": (b'"u"', "u"),
    "255 characters": (b'"' + b"x" * 255 + b'"', "x" * 255),
    "one emoji": (f'"{_EMOJI}"'.encode(), _EMOJI),
    "255 emoji, 1,020 bytes": (f'"{_EMOJI * 255}"'.encode(), _EMOJI * 255),
    "255 emoji as escapes": (b'"' + b"\\ud83d\\udca9" * 255 + b'"', _EMOJI * 255),
    "255 letters with an accent": (f'"{"é" * 255}"'.encode(), "é" * 255),
    "an escape": (rb'"\u0041"', "A"),
    "an escape in capitals": (rb'"\u00E9"', "é"),
    "all short escapes": (rb'"\"\\\/\b\f\n\r\t"', '"\\/\b\f\n\r\t'),
    "a slash": (b'"a/b"', "a/b"),
    "percent and 2F": (b'"a%2Fb"', "a%2Fb"),
    "quotes of SQL": (
        b'"Robert\'); DROP TABLE users_revenue;--"',
        "Robert'); DROP TABLE users_revenue;--",
    ),
    "two dots": (b'".."', ".."),
    "a space": (b'" "', " "),
    "spaces kept": (b'" u "', " u "),
    "capitals kept": (b'"U"', "U"),
    "digits": (b'"1.5"', "1.5"),
    "the word null": (b'"null"', "null"),
    "a brace and a bracket": (b'"}{]["', "}{]["),
    "the opening of a header": (rb'",\"_batch\":{"', ',"_batch":{'),
    "DEL": (b'"\x7f"', "\x7f"),
    "U+0085, next line": ('"\x85"'.encode(), "\x85"),
    "U+2028, line separator": ('"\u2028"'.encode(), "\u2028"),
    "U+FEFF, byte order mark": ('"\ufeffu"'.encode(), "\ufeffu"),
    "U+FFFF, no character": ('"\uffff"'.encode(), "\uffff"),
    "U+10FFFF, the last": ('"\U0010ffff"'.encode(), "\U0010ffff"),
    "composed": ('"\u00e9"'.encode(), "\u00e9"),
    "decomposed": ('"e\u0301"'.encode(), "e\u0301"),
    "right to left": ('"\u202eu"'.encode(), "\u202eu"),
}

_REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b'""', "0 characters"),
    "256 characters": (b'"' + b"x" * 256 + b'"', "256 characters"),
    "256 emoji": (f'"{_EMOJI * 256}"'.encode(), "256 characters"),
    "256 emoji as escapes": (b'"' + b"\\ud83d\\udca9" * 256 + b'"', "256 characters"),
    "60,000 characters": (b'"' + b"x" * 60_000 + b'"', "60000 characters"),
    "NUL as escape": (rb'"a\u0000b"', "NUL"),
    "NUL raw": (b'"a\0b"', _NO_JSON),
    "lone high surrogate": (rb'"\ud83d"', "lone surrogate"),
    "lone low surrogate": (rb'"\udca9"', "lone surrogate"),
    "surrogates in the wrong order": (rb'"\udca9\ud83d"', "lone surrogate"),
    "high surrogate before a letter": (rb'"\ud83dx"', "lone surrogate"),
    "tab raw": (b'"a\tb"', _NO_JSON),
    "carriage return raw": (b'"a\rb"', _NO_JSON),
    "escape character raw": (b'"a\x1bb"', _NO_JSON),
    "unknown escape": (rb'"\x41"', _NO_JSON),
    "short unicode escape": (rb'"\u041"', _NO_JSON),
    "escape with no hexadecimal digit": (rb'"\u00g1"', _NO_JSON),
    "escape with a sign": (rb'"\u+041"', _NO_JSON),
    "a number": (b"1", "a number, not a string"),
    "a number with a fraction": (b"1.5", "a number, not a string"),
    "null": (b"null", "null, not a string"),
    "true": (b"true", "true, not a string"),
    "an array": (b'["u"]', "an array, not a string"),
    "an object": (b'{"id":"u"}', "an object, not a string"),
    "no quotes": (b"u", _NO_JSON),
    "single quotes": (b"'u'", _NO_JSON),
    "not closed": (b'"u', _NO_JSON),
}

CASES: tuple[Case, ...] = (
    *(event(f"userId: {name}", with_user(text), user_id=u) for name, (text, u) in _TAKEN.items()),
    *(refused(f"userId: {name}", with_user(text), why) for name, (text, why) in _REFUSED.items()),
)
