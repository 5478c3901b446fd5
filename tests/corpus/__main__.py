"""`python tests/corpus`: writes `docs/corpus.md`, the corpus as tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from corpus import BODIES, CASES, EXCHANGES, PATHS, SENDERS, Body, Case, Exchange

PAGE = Path(__file__).parents[2] / "docs" / "corpus.md"
_SHOWN = 90

_HEAD = """\
# The corpus

What is an event, a request, a producer, a user in a path, and what is not: every named case of
`tests/corpus` with its expected answer. Written by `python tests/corpus`; a test compares it.

Each line goes through the parser, the fast way, the judge, the fold, the client's file reader, the
log and its reader, and, alone and among others, through a server. Bytes are shown as Python writes
them; of long ones the beginning, and the length.
"""


def page() -> str:
    """Return the whole page."""
    total = sum(map(len, (CASES, BODIES, EXCHANGES, SENDERS, PATHS)))
    return "\n".join(
        [
            _HEAD,
            f"{total} cases.\n",
            *_table("Lines", ["line", "bytes", "answer"], map(_line, CASES)),
            *_table(
                "Bodies",
                ["body", "bytes", "as many events", "as one event"],
                map(_body, BODIES),
            ),
            *_table("Connections", ["connection", "bytes", "answers"], map(_exchange, EXCHANGES)),
            *_table(
                "Headers of a producer",
                ["headers", "bytes", "answer"],
                ([s.name, _bytes(b"\r\n".join(s.fields)), str(s.status)] for s in SENDERS),
            ),
            *_table(
                "Paths",
                ["path", "bytes", "asks for"],
                (
                    [p.name, _bytes(p.target), "nobody" if p.user_id is None else _text(p.user_id)]
                    for p in PATHS
                ),
            ),
        ]
    )


def _table(title: str, columns: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [
        f"## {title}\n",
        f"| {' | '.join(columns)} |",
        f"| {' | '.join('---' for _ in columns)} |",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def _line(case: Case) -> list[str]:
    if case.reason is not None:
        return [case.name, _bytes(case.line), f"refused: {_safe(case.reason)}"]
    amount = f"{case.amount} millionths"
    user = "" if case.user_id == "u" else f" of {_text(case.user_id)}"
    return [case.name, _bytes(case.line), f"{amount}{user}"]


def _body(body: Body) -> list[str]:
    refused = f", lines {_few(body.rejected)} refused" if body.rejected else ""
    blank = f", {body.blank} blank" if body.blank else ""
    single = body.single
    one = f"{single} millionths" if isinstance(single, int) else f"refused: {_safe(single)}"
    return [body.name, _bytes(body.body), f"{len(body.amounts)} taken{refused}{blank}", one]


def _exchange(exchange: Exchange) -> list[str]:
    answers = ", ".join(map(str, exchange.statuses))
    return [exchange.name, _bytes(exchange.sent), f"{answers}{', closed' * exchange.final}"]


def _few(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _bytes(data: bytes) -> str:
    more = f" ({len(data)} bytes)" if len(data) > _SHOWN else ""
    return f"{_code(repr(data[:_SHOWN])[2:-1])}{more}"


def _text(text: str) -> str:
    more = f" ({len(text)} characters)" if len(text) > _SHOWN else ""
    return f"{_code(ascii(text[:_SHOWN])[1:-1])}{more}"


def _code(text: str) -> str:
    """Return text as code in a table's cell; where it is empty, nothing."""
    fence = "``" if "`" in text else "`"
    pad = " " if text[:1] in {" ", "`"} or text[-1:] in {" ", "`"} else ""
    return f"{fence}{pad}{_safe(text)}{pad}{fence}" if text else ""


def _safe(text: str) -> str:
    return (text if len(text) <= _SHOWN else text[:_SHOWN] + "…").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
