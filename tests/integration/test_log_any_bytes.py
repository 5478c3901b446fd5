"""Any bytes on disk: the log is recovered, or refused with the file and the byte, and lies never.

One file of a log is damaged in some way. Then either everything durable is read, exactly as it was
written, or somebody says which file is at fault; what was never written is never read; and bytes
that are cut off are kept aside.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.log import producers as snapshots
from etl.log import watermark as watermark_file
from etl.log.header import CHECK, OPENING, encode, find, verify
from etl.runtime.errors import CorruptError
from support.logs import FIRST, SECOND, Clock, Log, batch, lines, read_all, values_in

MANY = settings(max_examples=300, deadline=None)
WRITTEN = [*range(1, 9)]
STATE = (watermark_file.FILE_NAME, snapshots.FILE_NAME)

_TOKENS = [
    *(b"\n", b"\0", b"}", b"{}", b"{}\n", b"hello\n", b"\xff", OPENING, CHECK, b'"lines":0', b"9"),
    *(lines([99]), encode(batch(99)), b'"next":0', b'"epoch":9', bytes(512), lines([1])),
]
_bytes = st.one_of(st.sampled_from(_TOKENS), st.binary(max_size=40))
# What is done to a file: bytes of it are replaced, or all.
Damage = tuple[float, int, bytes]
damages = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0, 0, 1, 5, 100, 10_000]), _bytes),
    min_size=1,
    max_size=3,
)
files = st.sampled_from([FIRST, SECOND, *STATE])


def damaged(data: bytes, damage: list[Damage]) -> bytes:
    for part, size, replacement in damage:
        at = round(part * len(data))
        data = data[:at] + replacement + data[at + size :]
    return data


@contextmanager
def a_log() -> Iterator[Path]:
    """A directory with two partitions, a producer, and a watermark."""
    with tempfile.TemporaryDirectory(prefix="etl-bytes-") as directory:
        clock = Clock()
        log = Log(Path(directory), clock)
        log.append(batch(1, 2, sequence=0))
        log.append(batch(3, user="anyone"))
        clock.now_s += 5
        log.append(batch(4, 5, 6, sequence=2))
        log.append(batch(7, sequence=5), batch(8, user="anyone"))
        log.close()
        yield Path(directory)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("log") / "origin"
    with a_log() as made:
        shutil.copytree(made, directory)
    return directory


class _Told(logging.Handler):
    """What a reader complains about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def told() -> Iterator[list[str]]:
    handler = _Told()
    logging.getLogger("etl").addHandler(handler)
    try:
        yield handler.lines
    finally:
        logging.getLogger("etl").removeHandler(handler)


@MANY
@given(name=files, damage=damages)
@example(name=FIRST, damage=[(0.0, 10_000, b"")])
@example(name=SECOND, damage=[(0.0, 10_000, lines(range(4, 9)))])
@example(name=SECOND, damage=[(1.0, 0, encode(batch(99, sequence=6)))])
@example(name=watermark_file.FILE_NAME, damage=[(0.0, 10_000, b"")])
def test_log_of_any_bytes_is_recovered_or_refused_with_its_place(
    origin: Path, name: str, damage: list[Damage]
) -> None:
    with tempfile.TemporaryDirectory(prefix="etl-bytes-") as temporary, told() as complaints:
        directory = Path(temporary, "data")
        shutil.copytree(origin, directory)
        path = directory / name
        before = path.read_bytes() if path.exists() else b""
        path.write_bytes(damaged(before, damage))
        damaged_bytes = path.read_bytes()
        try:
            log = Log(directory)
        except CorruptError as error:
            check_refusal(str(error), name)
            assert path.read_bytes() == damaged_bytes, "refused, and changed"
            return
        log.close()
        found = [v for block in read_all(directory) for v in values_in_any(block.data)]
        if name == FIRST and is_another_whole(before, damaged_bytes):
            return
        check_nothing_lies(found, damaged_bytes if name not in STATE else b"", complaints, name)
        check_producer(log, found)
        if name not in STATE:
            kept = b"".join(p.read_bytes() for p in directory.glob(f"{name}*"))
            assert len(kept) >= len(damaged_bytes), "cut off, and not set aside"


def check_refusal(message: str, name: str) -> None:
    assert name in message
    assert "byte" in message or name in STATE


def is_another_whole(before: bytes, after: bytes) -> bool:
    """Say whether a sealed partition could have been written so, if not by us.

    It was cut between two batches, or nothing of its first batch is left. A start does not count
    what a snapshot covers, so nobody sees that.
    """
    first = after.partition(b"\n")[0]
    if OPENING not in first and CHECK not in first:
        return True
    ends = [0]
    while (found := find(before, ends[-1])) is not None:
        ends.append(ends[-1] + found.stored_bytes)
    return after in {before[:end] for end in ends}


def check_nothing_lies(
    found: list[int], damaged_bytes: bytes, complaints: list[str], name: str
) -> None:
    if found == WRITTEN:
        return
    there = values_in_any(damaged_bytes)
    added = [value for value in found if value not in WRITTEN or found.count(value) > 1]
    assert all(value in there for value in added), "read, and never written"
    missing = [value for value in WRITTEN if value not in found]
    assert not missing or any(name in line for line in complaints), "lost, and nobody says so"


def values_in_any(data: bytes) -> list[int]:
    """The values in whole batches or lines of bytes that someone put there."""
    found = []
    for line in data.split(b"\n"):
        try:
            found += values_in(line)
        except (ValueError, KeyError, TypeError):
            continue
    return found


def check_producer(log: Log, found: list[int]) -> None:
    """Whatever was read of the producer is known to be its, so that it is not taken again."""
    known = log.recovered.producers.get("p", (0, 0))
    expected = {2: 1, 5: 4, 6: 7}
    for following, last in expected.items():
        if last in found and found.count(last) == 1:
            assert known >= (1, following) or known[0] > 1


@MANY
@given(damage=damages)
def test_batch_of_any_bytes_is_whole_or_damaged(damage: list[Damage]) -> None:
    written = batch(*range(1, 30), sequence=3)
    stored = damaged(encode(written), damage)
    try:
        found = find(stored, 0)
        if found is None:
            return
        if found.stored_bytes > len(stored):
            return
        data = b"".join(verify(stored, 0, found))
    except CorruptError:
        return
    assert stored[: found.stored_bytes] in {encode(written), *map(bytes, _TOKENS)}
    assert values_in(data) == list(values_in(data))


@MANY
@given(data=st.one_of(st.binary(max_size=600), st.lists(_bytes, max_size=8).map(b"".join)))
def test_state_file_of_any_bytes_is_read_as_nothing_or_refused(data: bytes) -> None:
    try:
        found = watermark_file.decode(data)
    except CorruptError as error:
        check_refusal(str(error), watermark_file.FILE_NAME)
    else:
        assert found is None
