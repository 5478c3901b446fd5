"""The mirror: its sum is the number of lines applied, and it stays small."""

from __future__ import annotations

import json
from pathlib import Path

from etl.sink.mirror import INTERVAL_S, OLDER, Mirror
from etl.sink.offsets import RECENT_MAX, Known, Offset


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def nothing() -> Known:
    return Known(undone=(), newest=None, recent_done={}, older_done_lines=0)


def offset(number: int, line: int, *, done: bool) -> Offset:
    return Offset(partition=f"server_events_{number:012}.jsonl", byte=line, line=line, done=done)


def shown(directory: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((directory / "processor_offset.json").read_bytes())
    return found


def test_nothing_applied_is_an_empty_object(tmp_path: Path) -> None:
    Mirror(tmp_path, nothing()).write()
    assert (tmp_path / "processor_offset.json").read_bytes() == b"{}"


def test_sum_is_the_number_of_lines_applied_however_many_partitions(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path, nothing())
    count = RECENT_MAX + 500
    for number in range(count):
        mirror.move([offset(number, 2, done=False)])
        mirror.move([offset(number, 3, done=True)])
    mirror.move([offset(count, 1, done=False)])
    mirror.write()
    found = shown(tmp_path)
    assert sum(found.values()) == 3 * count + 1
    assert len(found) == RECENT_MAX + 2
    assert found[OLDER] == 3 * 500
    assert list(found) == [OLDER, *sorted(found.keys() - {OLDER})]


def test_start_shows_what_the_database_knows(tmp_path: Path) -> None:
    known = Known(
        undone=(offset(8, 4, done=False), offset(2, 0, done=False)),
        newest="server_events_000000000008.jsonl",
        recent_done={"server_events_000000000007.jsonl": 5},
        older_done_lines=100,
    )
    (tmp_path / "processor_offset.json").write_text("another program's")
    Mirror(tmp_path, known).write()
    assert shown(tmp_path) == {
        OLDER: 100,
        "server_events_000000000002.jsonl": 0,
        "server_events_000000000007.jsonl": 5,
        "server_events_000000000008.jsonl": 4,
    }
    assert known.lines == 109


def test_it_is_due_when_changed_and_at_most_twenty_times_a_second(tmp_path: Path) -> None:
    clock = Clock()
    mirror = Mirror(tmp_path, nothing(), clock=clock)
    assert mirror.due
    mirror.write()
    clock.now_s = 10
    assert not mirror.due
    mirror.move([offset(1, 1, done=False)])
    assert mirror.due
    mirror.write()
    mirror.move([offset(1, 2, done=False)])
    assert mirror.changed
    assert not mirror.due
    clock.now_s += INTERVAL_S
    assert mirror.due


def test_write_that_fails_is_tried_again(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "missing", nothing())
    mirror.write()
    assert mirror.changed
    (tmp_path / "missing").mkdir()
    mirror.write()
    assert not mirror.changed
    assert shown(tmp_path / "missing") == {}


def test_file_that_another_processor_wrote_is_seen_and_left_alone(tmp_path: Path) -> None:
    frozen, working = Mirror(tmp_path, nothing()), Mirror(tmp_path, nothing())
    frozen.move([offset(1, 1, done=False)])
    frozen.write()
    assert not frozen.is_anothers()
    working.move([offset(1, 2, done=False)])
    working.write()
    frozen.move([offset(1, 1, done=False)])
    assert frozen.is_anothers()
    frozen.give_up()
    assert not frozen.changed
    assert sum(shown(tmp_path).values()) == 2


def test_file_that_was_removed_is_written_again(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path, nothing())
    mirror.write()
    (tmp_path / "processor_offset.json").unlink()
    assert not mirror.is_anothers()
    assert mirror.changed
