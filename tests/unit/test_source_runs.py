"""Progress and the source decide together what is sent next."""

from __future__ import annotations

import asyncio
import logging
import os
import zlib
from pathlib import Path

import msgspec
import pytest

from etl.runtime.errors import EtlError
from etl.source.lines import Mark
from etl.source.progress import Keeper, Progress, load
from etl.source.runs import Runs
from etl.source.watch import Watch, look

OLD = b"one\ntwo\nthree\n"


def progress_of(path: Path, *, lines: int, finished: bool) -> Progress:
    """The progress of a client that has sent some lines of the source as it is now."""
    data = path.read_bytes()
    stat = look(path)
    assert stat is not None
    sent = b"".join(data.splitlines(keepends=True)[:lines])
    return Progress(
        source=str(path),
        producer="p",
        run=7,
        epoch=7,
        next=lines,
        byte=len(sent),
        crc32=zlib.crc32(sent),
        head_bytes=len(data),
        head_crc32=zlib.crc32(data),
        stat=stat,
        finished=finished,
    )


def next_run(path: Path, progress: Progress | None) -> Progress | None:
    start = Runs(path=path, watch=Watch(path), progress=progress).start()
    if start is None:
        return None
    os.close(start.fd)
    return start.progress


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_bytes(OLD)
    return path


def replace(path: Path, data: bytes) -> None:
    """Other inode, other time."""
    new = path.with_name("new")
    new.write_bytes(data)
    os.utime(new, ns=(1, 1))
    new.replace(path)


def test_without_progress_a_new_producer_sends_everything(source: Path) -> None:
    run = next_run(source, None)
    assert run is not None
    assert (run.run, run.mark) == (1, Mark())
    assert run.producer.startswith("client-")
    again = next_run(source, None)
    assert again is not None
    assert again.producer != run.producer


def test_missing_source_is_waited_for(tmp_path: Path) -> None:
    assert next_run(tmp_path / "events.jsonl", None) is None
    assert next_run(tmp_path / "nowhere" / "events.jsonl", None) is None
    assert next_run(tmp_path, None) is None


@pytest.mark.parametrize("lines", [0, 1, 3])
@pytest.mark.parametrize("data", [OLD, OLD + b"four\n"], ids=["moved", "appended"])
def test_unfinished_run_goes_on_in_the_same_file(source: Path, lines: int, data: bytes) -> None:
    before = progress_of(source, lines=lines, finished=False)
    replace(source, data)
    assert next_run(source, before) == before


@pytest.mark.parametrize("lines", [0, 1, 3])
@pytest.mark.parametrize("data", [b"One\ntwo\nthree\n", b"one\ntwo\n", b""])
def test_unfinished_run_gives_way_to_another_file_with_a_warning(
    source: Path, lines: int, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = progress_of(source, lines=lines, finished=False)
    replace(source, data)
    with caplog.at_level(logging.WARNING):
        run = next_run(source, before)
    assert run is not None
    assert (run.producer, run.run, run.mark) == ("p", 8, Mark())
    assert f"lines from {lines + 1} on are not sent" in caplog.text


def test_finished_run_is_not_repeated_for_the_same_bytes(source: Path) -> None:
    before = progress_of(source, lines=3, finished=True)
    assert next_run(source, before) is None
    os.utime(source, ns=(1, 1))
    assert next_run(source, before) is None
    replace(source, OLD)
    assert next_run(source, before) is None


@pytest.mark.parametrize("data", [OLD + b"x", b"one\ntwo\n", b"one\ntwo\nthreE\n", b""])
def test_finished_run_is_repeated_for_other_bytes(source: Path, data: bytes) -> None:
    before = progress_of(source, lines=3, finished=True)
    replace(source, data)
    run = next_run(source, before)
    assert run is not None
    assert (run.producer, run.run, run.mark) == ("p", 8, Mark())


def test_any_change_while_running_is_a_new_run(source: Path) -> None:
    before = progress_of(source, lines=3, finished=True)
    runs = Runs(path=source, watch=Watch(source), progress=before)
    assert runs.start() is None
    os.utime(source, ns=(1, 1))
    start = runs.start()
    assert start is not None
    os.close(start.fd)
    assert start.progress.run == 8
    assert runs.start() is None


def test_change_after_the_end_of_a_run_is_a_new_run(source: Path) -> None:
    runs = Runs(path=source, watch=Watch(source), progress=None)
    start = runs.start()
    assert start is not None
    os.close(start.fd)
    source.write_bytes(OLD + b"more\n")
    runs.finished(start.progress)
    again = runs.start()
    assert again is not None
    os.close(again.fd)
    assert (again.progress.run, again.progress.producer) == (2, start.progress.producer)
    assert again.progress.epoch > start.progress.epoch


def test_damaged_progress_counts_as_missing(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = source.with_name("client_progress.json")
    assert load(path) is None
    before = progress_of(source, lines=3, finished=True)
    whole = msgspec.json.encode(before)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with caplog.at_level(logging.WARNING):
            assert load(path) is None, size
        assert str(path) in caplog.text
    path.write_bytes(whole)
    assert load(path) == before
    path.write_bytes(b"\xff\0")
    assert load(path) is None


def test_progress_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "client_progress.json"
    path.write_bytes(b'{"format":2,"byte":"elsewhere"}')
    with pytest.raises(EtlError, match=r"client_progress.json has format 2"):
        load(path)


@pytest.mark.asyncio
async def test_newest_progress_is_what_is_kept(source: Path) -> None:
    path = source.with_name("client_progress.json")
    keeper = Keeper(path)
    for lines in range(4):
        keeper.note(progress_of(source, lines=lines, finished=False))
    last = progress_of(source, lines=3, finished=True)
    await asyncio.gather(keeper.flush(), keeper.save(last), keeper.flush())
    assert load(path) == last
    assert list(path.parent.glob("*.tmp")) == []
