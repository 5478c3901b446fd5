"""What happens to a file that is followed: it is appended to, rotated, cut, replaced."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from support.client_process import Place
from support.stub_server import StubServer

Change = Callable[[Place, list[bytes]], None]


def events(first: int, number: int) -> list[bytes]:
    return [
        b'{"userId":"u","name":"add_revenue","value":%d}' % value
        for value in range(first, first + number)
    ]


KEPT = 20
OLD = events(1, 40)
NEW = events(1001, 7)
NEWER = events(2001, 9)


def data(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def append(place: Place, lines: list[bytes]) -> None:
    place.append(data(lines))


def make_room(place: Place) -> None:
    """Rename what was rotated, as logrotate does."""
    for number in range(KEPT, 0, -1):
        if rotated(place, number).exists():
            rotated(place, number).rename(rotated(place, number + 1))


def rotate(place: Place, lines: list[bytes]) -> None:
    make_room(place)
    place.source.rename(rotated(place, 1))
    place.append(data(lines))


def rotated(place: Place, number: int) -> Path:
    return place.source.with_name(f"{place.source.name}.{number}")


def replace(place: Place, lines: list[bytes]) -> None:
    place.write(data(lines))


def unlink_and_create(place: Place, lines: list[bytes]) -> None:
    place.source.unlink()
    place.append(data(lines))


def copy_and_truncate(place: Place, lines: list[bytes]) -> None:
    make_room(place)
    shutil.copyfile(place.source, rotated(place, 1))
    os.truncate(place.source, 0)
    place.append(data(lines))


def truncate_and_write_less(place: Place, lines: list[bytes]) -> None:
    place.source.write_bytes(data(lines))


def truncate_and_write_more(place: Place, lines: list[bytes]) -> None:
    place.source.write_bytes(data(lines * 20))


def swap_symlink(place: Place, lines: list[bytes]) -> None:
    if not place.source.is_symlink():
        target = place.directory / "elsewhere" / "first"
        target.parent.mkdir()
        place.source.rename(target)
        place.source.symlink_to(target)
    new = place.directory / f"target-{len(list(place.directory.iterdir()))}"
    new.write_bytes(data(lines))
    link = place.directory / "link.tmp"
    link.symlink_to(new)
    link.replace(place.source)


async def has(server: StubServer, lines: list[bytes]) -> None:
    """Wait until the server has these lines, in this order, and no others."""
    with contextlib.suppress(TimeoutError):
        await server.until(lambda: len(server.stored) >= len(lines))
    assert server.stored == lines
