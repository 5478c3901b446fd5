"""Fuzzed requests against a real server, and the laws that no request may break.

* Every reply is one well-formed response, and none is a 5xx but a 503 with `Retry-After`.
* A request that is whole HTTP gets the answer that the independent reader expects of it.
* Of any other bytes, only what `fuzz.http` sees as a request is acknowledged, for what it holds.
* The server logs no error, no traceback and no token.
* What stands in the log is what was acknowledged, line by line, and each line is an event.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from fuzz import http, oracle
from fuzz.making import NOBODY, Made, Maker
from fuzz.streams import Streams
from fuzz.target import Target
from support import strict

_CONNECTIONS = 24
_PIPELINED_MAX = 16
_LINES_MAX = 6
_ANSWER_S = 60.0
_READ_BYTES = 8 * 1024 * 1024
_T = TypeVar("_T")


class LawError(AssertionError):
    """The server broke a law; the message says which, on what bytes."""

    def __init__(self, what: str, sent: bytes, answer: object = "") -> None:
        super().__init__(f"{what}: {answer!r}\nof {sent[:20_000]!r}")


@dataclass(slots=True, kw_only=True)
class Result:
    """What came of a campaign."""

    seed: int
    requests: int = 0
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    rss_bytes: list[int] = field(default_factory=list)
    log_lines: int = 0
    acknowledged: oracle.Tally = field(default_factory=oracle.Tally)


class Campaign:
    """Sends so many requests over several connections, and checks each answer."""

    def __init__(self, target: Target, *, requests: int, seed: int) -> None:
        self._target = target
        self._left = requests
        self._total = requests
        self.result = Result(seed=seed)

    async def run(self) -> None:
        """Send all of them.

        Raises:
            LawError: on the first law that is broken.
        """
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(_CONNECTIONS):
                group.create_task(self._connection(number))
        self.result.seconds = time.monotonic() - began
        self.result.rss_bytes.append(self._target.rss_bytes())

    async def _connection(self, number: int) -> None:
        random = Random(f"{self.result.seed}-{number}")  # noqa: S311  no secret
        maker = Maker(random, b"producer-%d" % number, _LINES_MAX)
        streams = Streams(random, maker)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target.port)
        try:
            while self._left > 0:
                for _ in range(int(random.random() * 4)):
                    self._count(await self._stream(*streams.stream()))
                made = [maker.request() for _ in range(1 + int(random.random() * _PIPELINED_MAX))]
                await self._pipelined(reader, writer, made)
                self._count(len(made))
        finally:
            writer.close()

    def _count(self, requests: int) -> None:
        before, self._left = self._left, self._left - requests
        self.result.requests += requests
        for part in (0.9, 0.5):
            if self._left <= part * self._total < before:
                self.result.rss_bytes.append(self._target.rss_bytes())

    async def _pipelined(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, made: list[Made]
    ) -> None:
        writer.write(b"".join(each.data for each in made))
        for each in made:
            answer = await _soon(http.response(reader, to_head=each.to_head), each.data)
            if answer is None:
                raise LawError("closed without an answer", each.data)
            self._note(each.kind, answer, each.data)
            _check_made(each, answer)
            if answer.status in {200, 201}:
                self.result.acknowledged.add(each.stored)

    async def _stream(self, sent: bytes, about: int) -> int:
        """Send raw bytes, and check the answers beside the requests that are seen in them."""
        seen, broken = http.requests_in(sent)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target.port)
        number = 0
        try:
            writer.write(sent)
            while broken or number < len(seen):
                request = seen[number] if number < len(seen) else None
                to_head = request is not None and request.method == b"HEAD"
                answer = await _soon(
                    _until_reset(reader, to_head=to_head, unseen=request is None), sent
                )
                if answer is None:
                    break
                self._note("raw", answer, sent)
                self.result.acknowledged.add(_acknowledged(request, answer, sent))
                number += 1
        finally:
            writer.close()
        return max(about, number)

    def _note(self, kind: str, answer: http.Response, sent: bytes) -> None:
        status = answer.status
        self.result.kinds[kind] += 1
        self.result.statuses[f"{status}"] += 1
        if status == 503 and b"retry-after" in answer.fields:
            return
        if status >= 500:
            raise LawError(f"{status}", sent, answer)


async def _soon(answer: Awaitable[_T], sent: bytes) -> _T:
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await answer
    except TimeoutError:
        raise LawError(f"no answer within {_ANSWER_S:g} s", sent) from None
    except (http.BrokenError, ConnectionError) as error:
        raise LawError("no response", sent, error) from None


async def _until_reset(
    reader: asyncio.StreamReader, *, to_head: bool, unseen: bool
) -> http.Response | None:
    """Return the next response; a connection that is reset has ended."""
    try:
        return await http.response(reader, to_head=to_head, unseen=unseen)
    except ConnectionError:
        return None


def _check_made(made: Made, answer: http.Response) -> None:
    status = answer.status
    if made.status == NOBODY:
        if status not in {200, 503}:
            raise LawError("unexpected status", made.data, answer)
        return
    if status != made.status:
        raise LawError(f"{made.status} was expected", made.data, answer)
    if status == 200 and made.read is not None:
        receipt = json.loads(answer.body)
        _check_receipt(made.read, receipt, made.data)
        if (receipt["duplicates"], receipt["next"]) != (made.known, made.next):
            raise LawError(f"{made.known} known, {made.next} next were expected", made.data, answer)


def _check_receipt(read: oracle.Read, receipt: dict[str, Any], sent: bytes) -> None:
    counts = receipt["accepted"], receipt["rejected"], receipt["blank"]
    expected = read.counts(receipt["duplicates"])
    refused = [rejection["line"] for rejection in receipt["rejections"]]
    if counts != expected or refused != read.refused():
        raise LawError(f"{expected} and {read.refused()} were expected", sent, receipt)


def _acknowledged(request: http.Request | None, answer: http.Response, sent: bytes) -> list[bytes]:
    """Return the lines that an answer acknowledges, which must be those of the request."""
    if answer.status not in {200, 201} or answer.body == b"ok\n" or answer.body == b"[]":
        return []
    if request is None:
        raise LawError("acknowledged, and is no request", sent, answer)
    if request.method == b"HEAD":
        return []
    if answer.status == 201:
        line = oracle.read_single(request.body)
        if line is None:
            raise LawError("acknowledged, and is no event", sent, answer)
        return [line]
    read, receipt = oracle.read(request.body), json.loads(answer.body)
    _check_receipt(read, receipt, sent)
    return read.stored(receipt["duplicates"])


def check_log(target: Target, result: Result) -> None:
    """Check what stands in the log; the server has ended.

    Raises:
        LawError: it is not what was acknowledged.
    """
    found = oracle.Tally()
    for path in target.partitions():
        with path.open("rb", buffering=_READ_BYTES) as file:
            for line in file:
                text = oracle.bare(line.removesuffix(b"\n"))
                if not line.endswith(b"\n") or strict.read(text) is None:
                    raise LawError("the log holds what is no event", line)
                found.add([text])
    if found != result.acknowledged:
        raise LawError("the log is not what was acknowledged", b"", (found, result.acknowledged))


def run(
    directory: Path,
    *,
    requests: int,
    seed: int,
    source: Path | None = None,
    runner: Callable[[], asyncio.Runner] = asyncio.Runner,
) -> Result:
    """Start a server in an empty directory, send requests, stop it, and check all laws.

    Raises:
        LawError: one is broken.
    """
    target = Target(directory, source) if source else Target(directory)
    campaign = Campaign(target, requests=requests, seed=seed)
    try:
        with runner() as loop:
            loop.run(campaign.run())
    except BaseExceptionGroup as group:
        first = group.exceptions[0]
        first.add_note(f"after {campaign.result.requests} requests")
        raise first from None
    finally:
        code = target.stop()
    if code or target.faults:
        raise LawError(f"the server ended with {code}, and logged", b"", "".join(target.faults))
    campaign.result.log_lines = target.log_lines
    check_log(target, campaign.result)
    return campaign.result
