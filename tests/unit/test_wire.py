"""The headers that say who sends, and which of their values are usable."""

from __future__ import annotations

import pytest

from etl.core.wire import NUMBER_MAX, Producer, ProducerError, parse_producer

SENT = {"Producer-Id": ["p"], "Producer-Epoch": ["7"], "Producer-Seq": ["12000"]}


def sent(**changed: list[str]) -> dict[str, list[str]]:
    return SENT | {f"Producer-{name.capitalize()}": values for name, values in changed.items()}


def test_headers_say_who_sends() -> None:
    assert parse_producer(SENT) == Producer(producer="p", epoch=7, first=12000)


def test_headers_that_are_written_are_read_back() -> None:
    producer = Producer(producer="aZ09._:-", epoch=0, first=NUMBER_MAX)
    written = {name: [value] for name, value in producer.headers().items()}
    assert parse_producer(written) == producer


def test_request_without_them_is_anonymous() -> None:
    assert parse_producer({}) is None
    assert parse_producer({"Producer-Id": [], "Producer-Epoch": [], "Producer-Seq": []}) is None


@pytest.mark.parametrize("missing", list(SENT))
def test_one_that_is_missing_is_named(missing: str) -> None:
    with pytest.raises(ProducerError, match=f"{missing} is missing"):
        parse_producer(SENT | {missing: []})


@pytest.mark.parametrize("only", list(SENT))
def test_one_alone_is_refused(only: str) -> None:
    with pytest.raises(ProducerError, match=f"is missing beside {only}"):
        parse_producer({only: SENT[only]})


@pytest.mark.parametrize("twice", list(SENT))
def test_one_given_twice_is_named_also_with_equal_values(twice: str) -> None:
    with pytest.raises(ProducerError, match=f"{twice} is given 2 times"):
        parse_producer(SENT | {twice: SENT[twice] * 2})


@pytest.mark.parametrize("producer", ["p", "x" * 128, "0", "-", "a.b_c:d-e", "123e4567-e89b-12d3"])
def test_usable_ids_are_taken_as_they_are(producer: str) -> None:
    found = parse_producer(sent(id=[producer]))
    assert found is not None
    assert found.producer == producer


@pytest.mark.parametrize(
    "producer",
    [
        "",
        "x" * 129,
        "a b",
        " p",
        "p\n",
        'p"',
        "p\\",
        "p{",
        "p}",
        "p/q",
        "p,q",
        "é",
        "\udcff",
        "p\0",
    ],
)
def test_id_that_json_would_escape_or_a_header_reader_mistake_is_refused(producer: str) -> None:
    with pytest.raises(ProducerError, match="Producer-Id should be"):
        parse_producer(sent(id=[producer]))


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("007", 7), (str(NUMBER_MAX), 2**63 - 1)])
def test_numbers_are_read(text: str, number: int) -> None:
    found = parse_producer(sent(epoch=[text], seq=[text]))
    assert found == Producer(producer="p", epoch=number, first=number)


@pytest.mark.parametrize("name", ["epoch", "seq"])
@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1.0", "1e3", " 1", "1\n", "0x1", "1_0", "٣", "x", str(2**63), "9" * 5_000],
)
def test_number_that_is_none_or_too_large_is_refused_by_name(name: str, text: str) -> None:
    header = f"Producer-{name.capitalize()}"
    with pytest.raises(ProducerError, match=f"{header} should be an integer"):
        parse_producer(sent(**{name: [text]}))
