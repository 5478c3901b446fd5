"""The record of what was deleted, and which partitions somebody may still need."""

from __future__ import annotations

from pathlib import Path

import pytest

from etl.log import deleted
from etl.log.deleted import Deleted
from etl.runtime.errors import CorruptError
from support.logs import FIRST, SECOND, Clock, Log, batch

THIRD = "server_events_261123080906.jsonl"


def test_record_is_read_as_it_was_saved(tmp_path: Path) -> None:
    assert deleted.load(tmp_path) is None
    saved = Deleted(partition=FIRST, lines=7)
    deleted.save(tmp_path, saved)
    assert deleted.load(tmp_path) == saved


def test_record_with_any_byte_changed_is_refused(tmp_path: Path) -> None:
    deleted.save(tmp_path, Deleted(partition=FIRST, lines=7))
    path = tmp_path / deleted.FILE_NAME
    whole = path.read_bytes()
    for at in range(len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CorruptError, match=deleted.FILE_NAME):
            deleted.load(tmp_path)


def _written(directory: Path, partitions: int) -> None:
    clock = Clock()
    log = Log(directory, clock)
    for number in range(partitions):
        log.append(batch(number))
        clock.now_s += 5
    log.close()


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    _written(tmp_path, 4)
    assert deleted.first_kept(tmp_path) == THIRD


def test_one_partition_is_kept(tmp_path: Path) -> None:
    _written(tmp_path, 1)
    assert deleted.first_kept(tmp_path) == ""


@pytest.mark.parametrize("name", ["server_producers.json", "server_watermark.json"])
def test_all_is_kept_that_a_start_of_the_server_would_scan(tmp_path: Path, name: str) -> None:
    _written(tmp_path, 2)
    older = (tmp_path / "server_producers.json").read_bytes()
    _written(tmp_path, 4)
    assert deleted.first_kept(tmp_path) == THIRD
    (tmp_path / "server_producers.json").write_bytes(older)
    assert deleted.first_kept(tmp_path) == SECOND
    (tmp_path / name).write_bytes(b"damaged")
    assert deleted.first_kept(tmp_path) == ""
    (tmp_path / name).unlink()
    assert deleted.first_kept(tmp_path) == ""


@pytest.mark.parametrize(
    ("content", "more"),
    [(b"1\n", False), (b"1\n2\n", True), (b"1\ntorn", False), (b"1", True), (b"", True)],
)
def test_a_file_that_is_not_what_was_applied_is_told(
    tmp_path: Path, content: bytes, *, more: bool
) -> None:
    (tmp_path / FIRST).write_bytes(content)
    assert deleted.holds_more(tmp_path, FIRST, 2) == more


def test_a_file_that_is_gone_holds_no_more(tmp_path: Path) -> None:
    assert not deleted.holds_more(tmp_path, FIRST, 2)
    deleted.remove(tmp_path, [FIRST])
