"""Members: which must be there, which must not, given twice, spelled otherwise, nested."""

from __future__ import annotations

from corpus.case import Case, event, refused, with_more, with_name

_NO_JSON = "not JSON"
_RESERVED = "_batch is reserved"


def _nested(depth: int) -> bytes:
    """Return a value that makes an object it stands in `depth` deep."""
    return b"[" * (depth - 1) + b"]" * (depth - 1)


def _nested_objects(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"1" + b"}" * (depth - 1)


_NAMES: tuple[Case, ...] = (
    event("name: spelled with an escape", with_name(rb'"add\u005frevenue"')),
    refused("name: empty", with_name(b'""'), "add_revenue or subtract_revenue"),
    refused("name: another", with_name(b'"set_revenue"'), 'the string "set_revenue"'),
    refused("name: capitals", with_name(b'"ADD_REVENUE"'), "ADD_REVENUE"),
    refused("name: a space behind", with_name(b'"add_revenue "'), "add_revenue or"),
    refused("name: null", with_name(b"null"), "name is null"),
    refused("name: a number", with_name(b"1"), "name is a number"),
    refused("name: an array", with_name(b'["add_revenue"]'), "name is an array"),
    refused("name: lone surrogate", with_name(rb'"\ud800"'), r"\ud800"),
    refused("name: long", with_name(b'"' + b"n" * 60_000 + b'"'), "n" * 40),
)

_PRESENT: tuple[Case, ...] = (
    event("members: another order", b'{"value":1,"name":"add_revenue","userId":"u"}'),
    event("members: more of them", with_more(b'"time":"now","tags":["a",{"b":null}],"n":-1.5e-9')),
    event("members: an empty name", with_more(b'"":1')),
    event("members: a name in other letters", with_more(b'"VALUE":"x","userid":1,"Name":[]')),
    event("members: names of Python and JavaScript", with_more(b'"__proto__":{},"__class__":1')),
    event(
        "members: names spelled with escapes",
        rb'{"\u0075serId":"u","n\u0061me":"add_revenue","v\u0061lue":1}',
    ),
    event("members: more, a number beyond all bounds", with_more(b'"n":1e99999999999999999999')),
    event("members: more, 5,000 digits", with_more(b'"n":' + b"9" * 5_000)),
    event("members: more, lone surrogate", with_more(rb'"s":"\ud800"')),
    event("members: more, NUL as escape", with_more(rb'"s":"\u0000"')),
    event("members: more, value nested", with_more(b'"x":{"value":"2","userId":3}')),
    refused("members: more, NaN", with_more(b'"n":NaN'), _NO_JSON),
    refused("members: more, a leading zero", with_more(b'"n":00'), _NO_JSON),
    refused("members: more, a broken word", with_more(b'"n":nul'), _NO_JSON),
    refused("members: more, a capital word", with_more(b'"n":True'), _NO_JSON),
    refused("members: more, NUL raw", with_more(b'"s":"\0"'), _NO_JSON),
    refused("members: more, tab raw", with_more(b'"s":"\t"'), _NO_JSON),
    refused("members: more, tab raw in a name", with_more(b'"\t":1'), _NO_JSON),
    refused("members: more, a comma at the end of an array", with_more(b'"n":[1,]'), _NO_JSON),
    refused("members: none", b"{}", "userId is missing"),
    refused("members: no userId", b'{"name":"add_revenue","value":1}', "userId is missing"),
    refused("members: no name", b'{"userId":"u","value":1}', "name is missing"),
    refused("members: no value", b'{"userId":"u","name":"add_revenue"}', "value is missing"),
    refused("members: userid", b'{"userid":"u","name":"add_revenue","value":1}', "userId is miss"),
    refused(
        "members: nested only",
        b'{"event":{"userId":"u","name":"add_revenue","value":1}}',
        "userId is missing",
    ),
)

_TWICE: tuple[Case, ...] = (
    event(
        "twice: userId, the last counts",
        b'{"userId":"a","userId":"u","name":"add_revenue","value":1}',
    ),
    event("twice: value, the last counts", with_more(b'"value":2'), amount=2_000_000),
    event("twice: value, as a decimal", with_more(b'"value":2.5'), amount=2_500_000),
    event(
        "twice: name, the last counts", with_more(b'"name":"subtract_revenue"'), amount=-1_000_000
    ),
    event(
        "twice: value, first a string", b'{"userId":"u","value":"5","name":"add_revenue","value":1}'
    ),
    event(
        "twice: userId, first empty", b'{"userId":"","userId":"u","name":"add_revenue","value":1}'
    ),
    event("twice: value, the last with an escape", with_more(rb'"v\u0061lue":7'), amount=7_000_000),
    refused("twice: value, last a string", with_more(b'"value":"5"'), "not a number"),
    refused(
        "twice: value, last a string, with an escape",
        with_more(rb'"v\u0061lue":"5"'),
        "not a number",
    ),
    refused("twice: value, last null", with_more(b'"value":null'), "null, not a number"),
    refused("twice: userId, last empty", with_more(b'"userId":""'), "0 characters"),
    refused("twice: name, last another", with_more(b'"name":"x"'), "name is"),
)

_BATCH: tuple[Case, ...] = (
    refused("_batch: an object", with_more(b'"_batch":{}'), _RESERVED),
    refused(
        "_batch: as the log writes it",
        with_more(b'"_batch":{"lines":1,"bytes":46,"crc32":"00000000"}'),
        _RESERVED,
    ),
    refused("_batch: null", with_more(b'"_batch":null'), _RESERVED),
    refused("_batch: a number", with_more(b'"_batch":1'), _RESERVED),
    refused(
        "_batch: first", b'{"_batch":1,"userId":"u","name":"add_revenue","value":1}', _RESERVED
    ),
    refused("_batch: alone", b'{"_batch":{}}', _RESERVED),
    refused("_batch: space before the colon", with_more(b'"_batch" : {}'), _RESERVED),
    refused("_batch: one letter escaped", with_more(rb'"_b\u0061tch":{}'), _RESERVED),
    refused(
        "_batch: all letters escaped",
        with_more(rb'"\u005f\u0062\u0061\u0074\u0063\u0068":{}'),
        _RESERVED,
    ),
    refused("_batch: twice", with_more(b'"_batch":{},"_batch":1'), _RESERVED),
    event("_batch: nested", with_more(b'"x":{"a":1,"_batch":{"lines":9}}')),
    event("_batch: nested in an array", with_more(b'"x":[{"a":1,"_batch":{}}]')),
    event("_batch: a value", with_more(b'"x":"_batch"')),
    event("_batch: capitals", with_more(b'"_BATCH":{}')),
    event("_batch: a space behind", with_more(b'"_batch ":{}')),
    event("_batch: a NUL behind", with_more(rb'"_batch\u0000":{}')),
)

_DEEP = "nested too deep"

_NESTING: tuple[Case, ...] = (
    event("nesting: 64 deep, arrays", with_more(b'"x":' + _nested(64))),
    event("nesting: 64 deep, objects", with_more(b'"x":' + _nested_objects(64))),
    event("nesting: 100 objects side by side", with_more(b'"x":[' + b"{}," * 99 + b"{}]")),
    event("nesting: 100 brackets in a string", with_more(b'"x":"' + b"[{" * 50 + b'"')),
    event(
        "nesting: 100 brackets behind an escaped quote", with_more(rb'"x":"\"' + b"[" * 100 + b'"')
    ),
    event(
        "nesting: 63 deep behind a string that ends in a backslash",
        with_more(rb'"x":"\\","y":' + _nested(63)),
    ),
    refused("nesting: 65 deep, arrays", with_more(b'"x":' + _nested(65)), _DEEP),
    refused("nesting: 65 deep, objects", with_more(b'"x":' + _nested_objects(65)), _DEEP),
    refused(
        "nesting: 65 deep behind a string that ends in a backslash",
        with_more(rb'"x":"\\","y":' + _nested(65)),
        _DEEP,
    ),
    refused(
        "nesting: 65 deep in a member that is replaced",
        with_more(b'"x":' + _nested(65) + b',"x":1'),
        _DEEP,
    ),
    refused(
        "nesting: 900 deep in a member that is replaced",
        with_more(b'"x":' + _nested(900) + b',"x":1'),
        _DEEP,
    ),
    refused("nesting: 30,000 deep", with_more(b'"x":' + _nested(30_000)), _DEEP),
    refused("nesting: 60,000 open", b"[" * 60_000, _DEEP),
    refused("nesting: 200 open", with_more(b'"x":' + b"[" * 200), _DEEP),
)

CASES: tuple[Case, ...] = (*_NAMES, *_PRESENT, *_TWICE, *_BATCH, *_NESTING)
