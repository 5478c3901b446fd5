"""The parser, the fast way, the judge and the fold against an independent reader and oracle."""

from __future__ import annotations

import json
from collections import defaultdict
from fractions import Fraction

from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus import BODIES, CASES
from etl.core.event import EventError, IntegerEvent, decode_fast, parse_line
from etl.core.lines import WHITE_SPACE, count_lines, drop_lines, judge
from etl.core.revenue import fold, new_deltas
from support import strict

MANY = settings(max_examples=200, deadline=None)

# What JSON is made of, and what comes near it.
_FRAGMENTS = [
    *(b"{", b"}", b"[", b"]", b",", b":", b" ", b"\t", b"\r", b'"', b"\\", b"\0", b"\xff", b"\f"),
    *(b"0", b"-", b"1", b".5", b"e", b"E+", b"e-7", b"00", b"1e400", b"0.000001", b"0.0000001"),
    *(b'"userId":', b'"name":', b'"value":', b'"_batch":', rb'"v\u0061lue":', b'"x":', b'"":'),
    *(b'"u"', b'"add_revenue"', b'"subtract_revenue"', b"null", b"true", b"NaN", b"-Infinity"),
    *(b'"5"', rb'"\ud83d"', rb'"\ud83d\udca9"', rb'"\u0000"', "💩".encode(), b"\xed\xa0\x80"),
    *(b'{"userId":"u","name":"add_revenue","value":1}', b"\xef\xbb\xbf", b"[[[[", b"{}", b'"a":1,'),
]
_digits = st.text("0123456789", min_size=1, max_size=25)
_numbers = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-", "+", "0"]),
    _digits,
    st.one_of(st.just(""), _digits.map(".{}".format), st.just(".")),
    st.one_of(
        st.just(""), st.builds("{}{}".format, st.sampled_from(["e", "E", "e+", "e-"]), _digits)
    ),
)
_near_the_limits = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "-"]),
    st.sampled_from(["999999999999999999", "1000000000000000000", "0", "1", "9007199254740993"]),
    st.sampled_from(["", ".0", ".000001", ".9999990", ".0000001", "e-6", "e-24", "e0", "e18"]),
)
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=5)
).map(json.dumps)
_values = st.one_of(_numbers, _near_the_limits, _scalars, st.just('[1,{"a":[]}]'), st.just('"5"'))
_names = st.sampled_from(["add_revenue", "subtract_revenue", "add", ""]).map(json.dumps)
_user_ids = st.one_of(
    st.text(st.characters(), max_size=6).map(json.dumps),
    st.text(st.characters(codec="utf-8"), max_size=6).map(
        lambda s: json.dumps(s, ensure_ascii=False)
    ),
    st.sampled_from([0, 1, 254, 255, 256]).map(lambda n: '"' + "é" * n + '"'),
    _scalars,
)
_KEYS = ["userId", "name", "value", "_batch", "x", "", r"v\u0061lue", r"\u005fbatch"]
_more = st.tuples(st.sampled_from(_KEYS), st.one_of(_values, _names, _user_ids))
_spaces = st.sampled_from(["", "", " ", "\t", "\r", "\f", "\n"])


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """Lines that are nearly, and often quite, events."""
    members = [
        ("userId", draw(_user_ids)),
        ("name", draw(_names)),
        ("value", draw(_values)),
        *draw(st.lists(_more, max_size=2)),
    ]
    space = draw(_spaces)
    texts = [f'"{key}"{space}:{space}{value}' for key, value in draw(st.permutations(members))]
    return ("{" + f"{space},".join(texts) + "}").encode("utf-8", "surrogatepass")


_plain = st.builds(
    lambda user, name, value: json.dumps({"userId": user, "name": name, "value": value}).encode(),
    st.sampled_from(["u", "v", "é", "w" * 255]),
    st.sampled_from(["add_revenue", "subtract_revenue"]),
    st.integers(-(10**18) + 1, 10**18 - 1),
)
_decimal = st.builds(
    lambda user, whole, part: (
        b'{"userId":"%s","name":"add_revenue","value":%d.%s}' % (user, whole, part)
    ),
    st.sampled_from([b"u", b"v"]),
    st.integers(-(10**17), 10**17),
    st.text("0123456789", min_size=1, max_size=6).map(str.encode),
)
_soup = st.lists(st.sampled_from(_FRAGMENTS), max_size=12).map(b"".join)
_corpus = st.sampled_from([case.line for case in CASES if len(case.line) < 2_000])
lines = st.one_of(objects(), _plain, _decimal, _soup, _corpus)
# Any bytes, and bytes that look like many lines.
bodies = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([*_FRAGMENTS, b"\n", b"}\n{", b"\r\n"]), max_size=30).map(b"".join),
    st.lists(lines, max_size=30).map(b"\n".join),
    st.lists(st.one_of(_plain, _decimal), max_size=60).map(lambda some: b"\n".join([*some, b""])),
)


def read(line: bytes) -> tuple[str, Fraction] | None:
    try:
        event = parse_line(line)
    except EventError:
        return None
    return event.user_id, Fraction(event.amount, 10**6)


@MANY
@given(line=lines)
def test_parser_and_independent_reader_agree_on_every_line(line: bytes) -> None:
    assert read(line) == strict.read(line)


def test_parser_and_independent_reader_agree_on_the_corpus() -> None:
    for case in CASES:
        assert read(case.line) == strict.read(case.line), case.name


@MANY
@given(number=st.one_of(_numbers, _near_the_limits))
def test_numbers_are_worth_what_they_say(number: str) -> None:
    line = b'{"userId":"u","name":"add_revenue","value":%s}' % number.encode()
    expected = strict.read(line)
    assert read(line) == expected
    deltas = new_deltas()
    assert len(fold(line + b"\n", deltas)) == (expected is None)
    assert deltas == ({} if expected is None else {"u": expected[1] * 10**6})


@MANY
@given(body=bodies)
def test_fast_way_takes_only_what_the_independent_reader_takes_line_by_line(body: bytes) -> None:
    events = decode_fast(body)
    if events is None:
        return
    assert body.endswith(b"\n")
    expected = [strict.read(line) for line in body.split(b"\n")[:-1]]
    found = [
        (
            event.userId,
            strict.NAMES[event.name]
            * (
                Fraction(event.value)
                if isinstance(event, IntegerEvent)
                else Fraction(int(event.amount), 10**6)
            ),
        )
        for event in events
    ]
    assert found == expected


@MANY
@given(body=bodies)
@example(body=b'{"userId":"u","name":"add_revenue","value":1}' * 2 + b"\n\n")
@example(body=next(b.body for b in BODIES if b.name.startswith("the same")))
def test_every_line_is_judged_as_if_it_stood_alone(body: bytes) -> None:
    whole = body + b"\n" if body and not body.endswith(b"\n") else body
    kept, refused, blank = [], [], 0
    for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
        stripped = line.strip(WHITE_SPACE)
        if not stripped:
            blank += 1
        elif strict.read(line) is None:
            refused.append(number)
        else:
            kept.append(stripped)
    judged = judge(body)
    assert judged.lines == count_lines(body) == len(kept) + len(refused) + blank
    assert (judged.events, judged.blank) == (len(kept), blank)
    assert [rejection.line for rejection in judged.rejections] == refused
    stored = judged.stored.split(b"\n")
    assert stored.pop() == b""
    assert [line.strip(WHITE_SPACE) for line in stored] == kept


@MANY
@given(body=bodies)
def test_what_is_stored_folds_to_the_sums_of_the_oracle(body: bytes) -> None:
    expected: defaultdict[str, Fraction] = defaultdict(Fraction)
    for line in body.split(b"\n"):
        event = strict.read(line)
        if event is not None:
            expected[event[0]] += event[1] * 10**6
    judged = judge(body)
    for known in (False, True):
        deltas = new_deltas()
        assert fold(judged.stored, deltas, judged=known) == []
        assert deltas == expected


@MANY
@given(body=bodies, data=st.data())
def test_known_lines_are_dropped_whole(body: bytes, data: st.DataObject) -> None:
    known = data.draw(st.integers(0, count_lines(body)))
    rest = drop_lines(body, known)
    assert count_lines(rest) == count_lines(body) - known
    assert body.endswith(rest)
    head, tail = judge(body[: len(body) - len(rest)]), judge(rest)
    judged = judge(body)
    assert judged.stored == head.stored + tail.stored
    assert judged.rejections[: len(head.rejections)] == head.rejections
    assert [r.line - known for r in judged.rejections[len(head.rejections) :]] == [
        r.line for r in tail.rejections
    ]
