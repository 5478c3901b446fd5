"""What a row is, and where all of them are found."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.results import Result

# Each module has a FAMILY.
MODULES = ("bulk", "singles", "live", "floods", "longlife")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    work: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Rows that are measured together, because they are interleaved or share their runs.

    `measure` is given the names that were asked for, and returns their results in its order.
    """

    rows: tuple[Row, ...]
    measure: Callable[[Bench, Sequence[str]], Awaitable[list[Result]]]


def all_families() -> list[Family]:
    """Return the families of every module, in the order of the modules."""
    return [importlib.import_module(f"benchmarks.{name}").FAMILY for name in MODULES]
