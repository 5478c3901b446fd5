"""How a case is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

LIMIT = 64 * 1024  # bytes of a line, as it was sent, less its line break

# What a case is where it is about something else: user `u`, one unit, in millionths.
USER = "u"
UNIT = 1_000_000
TOKEN = b"a-token-of-the-tests"
PLAIN = b'{"userId":"u","name":"add_revenue","value":1}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line: an event of `user_id` and `amount` millionths, or refused with a `reason`.

    `reason` is a part of the reason that the sender is told.
    """

    name: str
    line: bytes
    user_id: str = ""
    amount: int = 0
    reason: str | None = None

    @property
    def is_event(self) -> bool:
        """Say whether the line is an event."""
        return self.reason is None

    def with_return(self) -> Case:
        """Return the case of this line with a carriage return behind: the same, if it fits."""
        fits = self.reason is not None or len(self.line) < LIMIT
        reason = self.reason if fits else f"the limit is {LIMIT}"
        return replace(self, line=self.line + b"\r", reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One request.

    As NDJSON: the amounts of its events, all of user `u`, a part of the reason for each refused
    line, and how many lines are blank. As one JSON event: its amount, or a part of the reason.
    """

    name: str
    body: bytes
    amounts: tuple[int, ...] = ()
    rejected: Mapping[int, str] = field(default_factory=dict)
    blank: int = 0
    single: int | str


def event(name: str, line: bytes, *, user_id: str = USER, amount: int = UNIT) -> Case:
    """Return a case of a line that is an event."""
    return Case(name=name, line=line, user_id=user_id, amount=amount)


def refused(name: str, line: bytes, reason: str) -> Case:
    """Return a case of a line that is none."""
    return Case(name=name, line=line, reason=reason)


def with_value(value: bytes) -> bytes:
    """Return a line with this value, as it stands in the JSON."""
    return b'{"userId":"u","name":"add_revenue","value":' + value + b"}"


def with_user(user_id: bytes) -> bytes:
    """Return a line with this user id, as it stands in the JSON, quotes included."""
    return b'{"userId":' + user_id + b',"name":"add_revenue","value":1}'


def with_name(name: bytes) -> bytes:
    """Return a line with this name, as it stands in the JSON, quotes included."""
    return b'{"userId":"u","name":' + name + b',"value":1}'


def with_more(members: bytes) -> bytes:
    """Return a line with more members, as they stand in the JSON, behind the three."""
    return PLAIN[:-1] + b"," + members + b"}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Bytes of one connection, and the status of each answer.

    An answer of 201 is one event of user `u` in the log. After a refusal that is `final` the
    connection ends, and what came with it may have been refused too, unanswered.
    """

    name: str
    sent: bytes
    statuses: tuple[int, ...]
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Header fields beside one good line, and the status of the answer."""

    name: str
    fields: tuple[bytes, ...]
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """The target of a GET, and the user it asks for; None where no event can have such a user."""

    name: str
    target: bytes
    user_id: str | None
