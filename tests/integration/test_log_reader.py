"""A reader returns what is durable and whole, once, and nothing on a guess."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from etl.log import reader as reader_module
from etl.log import watermark as watermark_file
from etl.log.header import encode
from etl.log.position import Position
from etl.log.reader import LogReader, OffsetError, position_after
from support.logs import (
    FIRST,
    SECOND,
    Clock,
    Log,
    batch,
    lines,
    read_all,
    values_in,
    values_read,
)


def test_nothing_past_the_watermark_is_read(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1))
    with (tmp_path / FIRST).open("ab") as file:
        file.write(encode(batch(2)))
    assert values_read(tmp_path) == [1]
    log.close()


def test_a_reader_goes_on_from_its_offset(tmp_path: Path) -> None:
    log = Log(tmp_path)
    place = log.append(batch(1, 2))
    log.append(batch(3))
    log.close()
    blocks = read_all(tmp_path, undone=[place], newest=FIRST)
    assert [values_in(b.data) for b in blocks] == [[3]]
    assert blocks[0].start == place
    assert blocks[0].end == Position(
        partition=FIRST, byte=(tmp_path / FIRST).stat().st_size, line=3
    )


def test_a_sealed_partition_that_was_read_to_its_end_is_reported_done_once(tmp_path: Path) -> None:
    clock = Clock()
    log = Log(tmp_path, clock)
    log.append(batch(1))
    reader = LogReader(tmp_path, undone=[], newest=None)
    assert [b.done for b in reader.read(1 << 20)] == [False]
    clock.now_s += 5
    log.append(batch(2))
    blocks = reader.read(1 << 20)
    assert [(b.start.partition, b.done, values_in(b.data)) for b in blocks] == [
        (FIRST, True, []),
        (SECOND, False, [2]),
    ]
    assert reader.read(1 << 20) == []
    reader.close()
    log.close()


def test_partitions_that_came_while_nobody_read_are_all_found(tmp_path: Path) -> None:
    clock = Clock()
    log = Log(tmp_path, clock)
    for number in range(5):
        log.append(batch(number))
        clock.now_s += 5
    log.close()
    blocks = read_all(tmp_path)
    assert [v for b in blocks for v in values_in(b.data)] == [0, 1, 2, 3, 4]
    assert [b.done for b in blocks] == [True] * 4 + [False]


def test_a_read_is_bounded_but_returns_at_least_a_batch(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for number in range(10):
        log.append(batch(*[number] * 2_000))
    log.close()
    reader = LogReader(tmp_path, undone=[], newest=None)
    seen: list[int] = []
    reads = 0
    while blocks := reader.read(100):
        reads += 1
        seen += [v for b in blocks for v in values_in(b.data)]
    reader.close()
    assert seen == [number for number in range(10) for _ in range(2_000)]
    assert reads == 10  # a batch is larger than the read that looks for its header


def test_a_batch_larger_than_a_read_is_read_whole(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(*range(5_000)), batch(7))
    log.close()
    reader = LogReader(tmp_path, undone=[], newest=None)
    assert values_in(reader.read(1)[0].data) == list(range(5_000))
    assert values_in(reader.read(1)[0].data) == [7]
    reader.close()


def test_damage_stops_its_partition_alone_and_repair_lets_it_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "DAMAGED_RETRY_S", 0.0)
    clock = Clock()
    log = Log(tmp_path, clock)
    first = log.append(batch(1))
    log.append(batch(2))
    clock.now_s += 5
    log.append(batch(3))
    log.close()
    good = (tmp_path / FIRST).read_bytes()
    (tmp_path / FIRST).write_bytes(good.replace(b'"value":2', b'"value":9'))
    reader = LogReader(tmp_path, undone=[], newest=None)
    with caplog.at_level(logging.ERROR):
        seen = [v for _ in range(4) for b in reader.read(1 << 20) for v in values_in(b.data)]
    assert seen == [1, 3]
    assert [r.getMessage() for r in caplog.records] == [
        f"{FIRST} at byte {first.byte}: checksum does not match; restore this file from a copy; "
        "it is tried again, and the other partitions go on"
    ]
    (tmp_path / FIRST).write_bytes(good)
    assert [(values_in(b.data), b.done) for b in reader.read(1 << 20)] == [([2], True)]
    reader.close()


def test_a_bit_flipped_anywhere_below_the_watermark_is_never_applied(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1), batch(2, 3, sequence=0))
    log.close()
    good = (tmp_path / FIRST).read_bytes()
    for at in range(len(good)):
        damaged = bytearray(good)
        damaged[at] ^= 1 << (at % 8)
        (tmp_path / FIRST).write_bytes(damaged)
        assert values_read(tmp_path) in ([], [1]), f"byte {at}"


def test_an_offset_past_the_end_of_its_file_is_refused(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1))
    log.close()
    size = (tmp_path / FIRST).stat().st_size
    beyond = Position(partition=FIRST, byte=size + 1, line=2)
    with pytest.raises(OffsetError, match=f"{FIRST}: {size + 1} bytes are applied, but .* {size}"):
        read_all(tmp_path, undone=[beyond], newest=FIRST)


def test_an_offset_inside_a_batch_is_refused(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1, 2))
    log.append(batch(3))
    log.close()
    second_line = (tmp_path / FIRST).read_bytes().index(b"\n") + 1
    inside = Position(partition=FIRST, byte=second_line, line=1)
    with pytest.raises(OffsetError, match=f"the offset is byte {second_line}, line 1"):
        read_all(tmp_path, undone=[inside], newest=FIRST)


def test_an_offset_with_the_wrong_number_of_lines_is_refused(tmp_path: Path) -> None:
    log = Log(tmp_path)
    place = log.append(batch(1, 2))
    log.append(batch(3))
    log.close()
    wrong = Position(partition=FIRST, byte=place.byte, line=1)
    with pytest.raises(OffsetError, match="line 1"):
        read_all(tmp_path, undone=[wrong], newest=FIRST)


def test_an_offset_of_a_partition_that_is_gone_is_refused(tmp_path: Path) -> None:
    log = Log(tmp_path)
    place = log.append(batch(1))
    log.close()
    (tmp_path / FIRST).unlink()
    with pytest.raises(OffsetError, match="the file is gone"):
        read_all(tmp_path, undone=[place], newest=FIRST)


def test_an_offset_past_a_stale_watermark_waits(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1))
    stale = log.files.watermark
    place = log.append(batch(2))
    log.close()
    fd = watermark_file.create(tmp_path, stale)
    reader = LogReader(tmp_path, undone=[place], newest=FIRST)
    assert reader.read(1 << 20) == []
    log = Log(tmp_path)  # the server recovers
    log.append(batch(3))
    assert [values_in(b.data) for b in reader.read(1 << 20)] == [[3]]
    reader.close()
    log.close()

    os.close(fd)


def test_a_half_written_watermark_is_not_believed(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1))
    reader = LogReader(tmp_path, undone=[], newest=None)
    assert len(reader.read(1 << 20)) == 1
    record = (tmp_path / watermark_file.FILE_NAME).read_bytes()
    with (tmp_path / watermark_file.FILE_NAME).open("r+b") as file:
        file.write(record.replace(b'"bytes":', b'"bytes":9')[:512])
    assert reader.read(1 << 20) == []
    reader.close()
    log.close()


def test_a_directory_without_a_watermark_is_read_to_the_last_line_breaks(tmp_path: Path) -> None:
    (tmp_path / FIRST).write_bytes(lines([1, 2]) + b'{"userId"')
    (tmp_path / SECOND).write_bytes(lines([3]))
    blocks = read_all(tmp_path)
    assert [values_in(b.data) for b in blocks] == [[1, 2], [3]]
    assert not any(b.done for b in blocks)


def test_another_servers_partition_goes_on_growing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "FOREIGN_SCAN_S", 0.0)
    (tmp_path / FIRST).write_bytes(lines([1]))
    (tmp_path / SECOND).write_bytes(lines([2]))
    reader = LogReader(tmp_path, undone=[], newest=None)
    assert [values_in(b.data) for b in reader.read(1 << 20)] == [[1], [2]]
    with (tmp_path / FIRST).open("ab") as file:
        file.write(lines([3]))
    assert [values_in(b.data) for b in reader.read(1 << 20)] == [[3]]
    reader.close()


def test_a_line_longer_than_a_read_is_read_whole(tmp_path: Path) -> None:
    line = b'{"userId":"' + b"x" * 100_000 + b'"}\n'
    (tmp_path / FIRST).write_bytes(line + lines([1]))
    reader = LogReader(tmp_path, undone=[], newest=None)
    data = b"".join(b.data for _ in range(3) for b in reader.read(1_000))
    reader.close()
    assert data == line + lines([1])


def test_a_position_after_so_many_lines_is_found(tmp_path: Path) -> None:
    (tmp_path / FIRST).write_bytes(lines([1, 2, 3]))
    assert position_after(tmp_path, FIRST, 2).byte == len(lines([1, 2]))
    assert position_after(tmp_path, FIRST, 0).byte == 0
    with pytest.raises(OffsetError, match="fewer"):
        position_after(tmp_path, FIRST, 4)
    with pytest.raises(OffsetError, match="gone"):
        position_after(tmp_path, SECOND, 1)


def test_lag_is_what_stands_between_the_reader_and_the_watermark(tmp_path: Path) -> None:
    log = Log(tmp_path)
    reader = LogReader(tmp_path, undone=[], newest=None)
    assert reader.lag_events() == 0
    log.append(batch(1, 2))
    assert reader.lag_events() == 2
    reader.read(1 << 20)
    assert reader.lag_events() == 0
    reader.close()
    log.close()


def test_a_directory_in_which_ours_begins_meanwhile_is_read_to_the_watermark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "WATERMARK_LOOK_S", 60.0)
    reader = LogReader(tmp_path, undone=[], newest=None)
    assert reader.read(1 << 20) == []
    log = Log(tmp_path)
    log.append(batch(1))
    with (tmp_path / FIRST).open("ab") as file:
        file.write(encode(batch(2)))  # written, but not synced yet
    monkeypatch.setattr(reader_module, "FOREIGN_SCAN_S", 0.0)
    seen = [v for _ in range(3) for b in reader.read(1 << 20) for v in values_in(b.data)]
    assert seen == [1]
    reader.close()
    log.close()
