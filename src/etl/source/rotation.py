"""The files that have, or once had, the source's name, and the order in which they were written.

A rotated file carries the source's name and in it or behind it a number or a time, as
`events.jsonl.1`, `events.jsonl-20261125` or `events-20261125.jsonl`, and lies in the same
directory. Compressed ones, and `events.jsonl.bak`, are none of them.

Not promised: the order, where somebody has changed the times of files that were rotated.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from etl.source.watch import Stat, look, stat_of

_SCANS = 10
_TAIL = r"[._-]?\d[\dTZ:._-]*"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A regular file as it was when it was looked at."""

    path: Path
    stat: Stat

    @property
    def age(self) -> tuple[int, int, str]:
        """What files are ordered by, the oldest first: last written, then number, then date."""
        number = re.search(r"\.(\d{1,3})$", self.path.name)
        return self.stat.mtime_ns, -int(number[1]) if number else 0, self.path.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The file that has the source's name, if any does, and those that had it, the oldest first."""

    current: File | None
    others: tuple[File, ...]

    @property
    def all(self) -> tuple[File, ...]:
        """Every file of it."""
        return (*self.others, self.current) if self.current else self.others

    @property
    def names(self) -> dict[Path, int]:
        """Which file has which name."""
        return {file.path: file.stat.inode for file in self.all}

    def newer(self, than: File | None, *, mtime_ns: int, anew: int | None = None) -> list[File]:
        """Return what was written after a file, or after a time where that file is gone.

        The file with the inode `anew` was written anew since.
        """
        newer = [
            file
            for file in self.others
            if file.stat.inode == anew
            or (file.age > than.age if than else file.stat.mtime_ns > mtime_ns)
        ]
        if self.current and not (than and self.is_current(than)):
            newer.append(self.current)
        return [file for file in newer if file.stat.size > 0]

    def is_current(self, file: File) -> bool:
        """Say whether a file has the source's name."""
        return self.current is not None and file.stat.same_file(self.current.stat)


def is_rotated(name: str, source: str) -> bool:
    """Say whether a file of this name once was the source."""
    return bool(_rotated(source).fullmatch(name))


@cache
def _rotated(source: str) -> re.Pattern[str]:
    stem, dot, suffix = source.rpartition(".")
    names = [re.escape(source) + _TAIL]
    if stem:
        names.append(re.escape(stem) + _TAIL + re.escape(dot + suffix))
    return re.compile("|".join(names))


def family(path: Path, *, file: Path, inode: int) -> Family:
    """Look for the source, its rotated files, and for where a file that was the source is now.

    `file` is where that one was, symbolic links resolved, and `inode` its number.

    Raises:
        OSError: they can't be looked at.
    """
    # First: what is renamed meanwhile is then seen under its new name, or under both.
    there = look(path)
    current = File(path=path, stat=there) if there else None
    sources = {Path(os.path.realpath(path.parent)): {path.name}}
    sources.setdefault(file.parent, set()).add(file.name)
    others = _scan(sources, inode)
    # A file that is renamed during a scan may be missing in it.
    for _ in range(_SCANS):
        before, others = others, _scan(sources, inode)
        if others == before:
            break
    return Family(
        current=current,
        others=tuple(
            sorted(
                (f for f in others if not (there and f.stat.same_file(there))),
                key=lambda one: one.age,
            )
        ),
    )


def is_succeeded(path: Path, file: Path, stat: Stat) -> bool:
    """Say whether any file that was written after one holds something; `file` is where it was.

    Raises:
        OSError: they can't be looked at.
    """
    there = look(path)
    if there is not None and there.same_file(stat):
        return False
    if there is not None and there.size > 0:
        return True
    all_of_them = family(path, file=file, inode=stat.inode)
    own = [one for one in all_of_them.others if one.stat.same_file(stat)]
    return bool(all_of_them.newer(own[0] if own else None, mtime_ns=stat.mtime_ns))


def _scan(sources: dict[Path, set[str]], inode: int) -> set[File]:
    found: dict[tuple[int, int], File] = {}
    for directory, names in sources.items():
        try:
            entries = list(os.scandir(directory))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            if entry.inode() != inode and not any(is_rotated(entry.name, name) for name in names):
                continue
            try:
                if entry.is_file():
                    stat = stat_of(entry.stat())
                    found[stat.device, stat.inode] = File(path=Path(entry.path), stat=stat)
            except FileNotFoundError:
                continue
    return set(found.values())
