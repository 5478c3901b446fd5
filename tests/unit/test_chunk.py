"""A chunk holds what lies between its offsets, and stays within its bounds."""

from __future__ import annotations

import pytest

from etl.sink import chunk as bounds
from etl.sink.chunk import Chunk
from etl.sink.offsets import Move, Offset
from support.partitions import event


def move(partition: str, before: int, after: int, *, bytes_each: int = 10) -> Move:
    return Move(
        before=Offset(partition=partition, byte=before * bytes_each, line=before, done=False),
        after=Offset(partition=partition, byte=after * bytes_each, line=after, done=False),
    )


def test_blocks_of_a_partition_become_one_move() -> None:
    chunk = Chunk()
    assert not chunk
    chunk.add(move("p", 3, 4), event("a", 1))
    chunk.add(move("q", 0, 1), event("a", 2))
    chunk.add(move("p", 4, 6), event("a", 4) + event("b", "0.5"))
    assert chunk
    assert chunk.moves == {"p": move("p", 3, 6), "q": move("q", 0, 1)}
    assert chunk.deltas == {"a": 7_000_000, "b": 500_000}
    assert (chunk.lines, chunk.log_bytes) == (4, 40)


def test_gap_between_blocks_is_a_mistake() -> None:
    chunk = Chunk()
    chunk.add(move("p", 0, 1), event("a", 1))
    with pytest.raises(AssertionError, match="block begins at"):
        chunk.add(move("p", 2, 3), event("a", 1))


def test_dead_letter_names_its_line_in_the_partition_from_one() -> None:
    chunk = Chunk()
    chunk.add(move("p", 10, 12), event("a", 1) + b"bad\n")
    (letter,) = chunk.dead_letters
    assert (letter.partition, letter.line, letter.text, letter.bytes) == ("p", 12, b"bad", 3)


def test_long_dead_letter_keeps_its_beginning_and_its_length() -> None:
    chunk = Chunk()
    chunk.add(move("p", 0, 1), b"x" * 100_000 + b"\n")
    (letter,) = chunk.dead_letters
    assert (len(letter.text), letter.bytes) == (bounds.DEAD_LETTER_TEXT_MAX, 100_000)


def test_chunk_is_full_by_bytes_users_or_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "CHUNK_BYTES_MAX", 1000)
    monkeypatch.setattr(bounds, "CHUNK_DEAD_LETTERS_MAX", 2)
    by_bytes, by_users, by_letters = Chunk(), Chunk(users_max=3), Chunk()
    by_bytes.add(move("p", 0, 1, bytes_each=999), event("a", 1))
    by_users.add(move("p", 0, 2), event("a", 1) + event("b", 1))
    by_letters.add(move("p", 0, 1), b"bad\n")
    assert [by_bytes.full, by_users.full, by_letters.full] == [False] * 3
    by_bytes.add(move("q", 0, 1, bytes_each=1), b"\n")
    by_users.add(move("p", 2, 3), event("c", 1))
    by_letters.add(move("p", 1, 2), b"bad\n")
    assert [by_bytes.full, by_users.full, by_letters.full] == [True] * 3


def test_chunks_shrink_after_failures_and_grow_after_commits() -> None:
    bound = bounds.Bound()
    for _ in range(20):
        bound.narrow()
    assert bound.users_max == bounds.CHUNK_USERS_MIN
    bound.widen()
    assert bound.users_max == 2 * bounds.CHUNK_USERS_MIN
    for _ in range(20):
        bound.widen()
    assert bound.users_max == bounds.CHUNK_USERS_MAX
