"""A disk that is nearly full: what the server refuses, and that it takes events again by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.logs import lines
from support.serving import serving

pytestmark = pytest.mark.asyncio

MIB = 1024 * 1024
EVENT = b'{"userId":"u","name":"add_revenue","value":1}'
REAL = os.statvfs


class Disk:
    """A real disk, of which a test can say how much is free."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.free: int | None = None
        patch.setattr(os, "statvfs", self._statvfs)
        patch.setattr("etl.log.room.LOOK_S", 0.0)

    def _statvfs(self, path: Path) -> os.statvfs_result:
        found = REAL(path)
        if self.free is None:
            return found
        fields = list(found)
        fields[4] = self.free // found.f_frsize  # f_bavail
        return os.statvfs_result(fields)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def test_new_events_are_refused_before_the_disk_is_full_and_taken_again(
    disk: Disk, tmp_path: Path
) -> None:
    async with serving(tmp_path, disk_reserve_bytes=10 * MIB) as server:
        assert (await server.post(EVENT)).status == 201
        disk.free = 10 * MIB - 4096
        for refused in (await server.post(EVENT), await server.post_lines(lines([1, 2]))):
            assert refused.status == 503
            assert refused.headers["Retry-After"] == "1"
            assert "ETL_DISK_RESERVE_BYTES" in refused.detail
        assert server.lines == 1
        disk.free = None
        assert (await server.post(EVENT)).status == 201
        assert server.lines == 2


async def test_repeated_events_are_still_acknowledged_on_a_nearly_full_disk(
    disk: Disk, tmp_path: Path
) -> None:
    async with serving(tmp_path, disk_reserve_bytes=10 * MIB) as server:
        body = lines([1, 2])
        assert (await server.post_lines(body, producer="p", epoch=1)).receipt.accepted == 2
        disk.free = 0
        assert (await server.post_lines(body, producer="p", epoch=1)).receipt.duplicates == 2
        refused = await server.post_lines(lines([3]), producer="p", epoch=1, first=2)
        assert refused.status == 503
        disk.free = None
        taken = await server.post_lines(lines([3]), producer="p", epoch=1, first=2)
        assert (taken.receipt.accepted, taken.receipt.next) == (1, 3)


async def test_the_server_is_not_ready_on_a_nearly_full_disk_but_answers(
    disk: Disk, tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, database_url=database_url, disk_reserve_bytes=10 * MIB) as server:
        disk.free = 0
        ready = await server.ask("GET", "/readyz")
        assert (ready.status, "ETL_DISK_RESERVE_BYTES" in ready.detail) == (503, True)
        assert (await server.ask("GET", "/livez")).status == 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(mounted)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a file system can't be mounted here")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


async def test_a_real_disk_is_never_filled_past_the_reserve(small_disk: Path) -> None:
    reserve = 4 * MIB
    body = lines(range(5000))
    async with serving(small_disk, disk_reserve_bytes=reserve) as server:
        answers = [(await server.post_lines(body)).status for _ in range(50)]
        first = answers.index(503)
        assert first > 5
        assert set(answers[:first]) == {200}
        free = REAL(small_disk).f_bavail * REAL(small_disk).f_frsize
        # What is admitted between two looks is counted, so only the last request goes beyond.
        assert reserve - 2 * len(body) < free < reserve + 2 * MIB
        assert server.lines == 5000 * answers.count(200)
