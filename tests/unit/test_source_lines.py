"""Lines are cut into pieces without gap or overlap, however large they are."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.core.event import LINE_BYTES_MAX
from etl.source.lines import BLANK, Lines, Mark, Piece, after_lines, holds, locate

LINES = st.lists(
    st.one_of(st.binary(max_size=30), st.just(b""), st.just(b"x" * 5000)).map(
        lambda line: line.replace(b"\n", b"")
    ),
    max_size=40,
)


@contextmanager
def opened(data: bytes) -> Iterator[int]:
    with TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


def all_pieces(lines: Lines) -> list[Piece]:
    pieces = []
    while (piece := lines.cut() or lines.read()) is not None:
        pieces.append(piece)
    return pieces


@given(LINES, st.integers(1, 12), st.integers(1, 20_000), st.booleans())
def test_pieces_follow_each_other_and_keep_their_bounds(
    texts: list[bytes], lines_max: int, bytes_max: int, closed: bool
) -> None:
    data = b"\n".join(texts) + (b"\n" if closed and texts else b"")
    with opened(data) as fd:
        lines = Lines(fd, Mark(), end=len(data), lines_max=lines_max, bytes_max=bytes_max)
        pieces = all_pieces(lines)
    assert b"".join(piece.body for piece in pieces) == data
    mark = Mark()
    for piece in pieces:
        assert piece.first == mark
        mark = piece.next
        assert piece.lines <= lines_max
        assert piece.lines == 1 or len(piece.body) <= bytes_max
        assert mark.crc32 == zlib.crc32(data[: mark.byte])
    assert mark.byte == len(data)
    assert mark.sequence == len(data.splitlines(keepends=True)) or b"\r" in data


@given(LINES.filter(lambda texts: len(texts) > 1))
def test_halves_of_a_piece_are_the_piece(texts: list[bytes]) -> None:
    data = b"\n".join(texts) + b"\n"
    piece = Piece(first=Mark(), next=Mark().after(data, len(texts)), body=data)
    left, right = piece.split()
    assert left.body + right.body == data
    assert (left.first, left.next, right.next) == (piece.first, right.first, piece.next)
    assert left.lines == len(texts) // 2 == left.body.count(b"\n")


def test_line_without_a_break_waits_until_it_is_known_to_be_the_last() -> None:
    with opened(b"one\ntwo") as fd:
        lines = Lines(fd, Mark(), lines_max=10, bytes_max=100)
        assert [piece.body for piece in all_pieces(lines)] == [b"one\n"]
        assert lines.read() is None
        lines.end = 7
        piece = lines.read()
        assert piece is not None
        assert (piece.body, piece.next.sequence, piece.next.byte) == (b"two", 2, 7)


def test_line_completed_in_pieces_is_one_line() -> None:
    with opened(b"on") as fd:
        lines = Lines(fd, Mark(), lines_max=10, bytes_max=100)
        assert lines.read() is None
        os.write(fd, b"e\ntw")
        assert [piece.body for piece in all_pieces(lines)] == [b"one\n"]


@pytest.mark.parametrize("line_break", [b"\n", b""])
def test_long_line_gives_way_to_a_blank_one_and_is_described(line_break: bytes) -> None:
    text = b"A" * 70_000 + b"b" * 400_000
    data = b"one\n" + text + line_break
    with opened(data) as fd:
        lines = Lines(fd, Mark(), end=len(data), lines_max=10, bytes_max=1000)
        _, long = all_pieces(lines)
    assert long.body == BLANK
    assert long.unsendable is not None
    assert long.unsendable.text == text[:LINE_BYTES_MAX]
    assert long.unsendable.length == len(text)
    assert long.unsendable.sha256 == hashlib.sha256(text).hexdigest()
    assert long.next == Mark(sequence=2, byte=len(data), crc32=zlib.crc32(data))


def test_long_line_that_grows_is_read_once() -> None:
    with opened(b"x" * 200_000) as fd:
        lines = Lines(fd, Mark(), lines_max=1, bytes_max=1000)
        assert lines.read() is None
        assert lines.seen == 200_000
        os.pwrite(fd, b"y" * 200_000 + b"\n", 200_000)
        os.pwrite(fd, b"z", 0)
        piece = lines.read()
        assert piece is not None
        assert piece.unsendable is not None
        assert piece.unsendable.text.startswith(b"x")
        assert piece.next.byte == 400_001


def test_memory_does_not_grow_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with path.open("wb") as file:
        file.truncate(100_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"\nnext\n")
    with path.open("rb") as file:
        lines = Lines(file.fileno(), Mark(), lines_max=10, bytes_max=1024 * 1024)
        tracemalloc.start()
        try:
            long, after = all_pieces(lines)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert long.unsendable is not None
    assert long.unsendable.length == 100_000_000
    assert after.body == b"next\n"
    assert peak < 8 * 1024 * 1024


@given(LINES, st.data())
def test_line_is_found_again_from_the_start(texts: list[bytes], chosen: st.DataObject) -> None:
    data = b"".join(text + b"\n" for text in texts)
    sequence = chosen.draw(st.integers(0, len(texts)))
    end = Mark().after(data, len(texts))
    with opened(data) as fd:
        byte = after_lines(data, sequence)
        assert locate(fd, sequence, end) == Mark().after(data[:byte], sequence)


def test_line_is_not_found_in_other_bytes() -> None:
    data = b"one\ntwo\n"
    end = Mark().after(data, 2)
    for other in (b"one\ntwi\n", b"one\n", b"", b"one\ntwo"):
        with opened(other) as fd:
            assert locate(fd, 1, end) is None
            assert not holds(fd, end)
    with opened(data + b"three\n") as fd:
        assert holds(fd, end)
