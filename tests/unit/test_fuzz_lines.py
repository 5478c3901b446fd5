"""Fuzzed lines, beside the independent reader; `python3 run.py fuzz` runs more of them."""

from __future__ import annotations

import random

import pytest

from fuzz import lines
from fuzz.http import requests_in

LINES = 12_000


def test_every_reader_of_lines_agrees_with_the_independent_one() -> None:
    # Random, but the same again with the seed that pytest prints at its start (-p randomly_seed).
    seed = random.getrandbits(32)
    print(f"python3 run.py fuzz --requests 0 --lines {LINES} --seed {seed}")  # noqa: T201
    counts = lines.run(LINES, seed)
    assert counts["lines"] >= LINES
    # Lines of both kinds, or nothing is compared.
    assert min(counts["events"], counts["refused or blank"]) > LINES // 4


def test_same_seed_makes_the_same_lines() -> None:
    assert lines.run(400, 7) == lines.run(400, 7)


_POST = b"POST /liveEvent HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("sent", "bodies", "broken"),
    [
        (b"", [], False),
        (_POST + b"Content-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n", [b"abc", b""], False),
        (_POST + b"Content-Length: 3\r\n\r\nab", [], False),
        (_POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", [], True),
        (_POST + b"Content-Length: +3\r\n\r\nabc", [], True),
        (_POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", [], True),
        (
            _POST + b"Transfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            [b"abc"],
            False,
        ),
        (_POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", [], True),
        (_POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", [], True),
        (_POST + b"X: a\r\n b\r\n\r\n", [], True),
        (_POST + b"X: a\nb\r\n\r\n", [], True),
        (_POST + b"X : a\r\n\r\n", [], True),
        (_POST + b"Connection: close\r\n\r\nrest", [b""], False),
        (b"post / HTTP/1.1\r\n\r\n", [], True),
    ],
)
def test_requests_in_a_stream_are_told_apart(
    sent: bytes, bodies: list[bytes], broken: bool
) -> None:
    found, ends_broken = requests_in(sent)
    assert [request.body for request in found] == bodies
    assert ends_broken is broken
