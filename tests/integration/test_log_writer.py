"""Group commit: durable before acknowledged, nothing appended when it failed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from etl.core.wire import Producer
from etl.log import watermark as watermark_file
from etl.log import writer as writer_module
from etl.log.files import SyncFailedError, WriteFailedError
from etl.log.header import Batch, Identity
from etl.log.producers import Admitted, Gap
from etl.log.recovery import recover
from etl.log.writer import LogWriter, QueueFullError, join
from support.logs import FIRST, Log, batch, lines, values_read


@contextlib.asynccontextmanager
async def _writing(log: Log, **bounds: Any) -> AsyncIterator[LogWriter]:
    writer = LogWriter(log.files, log.producers, **bounds)
    task = asyncio.create_task(writer.run())
    try:
        yield writer
        await writer.drained()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, SyncFailedError):
            await task
        writer.close()
        log.close()


@contextlib.contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    """Let every write fail that would make a file larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def _sent(first: int) -> Producer:
    return Producer(producer="p", epoch=1, first=first)


@pytest.mark.asyncio
async def test_what_waits_shares_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    real = os.fdatasync

    def counted(fd: int) -> None:
        syncs.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", counted)
    async with _writing(Log(tmp_path)) as writer:
        await asyncio.gather(*(writer.append(batch(n)) for n in range(500)))
    assert len(syncs) <= 2
    assert sorted(values_read(tmp_path)) == list(range(500))


@pytest.mark.asyncio
async def test_an_acknowledged_batch_is_synced_and_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_sync, real_publish = os.fdatasync, watermark_file.publish
    log = Log(tmp_path)

    def sync(fd: int) -> None:
        steps.append("sync")
        real_sync(fd)

    def publish(fd: int, mark: watermark_file.Watermark) -> None:
        steps.append("publish")
        real_publish(fd, mark)

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(watermark_file, "publish", publish)
    async with _writing(log) as writer:
        await writer.append(batch(1))
        steps.append("acknowledge")
    assert steps == ["sync", "publish", "acknowledge"]


@pytest.mark.asyncio
async def test_a_duplicate_is_answered_after_the_sync_of_what_it_repeats(
    tmp_path: Path,
) -> None:
    order: list[str] = []
    async with _writing(Log(tmp_path)) as writer:

        async def send(name: str, one: Batch) -> None:
            await writer.append(one)
            order.append(name)

        nothing = Identity(producer="p", epoch=1, sequence=2, next=2)
        await asyncio.gather(
            send("new", batch(1, 2, sequence=0)),
            send("duplicate", Batch(data=b"", events=0, identity=nothing)),
        )
    assert order == ["new", "duplicate"]


@pytest.mark.asyncio
async def test_a_full_disk_appends_nothing_and_room_lets_it_go_on(tmp_path: Path) -> None:
    log = Log(tmp_path)
    async with _writing(log) as writer:
        await writer.append(batch(1, sequence=0))
        size = (tmp_path / FIRST).stat().st_size
        with _file_size_limit(size + 100):
            big = batch(*range(100), sequence=1)
            log.producers.admit(Identity(producer="p", epoch=1, sequence=1, next=101))
            with pytest.raises(WriteFailedError, match=f"{FIRST} can't be written: File too large"):
                await writer.append(big)
        assert (tmp_path / FIRST).stat().st_size == size
        assert log.producers.judge(_sent(1), 1) == Admitted(known=0, next=2)
        await writer.append(batch(2, sequence=1))
    assert values_read(tmp_path) == [1, 2]


@pytest.mark.asyncio
async def test_what_waited_behind_a_failed_write_is_refused_too(tmp_path: Path) -> None:
    log = Log(tmp_path)
    async with _writing(log) as writer:
        await writer.append(batch(1, sequence=0))
        with _file_size_limit((tmp_path / FIRST).stat().st_size):
            results = await asyncio.gather(
                writer.append(batch(2, sequence=1)),
                writer.append(batch(3, sequence=2)),
                return_exceptions=True,
            )
        assert [type(r) for r in results] == [WriteFailedError, WriteFailedError]
        assert log.producers.judge(_sent(2), 1) == Gap(expected=1)
    assert values_read(tmp_path) == [1]


@pytest.mark.asyncio
async def test_a_partition_that_could_not_be_begun_is_gone(tmp_path: Path) -> None:
    log = Log(tmp_path)
    async with _writing(log) as writer:
        with _file_size_limit(10), pytest.raises(WriteFailedError):
            await writer.append(batch(1))
        assert not (tmp_path / FIRST).exists()
        await writer.append(batch(2))
    assert values_read(tmp_path) == [2]


@pytest.mark.asyncio
async def test_a_failed_sync_ends_the_writer_and_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path)
    writer = LogWriter(log.files, log.producers)
    running = asyncio.create_task(writer.run())
    await writer.append(batch(1, sequence=0))

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    waiting = asyncio.create_task(writer.append(batch(2, sequence=1)))
    with pytest.raises(SyncFailedError, match="can't be synced: Input/output error"):
        await running
    assert not waiting.done()
    assert values_read(tmp_path) == [1]
    waiting.cancel()
    writer.close()
    log.close()


@pytest.mark.asyncio
async def test_the_queue_is_bounded_in_bytes(tmp_path: Path) -> None:
    size = len(batch(1).data)
    async with _writing(Log(tmp_path), queue_bytes_max=2 * size) as writer:
        taken = [asyncio.create_task(writer.append(batch(1, sequence=n))) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match=f"{2 * size} bytes wait .* limit is {2 * size}"):
            await writer.append(batch(2, sequence=2))
        await asyncio.gather(*taken)


def test_a_partition_begins_with_the_window_and_never_steps_back(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1))
    log.clock.now_s += 3600
    log.append(batch(2))
    log.clock.now_s -= 7200
    log.append(batch(3))
    log.close()
    names = sorted(p.name for p in tmp_path.glob("server_events_*"))
    assert names == [FIRST, FIRST.replace("0809", "0909")]
    assert values_read(tmp_path) == [1, 2, 3]


def test_a_restart_with_the_clock_behind_goes_on_in_the_newest_partition(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1))
    log.close()
    log = Log(tmp_path)
    log.clock.now_s -= 3600
    log.append(batch(2))
    log.close()
    assert [p.name for p in tmp_path.glob("server_events_*")] == [FIRST]
    assert values_read(tmp_path) == [1, 2]


def test_producers_of_earlier_partitions_are_known_after_a_restart(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for number in range(3):
        log.append(batch(number, sequence=number))
        log.clock.now_s += 5
    log.close()
    assert recover(tmp_path).producers == {"p": (1, 3)}


def test_only_consecutive_batches_of_one_sender_are_joined() -> None:
    joined = join(
        [
            batch(1),
            batch(2, sequence=0),
            batch(3),
            batch(4, sequence=1),
            Batch(data=b"", events=0),
            batch(5, sequence=7),
        ]
    )
    assert [(b.data, b.events) for b in joined] == [
        (lines([1, 3]), 2),
        (lines([2, 4]), 2),
        (lines([5]), 1),
    ]
    assert joined[1].identity == Identity(producer="p", epoch=1, sequence=0, next=2)
    assert joined[2].identity == Identity(producer="p", epoch=1, sequence=7, next=8)


def test_a_joined_batch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "JOIN_BYTES_MAX", 100)
    assert [b.events for b in join([batch(n) for n in range(5)])] == [2, 2, 1]
