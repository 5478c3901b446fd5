"""The disk guard, on a disk whose free space a test decides."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from etl.log.room import LOOK_BYTES, LOOK_S, NoRoomError, Room

RESERVE = 100 * LOOK_BYTES


class Disk:
    """What `statvfs` says, and how often it was asked."""

    def __init__(self) -> None:
        self.free = RESERVE
        self.looks = 0
        self.now_s = 0.0

    def statvfs(self, _: Path) -> SimpleNamespace:
        self.looks += 1
        return SimpleNamespace(f_bavail=self.free // 4096, f_frsize=4096)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    return disk


@pytest.fixture
def room(disk: Disk) -> Room:
    return Room(Path("data"), reserve_bytes=RESERVE, clock=lambda: disk.now_s)


def test_events_are_refused_below_the_reserve_by_name_and_size(disk: Disk, room: Room) -> None:
    room.take(10)
    disk.free, disk.now_s = RESERVE - 4096, LOOK_S
    with pytest.raises(NoRoomError, match=f"{RESERVE - 4096} bytes .* ETL_DISK_RESERVE_BYTES"):
        room.take(1)


def test_events_are_taken_again_when_there_is_room(disk: Disk, room: Room) -> None:
    disk.free = 0
    assert "nearly full" in room.complaint()
    with pytest.raises(NoRoomError):
        room.take(1)
    disk.free, disk.now_s = RESERVE, LOOK_S
    assert room.complaint() == ""
    room.take(1)


def test_what_was_admitted_since_the_last_look_counts(disk: Disk, room: Room) -> None:
    disk.free = RESERVE + 4096
    room.take(4097)
    with pytest.raises(NoRoomError):
        room.take(1)
    assert disk.looks == 1


def test_what_waits_to_be_written_counts(disk: Disk, room: Room) -> None:
    disk.free = RESERVE + 4096
    with pytest.raises(NoRoomError):
        room.take(1, waiting=4097)


def test_the_disk_is_looked_at_once_a_second_and_once_a_mebibyte(disk: Disk, room: Room) -> None:
    disk.free = 2 * RESERVE
    for _ in range(1000):
        room.take(1)
    assert disk.looks == 1
    disk.now_s += LOOK_S
    room.take(LOOK_BYTES)
    assert disk.looks == 2
    room.take(1)
    assert disk.looks == 3


def test_a_full_disk_is_looked_at_once_a_second(disk: Disk, room: Room) -> None:
    disk.free = 0
    for _ in range(100):
        assert room.complaint()
    assert disk.looks == 1


def test_without_a_reserve_all_is_taken(disk: Disk) -> None:
    disk.free = 0
    assert Room(Path("data"), reserve_bytes=0).complaint() == ""
