"""The HTTP contract between client and server: paths, headers, limits, and the shapes of bodies."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

LIVE_EVENT_PATH = "/liveEvent"
USER_EVENTS_PATH = "/userEvents/"  # followed by the user id, percent-encoded

JSON_TYPE = "application/json"
NDJSON_TYPE = "application/x-ndjson"
PROBLEM_TYPE = "application/problem+json"
ACCEPT_POST = f"{JSON_TYPE}, {NDJSON_TYPE}"

PRODUCER_ID = "Producer-Id"
PRODUCER_EPOCH = "Producer-Epoch"
PRODUCER_SEQ = "Producer-Seq"
PRODUCER_EXPECTED_SEQ = "Producer-Expected-Seq"
PRODUCER_HEADERS = (PRODUCER_ID, PRODUCER_EPOCH, PRODUCER_SEQ)

# The most that a server may take; each may be set to take less.
BODY_BYTES_MAX = 8 * 1024 * 1024
BODY_LINES_MAX = 100_000
NUMBER_MAX = 2**63 - 1

# No character that JSON would escape and no brace: the log writes it into a header as it is.
_PRODUCER = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NUMBER = re.compile(r"[0-9]{1,19}")


class ProducerError(ValueError):
    """The producer headers of a request are unusable; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """Who sent a request, and the sequence of its first line."""

    producer: str
    epoch: int
    first: int

    def headers(self) -> dict[str, str]:
        """Return the request headers that say so."""
        return {
            PRODUCER_ID: self.producer,
            PRODUCER_EPOCH: str(self.epoch),
            PRODUCER_SEQ: str(self.first),
        }


def parse_producer(values: dict[str, list[str]]) -> Producer | None:
    """Read the producer headers of a request; `values` has all values of each header sent.

    Raises:
        ProducerError: some are missing, repeated, or unusable.
    """
    sent = [name for name in PRODUCER_HEADERS if values.get(name)]
    if not sent:
        return None
    for name in PRODUCER_HEADERS:
        if not values.get(name):
            raise ProducerError(f"{name} is missing beside {sent[0]}")
        if len(values[name]) > 1:
            raise ProducerError(f"{name} is given {len(values[name])} times")
    producer = values[PRODUCER_ID][0]
    if not _PRODUCER.fullmatch(producer):
        raise ProducerError(f"{PRODUCER_ID} should be 1 to 128 of A-Z a-z 0-9 . _ : -")
    return Producer(
        producer=producer,
        epoch=_number(PRODUCER_EPOCH, values[PRODUCER_EPOCH][0]),
        first=_number(PRODUCER_SEQ, values[PRODUCER_SEQ][0]),
    )


def _number(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > NUMBER_MAX:
        raise ProducerError(f"{name} should be an integer from 0 to {NUMBER_MAX}")
    return int(text)


class RejectedLine(msgspec.Struct, frozen=True, gc=False):
    """A line of a request that is not an event; lines of a request count from 1."""

    line: int
    reason: str


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to NDJSON. The four counts add up to the lines of the request.

    `duplicates` counts the lines known before, of every kind; the other three only new ones.
    `next` is the sequence the producer should send next, null for an anonymous request.
    `rejections` lists the rejected lines of the whole request, known or new.
    """

    accepted: int
    rejected: int
    blank: int
    duplicates: int
    next: int | None
    rejections: list[RejectedLine]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error body, `application/problem+json` (RFC 9457)."""

    title: str
    status: int
    detail: str
