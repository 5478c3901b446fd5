"""Each dead letter stands once, in order, whatever was cut."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from etl.core.event import LINE_BYTES_MAX
from etl.runtime import files
from etl.source.dead_letters import DeadLetters, Rejected, Sender
from etl.source.lines import Mark, Piece

SENDER = Sender(source="events.jsonl", producer="p", epoch=3)
REJECTED = (Rejected(line=2, reason="no"), Rejected(line=4, reason="never"))


def piece(body: bytes, first: int = 0, byte: int = 0) -> Piece:
    start = Mark(sequence=first, byte=byte)
    return Piece(first=start, next=start.after(body, body.count(b"\n")), body=body)


def opened(path: Path) -> DeadLetters:
    letters = DeadLetters(path)
    letters.open()
    return letters


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_letter_names_line_byte_reason_and_text(tmp_path: Path) -> None:
    path = tmp_path / "dead_letters.jsonl"
    letters = opened(path)
    letters.append(SENDER.letters(piece(b"good\nb\xc3\xa4d\n\n\xff\n", 10, 100), REJECTED))
    letters.close()
    one, two = read(path)
    assert one.pop("time").endswith("Z")
    assert one == {
        "source": "events.jsonl",
        "producer": "p",
        "epoch": 3,
        "line": 12,
        "byte": 105,
        "reason": "no",
        "text": "b\u00e4d",
    }
    assert (two["line"], two["byte"], base64.b64decode(two["base64"])) == (14, 111, b"\xff")
    assert "text" not in two


def test_long_line_keeps_its_head_length_and_digest(tmp_path: Path) -> None:
    path = tmp_path / "dead_letters.jsonl"
    text = b"x" * (LINE_BYTES_MAX + 5)
    letters = opened(path)
    letters.append(SENDER.letters(piece(text + b"\n"), (Rejected(line=1, reason="long"),)))
    letters.append(SENDER.letters(piece(text + b"\n", 1).without("long"), ()))
    letters.close()
    for one in read(path):
        assert one["text"].encode() == text[:LINE_BYTES_MAX]
        assert one["length"] == len(text)
        assert one["sha256"] == hashlib.sha256(text).hexdigest()
    assert [one["line"] for one in read(path)] == [1, 2]


def test_file_cut_at_every_byte_holds_each_letter_once_after_the_next_try(tmp_path: Path) -> None:
    path = tmp_path / "dead_letters.jsonl"
    lines = piece(b"a\nb\nc\nd\n")
    letters = opened(path)
    letters.append(SENDER.letters(lines, REJECTED))
    letters.close()
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        letters = opened(path)
        letters.append(SENDER.letters(lines, REJECTED))
        letters.append(SENDER.letters(lines, REJECTED))
        letters.close()
        assert [one["line"] for one in read(path)] == [2, 4], size


def test_file_with_a_tail_of_nuls_is_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "dead_letters.jsonl"
    letters = opened(path)
    letters.append(SENDER.letters(piece(b"a\nb\nc\nd\n"), REJECTED))
    letters.close()
    path.write_bytes(path.read_bytes() + b"\0" * 100_000 + b"\n")
    opened(path).close()
    assert [one["line"] for one in read(path)] == [2, 4]


def test_last_letter_longer_than_a_block_is_found(tmp_path: Path) -> None:
    path = tmp_path / "dead_letters.jsonl"
    lines = piece(b"\x01" * LINE_BYTES_MAX + b"\n")
    for _ in range(2):
        letters = opened(path)
        letters.append(SENDER.letters(lines, (Rejected(line=1, reason="no"),)))
        letters.close()
    assert len(read(path)) == 1


def test_letters_of_another_run_or_producer_are_others(tmp_path: Path) -> None:
    path = tmp_path / "dead_letters.jsonl"
    letters = opened(path)
    lines = piece(b"a\nb\nc\nd\n")
    letters.append(SENDER.letters(lines, REJECTED))
    letters.append(Sender(source="s", producer="p", epoch=4).letters(lines, REJECTED))
    letters.append(Sender(source="s", producer="q", epoch=4).letters(lines, REJECTED))
    letters.close()
    assert len(read(path)) == 6


def test_full_disk_leaves_no_part_of_a_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dead_letters.jsonl"
    letters = opened(path)
    lines = piece(b"a\nb\nc\nd\n")
    letters.append(SENDER.letters(lines, REJECTED[:1]))
    before = path.read_bytes()

    def half(fd: int, data: bytes) -> None:
        os.write(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", half)
        with pytest.raises(OSError, match="No space"):
            letters.append(SENDER.letters(lines, REJECTED))
    assert path.read_bytes() == before
    letters.append(SENDER.letters(lines, REJECTED))
    letters.close()
    assert [one["line"] for one in read(path)] == [2, 4]


@pytest.mark.parametrize("how", ["emptied", "moved", "removed"])
def test_letters_go_on_whole_after_the_file_was_taken_away(tmp_path: Path, how: str) -> None:
    path = tmp_path / "dead_letters.jsonl"
    letters = DeadLetters(path)
    letters.open()
    first, second = (Sender(source="s", producer="p", epoch=n) for n in (1, 2))
    letters.append(first.letters(piece(b"bad\n"), [Rejected(line=1, reason="no")]))
    match how:
        case "emptied":
            os.truncate(path, 0)
        case "moved":
            path.rename(tmp_path / "old.jsonl")
        case _:
            path.unlink()
    letters.append(second.letters(piece(b"worse\n"), [Rejected(line=1, reason="no")]))
    letters.close()
    (letter,) = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert (letter["epoch"], letter["text"]) == (2, "worse")
