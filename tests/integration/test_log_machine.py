"""The log against a model, on a disk that fails, is killed and loses what was not synced.

Whatever comes in whatever order: what was acknowledged is there exactly once, what was refused is
not there, each producer's lines have no gap, and nothing that was read ever goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from etl.core.lines import drop_lines
from etl.core.wire import Producer
from etl.log.files import SyncFailedError, WriteFailedError
from etl.log.header import Batch, Identity
from etl.log.names import list_names
from etl.log.position import Position
from etl.log.producers import Admitted, Gap
from etl.log.reader import Block, LogReader
from etl.log.writer import LogWriter
from etl.runtime.errors import EtlError
from support.logs import Clock, Log, lines
from support.platter import Killed, Platter, broken_disk, full_disk

PRODUCERS = ("p", "q")
ANONYMOUS = "anonymous"
FAULTS: dict[str, Callable[[], BaseException]] = {
    "kill": Killed,
    "full disk": full_disk,
    "broken disk": broken_disk,
}
READ_BYTES = 2_000

requests = st.lists(
    st.tuples(
        st.sampled_from([*PRODUCERS, ANONYMOUS]),
        st.integers(0, 4),  # so many lines are sent again
        st.integers(1, 5),
    ),
    min_size=1,
    max_size=4,
)

# Which fault strikes at which call, and its chance; often none does.
Fault = tuple[str, int, int] | None
faults = st.one_of(
    st.none(),
    st.tuples(st.sampled_from(sorted(FAULTS)), st.integers(1, 8), st.integers(0, 2**16)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Lines `first` to `end` of a sender; a line's number is its value."""

    sender: str
    first: int
    end: int


@dataclass(slots=True)
class Sender:
    """What the model knows: the line to send next, and what was answered."""

    next: int = 0
    acknowledged: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)


class LogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory(prefix="etl-machine-")
        self.directory = Path(self.temporary.name, "data")
        self.directory.mkdir()
        self.patch = pytest.MonkeyPatch()
        self.platter = Platter(self.directory, self.patch)
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.log: Log | None = None
        self.writer: LogWriter | None = None
        self.senders = {name: Sender() for name in (*PRODUCERS, ANONYMOUS)}
        self.reader: LogReader | None = None
        self.read_on: list[Block] = []
        self.applied: dict[str, Position] = {}
        self.seen: dict[str, list[tuple[str, int]]] = {}
        self.done: set[str] = set()

    def teardown(self) -> None:
        self.platter.heal()
        self.kill_server()
        self.kill_reader()
        self.runner.close()
        self.patch.undo()
        self.temporary.cleanup()

    # The server

    @rule(fault=faults)
    def start(self, fault: Fault) -> None:
        self.kill_server()
        self._arm(fault)
        try:
            self._open()
        except (Killed, OSError, EtlError):
            if self.platter.armed or fault is None:
                raise
        self.platter.heal()

    @rule(seconds=st.one_of(st.integers(0, 12), st.integers(-3600, 3600)))
    def turn_clock(self, seconds: int) -> None:
        self.clock.now_s += seconds

    @rule(sent=requests, fault=faults)
    def send(self, sent: list[tuple[str, int, int]], fault: Fault) -> None:
        if self.log is None:
            self._open()
        group = [self._request(*one) for one in sent]
        self._arm(fault)
        survived = self.runner.run(self._deliver(group))
        self.platter.heal()
        if not survived:
            self.kill_server()

    def _arm(self, fault: Fault) -> None:
        if fault is not None:
            kind, call, seed = fault
            self.platter.fail_at(call, FAULTS[kind](), seed)

    def _open(self) -> None:
        self.log = Log(self.directory, self.clock)
        self.writer = LogWriter(self.log.files, self.log.producers)

    @rule()
    def kill_server(self) -> None:
        if self.log is not None and self.writer is not None:
            self.writer.close()
            self.log.close()
        self.log = self.writer = None

    @rule(seed=st.integers(0, 2**16))
    def cut_power(self, seed: int) -> None:
        self.kill_server()
        self.kill_reader()
        self.platter.heal()
        self.platter.cut_power(seed)

    def _request(self, name: str, back: int, fresh: int) -> Request:
        sender = self.senders[name]
        first = sender.next if name == ANONYMOUS else max(0, sender.next - back)
        sender.next += fresh
        return Request(sender=name, first=first, end=sender.next)

    async def _deliver(self, group: list[Request]) -> bool:
        """Send requests at once; say whether the server has survived it."""
        assert self.writer is not None
        answers = [asyncio.create_task(self._post(request)) for request in group]
        works = (self.writer.run(), asyncio.wait(answers))
        both: list[asyncio.Task[object]] = [asyncio.ensure_future(work) for work in works]
        running, everything = both
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        survived = not running.done()
        for task in (running, everything, *answers):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, SyncFailedError, Killed):
            await running
        for answer in await asyncio.gather(*answers, return_exceptions=True):
            if isinstance(answer, Exception):
                raise answer
        return survived

    async def _post(self, request: Request) -> None:
        """Do what the server does with a request, and note its answer in the model."""
        assert self.log is not None
        assert self.writer is not None
        sender = self.senders[request.sender]
        values = range(request.first, request.end)
        body = lines(values, request.sender)
        if request.sender == ANONYMOUS:
            batch = Batch(data=body, events=len(values))
        else:
            said = Producer(producer=request.sender, epoch=1, first=request.first)
            verdict = self.log.producers.judge(said, len(values))
            if isinstance(verdict, Gap):
                assert not sender.acknowledged or verdict.expected > max(sender.acknowledged)
                sender.next = min(sender.next, verdict.expected)
                return
            assert isinstance(verdict, Admitted)
            identity = Identity(
                producer=request.sender,
                epoch=1,
                sequence=request.first + verdict.known,
                next=verdict.next,
            )
            batch = Batch(
                data=drop_lines(body, verdict.known) if verdict.known else body,
                events=len(values) - verdict.known,
                identity=identity,
            )
        try:
            await self.writer.append(batch)
        except WriteFailedError:
            if request.sender == ANONYMOUS:
                sender.refused.update(values)
            return
        sender.acknowledged.update(values)

    # The reader

    @rule(anew=st.booleans(), committed=st.booleans())
    def read(self, *, anew: bool, committed: bool) -> None:
        if anew:
            self.kill_reader()
        if self.reader is None:
            undone = [place for name, place in self.applied.items() if name not in self.done]
            self.reader = LogReader(
                self.directory, undone=undone, newest=max(self.applied, default=None)
            )
        self.read_on += self.reader.read(READ_BYTES)
        if committed:
            self._commit()

    def _commit(self) -> None:
        for block in self.read_on:
            name = block.end.partition
            start = self.applied.get(name, Position(partition=name, byte=0, line=0))
            assert block.start == start, "what is read follows on"
            self.applied[name] = block.end
            self.seen.setdefault(name, []).extend(_events(block.data))
            if block.done:
                self.done.add(name)
        self.read_on = []

    @rule()
    def kill_reader(self) -> None:
        if self.reader is not None:
            self.reader.close()
        self.reader, self.read_on = None, []

    # The laws

    @invariant()
    def nothing_read_has_gone_away(self) -> None:
        for name, place in self.applied.items():
            there = (self.directory / name).read_bytes()[: place.byte]
            assert _events(there) == self.seen.get(name, [])

    @precondition(lambda self: self.log is not None)
    @invariant()
    def acknowledged_is_there_once_and_refused_is_not(self) -> None:
        found: dict[str, list[int]] = {name: [] for name in self.senders}
        for name in list_names(self.directory):
            for user, value in _events((self.directory / name).read_bytes()):
                found[user].append(value)
        for name in PRODUCERS:
            assert found[name] == list(range(len(found[name]))), f"{name}: a gap or a double"
        for name, sender in self.senders.items():
            assert len(set(found[name])) == len(found[name]), f"{name}: doubles"
            assert sender.acknowledged <= set(found[name]), f"{name}: a loss"
            assert not sender.refused & set(found[name]), f"{name}: refused, and there"

    @precondition(lambda self: self.log is not None)
    @invariant()
    def the_watermark_counts_all_that_is_there(self) -> None:
        assert self.log is not None
        mark = self.log.files.watermark
        names = list_names(self.directory)
        assert mark.partition == (names[-1] if names else None)
        contents = [(self.directory / name).read_bytes() for name in names]
        assert mark.events == sum(content.count(b"\n") for content in contents)
        assert mark.bytes == (len(contents[-1]) if contents else 0)


def _events(data: bytes) -> list[tuple[str, int]]:
    return [(e["userId"], e["value"]) for e in map(json.loads, data.split(b"\n")[:-1])]


LogMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
TestLogMachine = LogMachine.TestCase
