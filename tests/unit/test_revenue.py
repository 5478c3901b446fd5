"""The fold is exact, and so is what is shown of it."""

from __future__ import annotations

import json
import random
import re
from decimal import Context, Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etl.core.revenue import fold, format_revenue, new_deltas

JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?")


def line(value: str, name: str = "add_revenue", user_id: str = "u") -> bytes:
    return b'{"userId":"%s","name":"%s","value":%s}\n' % tuple(
        map(str.encode, (user_id, name, value))
    )


@pytest.mark.parametrize(
    ("revenue", "shown"),
    [
        ("27", "27"),
        ("27.000000", "27"),
        ("1.10", "1.1"),
        ("0.3", "0.3"),
        ("0", "0"),
        ("-0", "0"),
        ("0.000000", "0"),
        ("-0.000", "0"),
        ("0E-20", "0"),
        ("0E+5", "0"),
        ("100", "100"),
        ("1E+2", "100"),
        ("1.5E+3", "1500"),
        ("1E-6", "0.000001"),
        ("-1E-6", "-0.000001"),
        ("1200.0034500", "1200.00345"),
        ("999999999999999999999999.999999", "999999999999999999999999.999999"),
        ("1E+40", "1" + "0" * 40),
    ],
)
def test_revenue_has_no_exponent_and_no_trailing_zero(revenue: str, shown: str) -> None:
    assert format_revenue(Decimal(revenue)) == shown


@given(st.decimals(min_value=-(10**40), max_value=10**40, places=6), st.integers(0, 9))
@example(Decimal("10000000000000000000000.000000"), 0)
def test_any_revenue_is_shown_exactly_as_a_json_number(revenue: Decimal, zeros: int) -> None:
    padded = revenue.quantize(Decimal(1).scaleb(-6), context=Context(prec=60))
    shown = format_revenue(revenue if zeros else padded)
    assert JSON_NUMBER.fullmatch(shown)
    assert Decimal(shown) == revenue
    assert shown != "-0"


def test_tenths_add_up() -> None:
    deltas = new_deltas()
    fold(line("0.1") + line("0.2"), deltas)
    assert deltas == {"u": 300_000}


def test_sums_grow_beyond_64_bits_without_loss() -> None:
    largest = line("999999999999999999.999999")
    deltas = new_deltas()
    for _ in range(3):
        fold(largest * 10_000, deltas)
    fold(line("1e-6"), deltas)
    assert deltas == {"u": 30_000 * (10**24 - 1) + 1}


def test_random_values_of_40_bits_fold_to_the_sums_of_an_oracle() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  shown when the test fails
    events = random.Random(seed)  # noqa: S311  no secret
    expected: dict[str, int] = {}
    lines = []
    for _ in range(5_000):
        user_id, millionths = f"user{events.randrange(50)}", events.getrandbits(40)
        sign, name = events.choice([(1, "add_revenue"), (-1, "subtract_revenue")])
        if events.random() < 0.5:
            millionths -= millionths % 10**6
        text = f"{millionths // 10**6}.{millionths % 10**6:06d}"
        lines.append(line(text.removesuffix(".000000"), name, user_id))
        expected[user_id] = expected.get(user_id, 0) + sign * millionths
    whole, parts = new_deltas(), new_deltas()
    assert fold(b"".join(lines), whole) == []
    for each in lines:
        assert fold(each, parts) == []
    assert whole == parts == expected


def test_lines_that_are_no_events_are_told_with_their_place_and_the_others_count() -> None:
    first, bad = line("1"), b'{"userId":"u"}\n'
    deltas = new_deltas()
    unusable = fold(first + bad + b" \n" + line("2.5") + bad, deltas)
    assert deltas == {"u": 3_500_000}
    assert [(u.line, u.byte) for u in unusable] == [
        (1, len(first)),
        (4, len(first + bad + b" \n" + line("2.5"))),
    ]
    assert {u.text for u in unusable} == {bad[:-1]}
    assert all("missing" in u.reason for u in unusable)


def test_nothing_folds_to_nothing() -> None:
    deltas = new_deltas()
    assert fold(b"", deltas) == []
    assert fold(b"\n \n", deltas) == []
    assert deltas == {}


def test_shown_revenue_is_read_by_any_json_reader() -> None:
    assert json.loads(f'{{"revenue":{format_revenue(Decimal("1E+2"))}}}') == {"revenue": 100}
