"""A batch says what it is, and any damage to it shows."""

from __future__ import annotations

import json
import zlib

import pytest

from etl.log.header import Batch, encode, find, verify
from etl.runtime.errors import CorruptError
from support.logs import batch, lines


def test_the_first_line_is_the_event_with_one_more_member() -> None:
    first, *others = encode(batch(1, 2, 3, sequence=5)).splitlines()
    event = json.loads(first)
    header = event.pop("_batch")
    assert event == {"userId": "u", "name": "add_revenue", "value": 1}
    assert header == {
        "lines": 3,
        "bytes": len(lines([1, 2, 3])),
        "crc32": header["crc32"],
        "producer": "p",
        "epoch": 1,
        "sequence": 5,
        "next": 8,
        "header_crc32": header["header_crc32"],
    }
    assert list(header)[:3] == ["lines", "bytes", "crc32"]
    assert list(header)[-1] == "header_crc32"
    assert len(others) == 2


def test_an_anonymous_batch_names_no_producer() -> None:
    header = json.loads(encode(batch(1)))["_batch"]
    assert list(header) == ["lines", "bytes", "crc32", "header_crc32"]


def test_a_batch_reads_back_without_its_header() -> None:
    written = batch(1, 2, 3, sequence=0)
    stored = b"before\n" + encode(written)
    found = find(stored, 7)
    assert found is not None
    assert b"".join(verify(stored, 7, found)) == written.data
    assert found.header.identity == written.identity
    assert found.stored_bytes == len(stored) - 7


def test_an_event_that_nests_a_batch_member_keeps_it() -> None:
    data = b'{"userId":"u","name":"add_revenue","value":1,"x":{"a":1,"_batch":{"lines":9}}}\n'
    stored = encode(Batch(data=data, events=1))
    found = find(stored, 0)
    assert found is not None
    assert b"".join(verify(stored, 0, found)) == data
    assert find(data, 0) is None


def test_white_space_after_the_event_stays() -> None:
    data = b'{"userId":"u","name":"add_revenue","value":1} \t\n'
    stored = encode(Batch(data=data, events=1))
    found = find(stored, 0)
    assert found is not None
    assert b"".join(verify(stored, 0, found)) == data


def test_a_bit_flipped_anywhere_shows() -> None:
    stored = encode(batch(123456, 7, sequence=0))
    for at in range(len(stored)):
        for bit in range(8):
            damaged = bytearray(stored)
            damaged[at] ^= 1 << bit
            assert not _is_whole(bytes(damaged)), f"byte {at}, bit {bit}"


def _is_whole(stored: bytes) -> bool:
    try:
        found = find(stored, 0)
        if found is None or found.stored_bytes != len(stored):
            return False
        verify(stored, 0, found)
    except CorruptError:
        return False
    return True


@pytest.mark.parametrize("size", [-1, 0, 2**40])
def test_a_header_with_an_impossible_size_is_damage(size: int) -> None:
    said = b'{"lines":1,"bytes":%d,"crc32":"00000000"' % size
    line = b'{"a":1,"_batch":%s,"header_crc32":"%08x"}}\n' % (said, zlib.crc32(said))
    with pytest.raises(CorruptError, match=str(size)):
        find(line, 0)
