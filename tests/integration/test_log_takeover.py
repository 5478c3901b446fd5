"""Directories that another server wrote into, before ours, after it, and in between."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from etl.log import producers as snapshots
from etl.log import watermark as watermark_file
from etl.log.header import encode
from etl.log.names import name_at
from etl.log.reader import LogReader
from etl.log.recovery import recover
from etl.runtime.errors import CorruptError
from support.logs import FIRST, SECOND, Clock, Log, batch, lines, values_in, values_read


@pytest.mark.parametrize(
    "first_line", [b'{"userId":"half', b'{"x":"' + b"y" * 70_000 + b'"}\n', b"[1]\n", b""]
)
def test_what_one_start_takes_over_the_next_takes_too(tmp_path: Path, first_line: bytes) -> None:
    (tmp_path / FIRST).write_bytes(first_line)
    for number in range(3):
        log = Log(tmp_path)
        log.append(batch(number, sequence=number))
        log.close()
    assert values_read_of_ours(tmp_path) == [0, 1, 2]


def values_read_of_ours(directory: Path) -> list[int]:
    """The values in partitions with headers."""
    return [
        value
        for path in sorted(directory.glob("server_events_*.jsonl"))
        if b'"_batch"' in path.read_bytes()
        for value in values_in(path.read_bytes())
    ]


@pytest.mark.parametrize("keep_watermark", [True, False])
def test_a_torn_tail_before_another_servers_partition_is_repaired(
    tmp_path: Path, keep_watermark: bool
) -> None:
    log = Log(tmp_path)
    log.append(batch(1, sequence=0))
    log.close()
    with (tmp_path / FIRST).open("ab") as file:
        file.write(encode(batch(2, sequence=1))[:-5])
    (tmp_path / SECOND).write_bytes(lines([3]))
    if not keep_watermark:
        (tmp_path / watermark_file.FILE_NAME).unlink()
    log = Log(tmp_path)
    log.close()
    assert values_read(tmp_path) == [1, 3]
    assert len(list(tmp_path.glob("*.torn"))) == 1


def test_lines_of_another_server_behind_our_batches_are_not_thrown_away(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1))
    log.close()
    size = (tmp_path / FIRST).stat().st_size
    with (tmp_path / FIRST).open("ab") as file:
        file.write(lines([2, 3]))
    with pytest.raises(CorruptError, match=f"{FIRST} at byte {size}: lines of another server"):
        recover(tmp_path)
    assert list(tmp_path.glob("*.torn")) == []


def test_a_first_batch_that_lost_its_first_blocks_is_not_taken_for_another_servers(
    tmp_path: Path,
) -> None:
    Log(tmp_path).close()
    stored = encode(batch(*range(5_000), sequence=0))
    (tmp_path / FIRST).write_bytes(bytes(128 * 1024) + stored[128 * 1024 :])
    Log(tmp_path).close()
    assert values_read(tmp_path) == []
    assert not (tmp_path / FIRST).exists()


def test_a_header_flipped_in_its_name_is_not_taken_for_another_servers(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1, sequence=0))
    log.close()
    path = tmp_path / FIRST
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"_batch"', b'"_bauch"'))
    with pytest.raises(CorruptError, match=f"{FIRST} at byte 0: batch header can't be found"):
        recover(tmp_path)
    assert values_read(tmp_path) == []


def test_a_block_is_no_larger_than_it_has_to_be(tmp_path: Path) -> None:
    (tmp_path / FIRST).write_bytes(lines([1]))
    (tmp_path / SECOND).write_bytes(lines(range(100_000)))
    reader = LogReader(tmp_path, undone=[], newest=None)
    first_read = reader.read((tmp_path / FIRST).stat().st_size + 1)
    assert [len(block.data) < 2**21 for block in first_read] == [True, True]
    seen = [v for block in first_read for v in values_in(block.data)]
    while blocks := reader.read(2**20):
        seen += [v for block in blocks for v in values_in(block.data)]
    reader.close()
    assert seen == [1, *range(100_000)]


def test_a_clock_without_a_battery_begins_no_partition_that_sorts_last(tmp_path: Path) -> None:
    assert name_at(0.0) < FIRST
    clock = Clock(0.0)
    log = Log(tmp_path, clock)
    log.append(batch(1))
    clock.now_s = Clock().now_s
    log.append(batch(2))
    log.close()
    assert [p.name for p in sorted(tmp_path.glob("server_events_*"))] == [name_at(0.0), FIRST]


def test_a_done_partition_may_be_deleted_also_without_any_producer(tmp_path: Path) -> None:
    clock = Clock()
    log = Log(tmp_path, clock)
    for number in range(3):
        log.append(batch(number))
        clock.now_s += 5
    log.close()
    (tmp_path / FIRST).unlink()
    (tmp_path / SECOND).unlink()
    assert recover(tmp_path).watermark.events == 3


def test_a_snapshot_that_was_replaced_but_not_synced_is_not_undercut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    log = Log(tmp_path, clock)
    log.append(batch(1, sequence=0))
    real = snapshots.save

    def replaced_only(directory: Path, snapshot: snapshots.Snapshot) -> None:
        real(directory, snapshot)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(snapshots, "save", replaced_only)
    clock.now_s += 5
    with pytest.raises(Exception, match="Too many open files"):
        log.append(batch(2, sequence=1))
    monkeypatch.undo()
    clock.now_s -= 3600
    log.append(batch(2, sequence=1))
    log.close()
    assert recover(tmp_path).producers == {"p": (1, 2)}


@pytest.mark.parametrize("name", [watermark_file.FILE_NAME, snapshots.FILE_NAME])
def test_a_state_file_of_another_format_is_refused_by_name(tmp_path: Path, name: str) -> None:
    body = b'{"partition":17,"format":2'
    (tmp_path / name).write_bytes(b'%s,"crc32":"%08x"}\n' % (body, zlib.crc32(body)))
    with pytest.raises(CorruptError, match=f"{name} has format 2, this version knows 1"):
        recover(tmp_path)
