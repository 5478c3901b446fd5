"""What a log is after any stop: all that was acknowledged, whole batches, nothing twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from etl.log import producers as snapshots
from etl.log import watermark as watermark_file
from etl.log.header import encode
from etl.log.recovery import recover
from etl.runtime.errors import CorruptError
from support.logs import FIRST, SECOND, Clock, Log, batch, lines, values_in, values_read


def _copy(directory: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(directory, to)
    return to


def _stored(directory: Path) -> list[int]:
    return [
        v
        for p in sorted(directory.glob("server_events_*.jsonl"))
        for v in values_in(p.read_bytes())
    ]


def test_an_empty_directory_is_an_empty_log(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.close()
    assert log.files.watermark.partition is None
    assert values_read(tmp_path) == []
    assert Log(tmp_path).files.watermark.events == 0


def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Log(tmp_path)
    first.append(batch(1, 2, sequence=0))
    first.close()
    second = Log(tmp_path)
    assert second.recovered.producers == {"p": (1, 2)}
    second.append(batch(3, sequence=2))
    second.close()
    assert values_read(tmp_path) == [1, 2, 3]
    assert [p.name for p in tmp_path.glob("server_events_*")] == [FIRST]


def test_a_tail_torn_at_every_byte_keeps_whole_batches_alone(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    log = Log(origin)
    log.append(batch(1, 2, sequence=0))
    durable = log.files.watermark.bytes
    log.close()
    tail = encode(batch(3, sequence=2)) + encode(batch(4, 5, sequence=3))
    whole = len(encode(batch(3, sequence=2)))
    for cut in range(len(tail) + 1):
        directory = _copy(origin, tmp_path / "cut")
        with (directory / FIRST).open("ab") as file:
            file.write(tail[:cut])
        log = Log(directory)
        log.close()
        kept = [1, 2] + ([3] if cut >= whole else []) + ([4, 5] if cut == len(tail) else [])
        assert _stored(directory) == values_read(directory) == kept, f"cut at {cut}"
        assert log.recovered.producers == {"p": (1, len(kept))}
        aside = [p.read_bytes() for p in directory.glob("*.torn")]
        kept_bytes = (directory / FIRST).stat().st_size - durable
        assert aside == ([tail[kept_bytes:cut]] if cut > kept_bytes else [])


def test_a_first_batch_torn_at_every_byte_leaves_no_partition(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    Log(origin).close()
    first = encode(batch(1, 2, sequence=0))
    for cut in range(len(first)):
        directory = _copy(origin, tmp_path / "cut")
        (directory / FIRST).write_bytes(first[:cut])
        log = Log(directory)
        log.close()
        assert values_read(directory) == []
        assert not (directory / FIRST).exists()


@pytest.mark.parametrize("blocks", [(0,), (1,), (0, 1)])
def test_a_batch_whose_blocks_were_lost_is_set_aside(tmp_path: Path, blocks: tuple[int]) -> None:
    Log(tmp_path).close()
    stored = bytearray(encode(batch(*range(60), sequence=0)))
    for block in blocks:
        stored[block * 512 : (block + 1) * 512] = bytes(512)
    (tmp_path / FIRST).write_bytes(stored)
    Log(tmp_path).close()
    assert values_read(tmp_path) == []
    assert [p.read_bytes() for p in tmp_path.glob("*.torn")] == [bytes(stored)]


def test_what_was_set_aside_is_not_overwritten_by_the_next_torn_tail(tmp_path: Path) -> None:
    Log(tmp_path).close()
    for junk in (b"first", b"second"):
        (tmp_path / FIRST).write_bytes(junk)
        Log(tmp_path).close()
    assert sorted(p.read_bytes() for p in tmp_path.glob("*.torn*")) == [b"first", b"second"]


def test_an_older_watermark_loses_nothing(tmp_path: Path) -> None:
    clock = Clock()
    log = Log(tmp_path, clock)
    log.append(batch(1, sequence=0))
    old = (tmp_path / watermark_file.FILE_NAME).read_bytes()
    log.append(batch(2, sequence=1))
    clock.now_s += 5
    log.append(batch(3, sequence=2))
    log.close()
    (tmp_path / watermark_file.FILE_NAME).write_bytes(old)
    (tmp_path / snapshots.FILE_NAME).unlink()
    log = Log(tmp_path)
    log.close()
    assert log.recovered.watermark.events == 3
    assert log.recovered.producers == {"p": (1, 3)}
    assert values_read(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("damage", ["missing", "torn", "flipped", "nul"])
def test_a_lost_watermark_loses_nothing(tmp_path: Path, damage: str) -> None:
    clock = Clock()
    log = Log(tmp_path, clock)
    log.append(batch(1, sequence=0))
    clock.now_s += 5
    log.append(batch(2, 3, sequence=1))
    log.close()
    path = tmp_path / watermark_file.FILE_NAME
    record = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {"torn": record[:40], "flipped": record.replace(b"3", b"4"), "nul": bytes(512)}[damage]
        )
    log = Log(tmp_path)
    log.close()
    assert log.recovered.watermark.events == 3
    assert log.recovered.producers == {"p": (1, 3)}
    assert values_read(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("damage", ["missing", "torn", "older"])
def test_a_lost_producer_snapshot_forgets_no_producer(tmp_path: Path, damage: str) -> None:
    clock = Clock()
    log = Log(tmp_path, clock)
    older = b""
    for number in range(3):
        log.append(batch(number, sequence=number))
        clock.now_s += 5
        older = older or (tmp_path / snapshots.FILE_NAME).read_bytes() if number else b""
    log.close()
    path = tmp_path / snapshots.FILE_NAME
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(older if damage == "older" else path.read_bytes()[:-9])
    assert recover(tmp_path).producers == {"p": (1, 3)}


def test_missing_partitions_without_a_snapshot_are_refused(tmp_path: Path) -> None:
    clock = Clock()
    log = Log(tmp_path, clock)
    log.append(batch(1, sequence=0))
    clock.now_s += 5
    log.append(batch(2, sequence=1))
    log.close()
    (tmp_path / FIRST).unlink()
    assert recover(tmp_path).producers == {"p": (1, 2)}  # the snapshot covers what is gone
    (tmp_path / snapshots.FILE_NAME).unlink()
    with pytest.raises(CorruptError, match="hold 1 events up to the watermark, which counts 2"):
        recover(tmp_path)


def test_a_partition_that_is_gone_is_refused(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1))
    log.close()
    (tmp_path / FIRST).unlink()
    with pytest.raises(CorruptError, match=f"{FIRST} is durable, but the file is gone"):
        recover(tmp_path)


def test_a_partition_shorter_than_the_watermark_is_refused(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1))
    log.close()
    (tmp_path / FIRST).write_bytes((tmp_path / FIRST).read_bytes()[:-1])
    with pytest.raises(CorruptError, match="are durable"):
        recover(tmp_path)


def test_a_header_damaged_below_the_watermark_is_refused_and_nothing_changes(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path)
    log.append(batch(1, sequence=0))
    second = log.files.watermark.bytes
    log.append(batch(2, sequence=1))
    log.close()
    path = tmp_path / FIRST
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b'"next":2')] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptError, match=f"{FIRST} at byte {second}: checksum"):
        recover(tmp_path)
    assert path.read_bytes() == damaged


def test_partitions_of_another_server_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / FIRST).write_bytes(lines([1, 2]))
    (tmp_path / SECOND).write_bytes(lines([3]) + b'{"userId":"half')
    log = Log(tmp_path)
    assert log.recovered.watermark.events == 3
    log.append(batch(4))
    log.close()
    assert (tmp_path / SECOND).read_bytes().endswith(b"half")
    assert log.files.watermark.partition > SECOND  # type: ignore[operator]  # there is one
    assert values_read(tmp_path) == [1, 2, 3, 4]


def test_a_server_of_ours_follows_another_one_that_followed_ours(tmp_path: Path) -> None:
    clock = Clock()
    log = Log(tmp_path, clock)
    log.append(batch(1, sequence=0))
    log.close()
    (tmp_path / SECOND).write_bytes(lines([2]))
    clock.now_s += 10
    log = Log(tmp_path, clock)
    log.append(batch(3, sequence=1))
    log.close()
    assert values_read(tmp_path) == [1, 2, 3]
    assert log.recovered.producers == {"p": (1, 1)}


def test_an_empty_newest_partition_is_removed(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1))
    log.close()
    (tmp_path / SECOND).touch()
    log = Log(tmp_path)
    log.close()
    assert log.recovered.watermark.partition == FIRST
    assert not (tmp_path / SECOND).exists()


def test_nothing_is_appended_to_a_partition_that_the_snapshot_covers(tmp_path: Path) -> None:
    clock = Clock()
    log = Log(tmp_path, clock)
    log.append(batch(1, sequence=0))
    snapshots.save(
        tmp_path, snapshots.Snapshot(partition=SECOND, events=1, producers={"p": (1, 1)})
    )
    log.close()  # killed before the partition was made, and the clock steps back
    clock.now_s -= 3600
    log = Log(tmp_path, clock)
    log.append(batch(2, sequence=1))
    log.close()
    assert recover(tmp_path).producers == {"p": (1, 2)}
    assert values_read(tmp_path) == [1, 2]


def test_recovering_twice_changes_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1, 2, sequence=0))
    log.close()
    with (tmp_path / FIRST).open("ab") as file:
        file.write(encode(batch(3, sequence=2))[:-1])
    once, twice = recover(tmp_path), recover(tmp_path)
    assert once == twice
