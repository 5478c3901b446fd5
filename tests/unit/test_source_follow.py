"""In follow mode progress and all files that had the source's name decide what is sent next."""

from __future__ import annotations

import logging
import os
import zlib
from pathlib import Path

import msgspec
import pytest

from etl.source.follow import Follow
from etl.source.lines import Lines, Mark, RewrittenError
from etl.source.progress import Progress
from etl.source.rotation import is_rotated, is_succeeded
from etl.source.runs import Start
from etl.source.watch import Watch, stat_of

OLD = b"one\ntwo\nthree\n"


def put(path: Path, data: bytes, at: int) -> Path:
    """Write a file whose last change was so many seconds after the first."""
    path.write_bytes(data)
    os.utime(path, ns=(at * 10**9, at * 10**9))
    return path


def progress_of(path: Path, *, lines: int, finished: bool, cut: bool = False) -> Progress:
    """The progress of a client that has sent some lines of a file as it is now."""
    data = path.read_bytes()
    sent = b"".join(data.splitlines(keepends=True)[:lines])
    return Progress(
        source=str(path),
        producer="p",
        run=7,
        epoch=7,
        next=lines,
        byte=len(sent),
        crc32=zlib.crc32(sent),
        head_bytes=4,
        head_crc32=zlib.crc32(data[:4]),
        stat=stat_of(path.stat()),
        file=os.path.realpath(path),
        end=len(sent) if finished or cut else None,
        cut=cut,
        finished=finished,
    )


def start(path: Path, progress: Progress | None, *, live: bool = False) -> Start | None:
    """What a client does after a restart; or, `live`, after the run that it has just ended."""
    follow = Follow(path=path, watch=Watch(path), progress=None if live else progress)
    if live and progress is not None:
        follow.finished(progress)
    start = follow.start()
    if start is not None:
        os.close(start.fd)
    return start


def begun(path: Path, progress: Progress | None, *, live: bool = False) -> tuple[Path, int, Mark]:
    """Which file is read next, in which run, and from where."""
    found = start(path, progress, live=live)
    assert found is not None
    (name,) = [one for one in path.parent.iterdir() if one.stat().st_ino == found.stat.inode]
    return name, found.progress.run, found.progress.mark


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put(tmp_path / "events.jsonl", OLD, at=100)


def rotated(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


@pytest.mark.parametrize(
    "name",
    ["e.jsonl.1", "e.jsonl.12", "e.jsonl-20261125", "e.jsonl.2026-11-25T10:00", "e-20261125.jsonl"],
)
def test_rotated_files_are_known_by_their_names(name: str) -> None:
    assert is_rotated(name, "e.jsonl")


@pytest.mark.parametrize(
    "name", ["e.jsonl", "e.jsonl.bak", "e.jsonl.1.gz", "e.jsonl~", "e.jsonl.tmp", "fe.jsonl.1"]
)
def test_other_names_are_no_rotated_files(name: str) -> None:
    assert not is_rotated(name, "e.jsonl")


def test_first_start_reads_the_source_alone(source: Path) -> None:
    put(rotated(source, 1), b"older\n", at=50)
    assert begun(source, None) == (source, 1, Mark())


@pytest.mark.parametrize("data", [None, b""])
def test_empty_or_missing_source_is_waited_for(source: Path, data: bytes | None) -> None:
    before = progress_of(source, lines=3, finished=True, cut=True)
    source.unlink()
    if data is not None:
        source.write_bytes(data)
    assert start(source, None) is None
    assert start(source, before) is None


@pytest.mark.parametrize("lines", [0, 1, 3])
@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.1", "another.name"])
def test_run_goes_on_in_its_file_whatever_its_name(source: Path, lines: int, name: str) -> None:
    before = progress_of(source, lines=lines, finished=False)
    source.rename(source.with_name(name))
    if name != source.name:
        put(source, OLD, at=300)  # the same bytes, and yet another file
    assert begun(source, before) == (source.with_name(name), 7, before.mark)


@pytest.mark.parametrize("live", [False, True])
def test_file_read_to_its_end_goes_on_when_more_is_there(source: Path, live: bool) -> None:
    before = progress_of(source, lines=3, finished=True)
    put(source, OLD + b"four\n", at=101)
    found = start(source, before, live=live)
    assert found is not None
    assert (found.progress.epoch, found.progress.mark) == (7, before.mark)
    assert (found.progress.finished, found.progress.end) == (False, None)


@pytest.mark.parametrize("live", [False, True])
def test_files_rotated_since_are_next_in_the_order_they_were_written(
    source: Path, live: bool
) -> None:
    before = progress_of(source, lines=3, finished=True)
    put(rotated(source, 4), b"older\n", at=50)
    source.rename(rotated(source, 3))
    put(rotated(source, 2), b"next\n", at=200)
    put(rotated(source, 1), b"next but one\n", at=300)
    put(source, b"last\n", at=400)
    assert begun(source, before, live=live) == (rotated(source, 2), 8, Mark())


def test_files_written_at_one_time_are_ordered_by_number(source: Path) -> None:
    before = progress_of(source, lines=3, finished=True)
    put(rotated(source, 4), b"older\n", at=100)
    source.rename(rotated(source, 3))
    for number in (1, 2):
        put(rotated(source, number), b"newer\n", at=100)
    assert begun(source, before)[0] == rotated(source, 2)


@pytest.mark.parametrize("live", [False, True])
def test_file_that_was_cut_goes_on_in_its_copy(source: Path, live: bool) -> None:
    before = progress_of(source, lines=2, finished=live, cut=live)
    put(rotated(source, 2), OLD, at=50)  # another file that once began alike
    put(rotated(source, 1), OLD + b"four\n", at=150)
    put(source, b"new\n", at=200)
    assert begun(source, before, live=live) == (rotated(source, 1), 7, before.mark)


def test_file_that_was_cut_and_rotated_goes_on_in_its_copy(source: Path) -> None:
    before = progress_of(source, lines=2, finished=False)
    put(rotated(source, 2), OLD + b"four\n", at=150)
    put(source, b"new\n", at=200)
    source.rename(rotated(source, 1))
    put(source, b"newer\n", at=300)
    assert begun(source, before) == (rotated(source, 2), 7, before.mark)


def test_file_that_was_cut_and_rotated_is_read_anew(source: Path) -> None:
    before = progress_of(source, lines=3, finished=True, cut=True)
    put(source, b"new\n", at=100)
    source.rename(rotated(source, 1))
    put(source, b"newer\n", at=300)
    assert begun(source, before, live=True) == (rotated(source, 1), 8, Mark())


def test_copy_that_is_shorter_than_what_was_sent_is_not_sent_again(source: Path) -> None:
    before = progress_of(source, lines=3, finished=True, cut=True)
    put(rotated(source, 1), b"one\ntwo\n", at=150)
    put(source, b"new\n", at=200)
    assert begun(source, before, live=True) == (source, 8, Mark())


def test_file_that_was_cut_while_it_was_read_is_new_though_it_begins_alike(source: Path) -> None:
    before = progress_of(source, lines=2, finished=True, cut=True)
    assert begun(source, before, live=True) == (source, 8, Mark())
    assert begun(source, before) == (source, 8, Mark())


def test_file_that_took_the_name_is_new_though_it_begins_alike(source: Path) -> None:
    before = progress_of(source, lines=3, finished=True)
    new = put(source.with_name("new"), OLD, at=200)
    new.replace(source)
    assert begun(source, before, live=True) == (source, 8, Mark())


def test_source_that_was_moved_while_the_client_was_down_is_known_by_its_bytes(
    source: Path,
) -> None:
    before = progress_of(source, lines=2, finished=False)
    new = put(source.with_name("new"), OLD, at=50)
    new.replace(source)
    assert begun(source, before) == (source, 7, before.mark)


@pytest.mark.parametrize("finished", [False, True])
def test_file_that_is_gone_is_said_to_be_lost(
    source: Path, finished: bool, caplog: pytest.LogCaptureFixture
) -> None:
    before = progress_of(source, lines=2, finished=finished)
    put(source, b"new\n", at=200)
    with caplog.at_level(logging.WARNING):
        assert begun(source, before) == (source, 8, Mark())
    assert "run 7 is gone or was rewritten; what stood there from line 3 on, byte 8" in caplog.text


def test_file_that_begins_alike_and_goes_on_otherwise_is_another(source: Path) -> None:
    before = progress_of(source, lines=3, finished=False)
    put(source, b"one\nTWO\nthree\nfour\n", at=200)
    assert begun(source, before) == (source, 8, Mark())


def test_file_that_was_rewritten_before_the_first_read_is_not_read(source: Path) -> None:
    found = start(source, None)
    assert found is not None
    source.write_bytes(b"One\ntwo\nthree\nfour\n")
    fd = os.open(source, os.O_RDONLY)
    try:
        head = found.progress.head
        lines = Lines(fd, Mark(), lines_max=9, bytes_max=99, overlap_bytes=6, head=head)
        with pytest.raises(RewrittenError):
            lines.read()
    finally:
        os.close(fd)


def test_copy_that_comes_while_a_file_is_opened_is_not_passed_over(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = progress_of(source, lines=3, finished=True)
    source.rename(rotated(source, 2))
    put(source, b"next\n", at=200)
    opened = os.open

    def copy_first(path: Path, flags: int) -> int:
        monkeypatch.undo()
        put(rotated(source, 1), source.read_bytes(), at=201)
        put(source, b"last\n", at=202)
        return opened(path, flags)

    monkeypatch.setattr(os, "open", copy_first)
    follow = Follow(path=source, watch=Watch(source), progress=None)
    follow.finished(before)
    assert follow.start() is None
    assert begun(source, before, live=True) == (rotated(source, 1), 8, Mark())


def test_run_of_another_mode_knows_no_path(source: Path) -> None:
    before = msgspec.structs.replace(progress_of(source, lines=3, finished=True), file="")
    put(source, OLD + b"four\n", at=101)
    assert begun(source, before) == (source, 7, before.mark)


@pytest.mark.parametrize(
    ("name", "data", "succeeded"),
    [
        (None, b"", False),
        ("events.jsonl", b"", False),
        ("events.jsonl", b"new\n", True),
        ("events.jsonl.1", b"new\n", True),
        ("events.jsonl.1", b"", False),
        ("events.jsonl.bak", b"new\n", False),
    ],
)
def test_file_ends_when_one_written_after_it_holds_something(
    source: Path, name: str | None, data: bytes, succeeded: bool
) -> None:
    stat = stat_of(source.stat())
    put(rotated(source, 3), b"older\n", at=50)
    assert not is_succeeded(source, source, stat)
    source.rename(rotated(source, 2))
    if name is not None:
        put(source.with_name(name), data, at=200)
    assert is_succeeded(source, source, stat) is succeeded


@pytest.mark.parametrize("at_start", [False, True])
@pytest.mark.parametrize("new", [b"eno\nowt\neerht\nfour\n", b"four\n"])
def test_nothing_is_read_behind_bytes_that_are_others_now(
    source: Path, at_start: bool, new: bytes
) -> None:
    fd = os.open(source, os.O_RDONLY)
    try:
        mark = progress_of(source, lines=2, finished=False).mark if at_start else Mark()
        lines = Lines(fd, mark, lines_max=10, bytes_max=1000, overlap_bytes=6)
        piece = lines.read()
        assert piece is not None
        assert piece.body == OLD[mark.byte :]
        source.write_bytes(new)
        with pytest.raises(RewrittenError):
            lines.read()
        source.write_bytes(OLD + b"four\n")
        piece = lines.read()
        assert piece is not None
        assert piece.body == b"four\n"
    finally:
        os.close(fd)
