"""Framing: one object, one line, one event; what else may stand on a line, and between lines."""

from __future__ import annotations

from corpus.case import LIMIT, PLAIN, UNIT, Body, Case, event, refused, with_more, with_value
from corpus.sizes import padded

_NO_JSON = "not JSON"
_NO_OBJECT = "not a JSON object"
_OVER = f"the limit is {LIMIT}"

_REFUSED: dict[str, tuple[bytes, str]] = {
    "two events on a line": (PLAIN + PLAIN, _NO_JSON),
    "two events on a line, a space between": (PLAIN + b" " + PLAIN, _NO_JSON),
    "two events on a line, a comma between": (PLAIN + b"," + PLAIN, _NO_JSON),
    "an event in an array": (b"[" + PLAIN + b"]", _NO_OBJECT),
    "an event in a string": (b'"' + PLAIN.replace(b'"', b'\\"') + b'"', _NO_OBJECT),
    "a string": (b'"add_revenue"', _NO_OBJECT),
    "a number": (b"1", _NO_OBJECT),
    "null": (b"null", _NO_OBJECT),
    "an empty array": (b"[]", _NO_OBJECT),
    "a word": (b"hello", _NO_JSON),
    "comma-separated values": (b"u,add_revenue,1", _NO_JSON),
    "a comma behind the last member": (PLAIN[:-1] + b",}", _NO_JSON),
    "a comma before the first member": (b"{," + PLAIN[1:], _NO_JSON),
    "no closing brace": (PLAIN[:-1], _NO_JSON),
    "no opening brace": (PLAIN[1:], _NO_JSON),
    "a brace too many": (PLAIN + b"}", _NO_JSON),
    "an empty object behind": (PLAIN + b"{}", _NO_JSON),
    "a comma behind": (PLAIN + b",", _NO_JSON),
    "a word behind": (PLAIN + b" x", _NO_JSON),
    "cut in the middle": (PLAIN[:20], _NO_JSON),
    "a comment of C behind": (PLAIN + b" // one", _NO_JSON),
    "a comment of C within": (b"{/* one */" + PLAIN[1:], _NO_JSON),
    "a comment of Python": (b"# " + PLAIN, _NO_JSON),
    "single quotes": (PLAIN.replace(b'"', b"'"), _NO_JSON),
    "names without quotes": (b'{userId:"u",name:"add_revenue",value:1}', _NO_JSON),
    "no colon": (PLAIN.replace(b":", b" "), _NO_JSON),
    "an equals sign": (PLAIN.replace(b":", b"="), _NO_JSON),
    "a record separator before": (b"\x1e" + PLAIN, _NO_JSON),
    "a vertical tab before": (b"\v" + PLAIN, _NO_JSON),
    "a form feed behind": (PLAIN + b"\f", _NO_JSON),
    "a form feed within": (b"{\f" + PLAIN[1:], _NO_JSON),
    "a no-break space before": ("\xa0".encode() + PLAIN, _NO_JSON),
    "a line separator of Unicode behind": ("\u2028".encode().join([PLAIN, PLAIN]), _NO_JSON),
    "a form feed alone": (b"\f", _NO_JSON),
    "an event stream's prefix": (b"data: " + PLAIN, _NO_JSON),
}

CASES: tuple[Case, ...] = (
    event("line: compact", PLAIN),
    event("line: spaces between", b'{ "userId" : "u" , "name" : "add_revenue" , "value" : 1 }'),
    event("line: tabs and carriage returns between", PLAIN.replace(b",", b"\t\r,\r\t")),
    event("line: spaces before and behind", b" \t\r" + PLAIN + b" \t\r"),
    *(refused(f"line: {name}", line, reason) for name, (line, reason) in _REFUSED.items()),
)

_TWO = with_value(b"2")
_DECIMAL = with_value(b"0.5")
_HALF = UNIT // 2
_BAD = b"nonsense"

_BLANKS: tuple[Body, ...] = (
    Body(name="empty", body=b"", single=_NO_JSON),
    Body(name="one line break", body=b"\n", blank=1, single=_NO_JSON),
    Body(name="three line breaks", body=b"\n\n\n", blank=3, single=_NO_JSON),
    Body(name="spaces only", body=b" \t\r", blank=1, single=_NO_JSON),
    Body(name="spaces and a line break", body=b" \t\r\n", blank=1, single=_NO_JSON),
    Body(
        name="blank lines before, between, behind",
        body=b"\n" + PLAIN + b"\n \n" + _TWO + b"\n\t\n",
        amounts=(UNIT, 2 * UNIT),
        blank=3,
        single=_NO_JSON,
    ),
    Body(name="a blank line before one", body=b"\n" + PLAIN, amounts=(UNIT,), blank=1, single=UNIT),
)

_SEVERAL: tuple[Body, ...] = (
    Body(name="no line break at the end", body=PLAIN, amounts=(UNIT,), single=UNIT),
    Body(name="a line break at the end", body=PLAIN + b"\n", amounts=(UNIT,), single=UNIT),
    Body(name="CRLF at the end", body=PLAIN + b"\r\n", amounts=(UNIT,), single=UNIT),
    Body(
        name="CRLF between",
        body=PLAIN + b"\r\n" + _DECIMAL + b"\r\n",
        amounts=(UNIT, _HALF),
        single=_NO_JSON,
    ),
    Body(
        name="CR alone ends no line",
        body=PLAIN + b"\r" + PLAIN + b"\n",
        rejected={1: _NO_JSON},
        single=_NO_JSON,
    ),
    Body(
        name="the last line without its break",
        body=PLAIN + b"\n" + _TWO,
        amounts=(UNIT, 2 * UNIT),
        single=_NO_JSON,
    ),
    Body(
        name="integers and decimals",
        body=b"\n".join([PLAIN, _DECIMAL, _TWO]),
        amounts=(UNIT, _HALF, 2 * UNIT),
        single=_NO_JSON,
    ),
    Body(
        name="bad lines first, between and last",
        body=b"\n".join([_BAD, PLAIN, _BAD, b"", _DECIMAL, _BAD]),
        amounts=(UNIT, _HALF),
        rejected={1: _NO_JSON, 3: _NO_JSON, 6: _NO_JSON},
        blank=1,
        single=_NO_JSON,
    ),
    Body(
        name="a byte order mark spoils the first line only",
        body=b"\xef\xbb\xbf" + PLAIN + b"\n" + _TWO + b"\n",
        amounts=(2 * UNIT,),
        rejected={1: _NO_JSON},
        single=_NO_JSON,
    ),
    Body(
        name="an array of events over lines",
        body=b"[" + PLAIN + b",\n" + PLAIN + b"]\n",
        rejected={1: _NO_JSON, 2: _NO_JSON},
        single=_NO_OBJECT,
    ),
)

# As many values as line breaks, but not one on each line: a decoder of values would be content.
_SPLIT: tuple[Body, ...] = (
    Body(
        name="an event over two lines",
        body=PLAIN.replace(b",", b",\n", 1) + b"\n",
        rejected={1: _NO_JSON, 2: _NO_JSON},
        single=UNIT,
    ),
    Body(
        name="an event over many lines, CRLF",
        body=PLAIN.replace(b",", b",\r\n  ").replace(b"{", b"{\r\n  ") + b"\r\n",
        rejected=dict.fromkeys(range(1, 5), _NO_JSON),
        single=UNIT,
    ),
    Body(
        name="two events on one line, one over two",
        body=PLAIN + PLAIN + b"\n" + PLAIN.replace(b",", b",\n", 1) + b"\n",
        rejected={1: _NO_JSON, 2: _NO_JSON, 3: _NO_JSON},
        single=_NO_JSON,
    ),
    Body(
        name="two events on one line, then a blank one",
        body=PLAIN + PLAIN + b"\n\n",
        rejected={1: _NO_JSON},
        blank=1,
        single=_NO_JSON,
    ),
    Body(
        name="two events on one line, then a brace on its own",
        body=PLAIN + PLAIN[:-1] + b"\n}\n",
        rejected={1: _NO_JSON, 2: _NO_JSON},
        single=_NO_JSON,
    ),
    Body(
        name="a break that looks like one between lines, within a string",
        body=with_more(b'"x":"}\n{"') + b"\n",
        rejected={1: _NO_JSON, 2: _NO_JSON},
        single=_NO_JSON,
    ),
    Body(
        name="the same, and two events on one line to make up for it",
        body=with_more(b'"x":"}\n{"') + PLAIN + b"\n",
        rejected={1: _NO_JSON, 2: _NO_JSON},
        single=_NO_JSON,
    ),
    Body(
        name="a raw line break within userId",
        body=PLAIN.replace(b'"u"', b'"u\n"') + b"\n",
        rejected={1: _NO_JSON, 2: _NO_JSON},
        single=_NO_JSON,
    ),
    Body(
        name="a raw line break between two good lines",
        body=PLAIN + b"\n" + PLAIN.replace(b'"u"', b'"\n"') + b"\n" + _TWO + b"\n",
        amounts=(UNIT, 2 * UNIT),
        rejected={2: _NO_JSON, 3: _NO_JSON},
        single=_NO_JSON,
    ),
)

_LONG: tuple[Body, ...] = (
    Body(
        name="two lines at the limit",
        body=padded(LIMIT) + b"\n" + padded(LIMIT) + b"\n",
        amounts=(UNIT, UNIT),
        single=_OVER,
    ),
    Body(
        name="lines over the limit between good ones",
        body=b"\n".join([PLAIN, padded(LIMIT + 1), _TWO, padded(3 * LIMIT), _DECIMAL]),
        amounts=(UNIT, 2 * UNIT, _HALF),
        rejected={2: _OVER, 4: _OVER},
        single=_OVER,
    ),
    Body(
        name="over the limit by a carriage return",
        body=padded(LIMIT) + b"\r\n",
        rejected={1: _OVER},
        single=UNIT,
    ),
    Body(
        name="over the limit by a space before, by one behind",
        body=b" " + padded(LIMIT) + b"\n" + padded(LIMIT) + b" \n",
        rejected={1: _OVER, 2: _OVER},
        single=_OVER,
    ),
    Body(
        name="blank lines at the limit and over it",
        body=b" " * LIMIT + b"\n" + b" " * (LIMIT + 1) + b"\n" + b" " * (LIMIT - 1) + b"\r\n",
        rejected={2: _OVER},
        blank=2,
        single=_NO_JSON,
    ),
    Body(
        name="at the limit over lines",
        body=padded(LIMIT - 1).replace(b",", b",\n", 1),
        rejected={1: _NO_JSON, 2: _NO_JSON},
        single=UNIT,
    ),
    Body(
        name="over the limit by the line break within",
        body=padded(LIMIT).replace(b",", b",\n", 1),
        rejected={1: _NO_JSON, 2: _NO_JSON},
        single=_OVER,
    ),
    Body(
        name="3,000 good lines, one bad in the middle",
        body=b"\n".join([PLAIN] * 1_500 + [_BAD] + [_DECIMAL] * 1_500),
        amounts=(UNIT,) * 1_500 + (_HALF,) * 1_500,
        rejected={1_501: _NO_JSON},
        single=_OVER,
    ),
)

BODIES: tuple[Body, ...] = (*_BLANKS, *_SEVERAL, *_SPLIT, *_LONG)
