"""Sizes: a line has at most 64 KiB."""

from __future__ import annotations

from corpus.case import LIMIT, PLAIN, Case, event, refused, with_more, with_user

_OVER = f"the limit is {LIMIT}"
_EMOJI = "💩".encode()


def padded(size: int, fill: bytes = b"x") -> bytes:
    """Return an event of exactly `size` bytes."""
    room = size - len(with_more(b'"x":""'))
    padding = fill * (room // len(fill))
    return with_more(b'"x":"' + padding + b"x" * (room - len(padding)) + b'"')


def spaced(size: int) -> bytes:
    """Return an event of exactly `size` bytes, most of them white space within it."""
    return PLAIN[:-1] + b" " * (size - len(PLAIN)) + b"}"


CASES: tuple[Case, ...] = (
    event("size: one below the limit", padded(LIMIT - 1)),
    event("size: at the limit", padded(LIMIT)),
    event("size: at the limit, of emoji", padded(LIMIT, _EMOJI)),
    event("size: at the limit, of escapes", padded(LIMIT, rb"\n")),
    event("size: at the limit, of spaces", spaced(LIMIT)),
    refused("size: one over the limit", padded(LIMIT + 1), _OVER),
    refused("size: over the limit by one emoji's bytes", padded(LIMIT + 1, _EMOJI), _OVER),
    refused("size: one over the limit, of spaces", spaced(LIMIT + 1), _OVER),
    refused("size: a megabyte", padded(1024 * 1024), _OVER),
    refused("size: a megabyte of userId", with_user(b'"' + b"x" * 1024 * 1024 + b'"'), _OVER),
    refused("size: a megabyte that is not JSON", b"x" * 1024 * 1024, _OVER),
)
