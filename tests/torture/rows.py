"""What a row is, and where all of them are found."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from torture.faketime import library
from torture.trial import Trial

# Each module has a list ROWS.
MODULES = (
    "processes",
    "sweeps",
    "retention",
    "network",
    "postgres",
    "power",
    "disk",
    "damage",
    "state",
    "clock",
    "targeted",
    "nemesis",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of fault.

    `run` is one trial. `trials` is how many the long form does; `short` marks the rows of the short
    form, one trial each. `needs` names what must be there: `root`, `libfaketime`, or a program.
    """

    name: str
    run: Callable[[Trial], Awaitable[None]]
    trials: int = 10
    short: bool = False
    needs: tuple[str, ...] = ()

    def missing(self) -> str:
        """Say what this machine lacks for the row, or nothing."""
        for need in self.needs:
            if need == "root":
                if os.geteuid() != 0:
                    return "needs root"
            elif need == "libfaketime":
                if library() is None:
                    return "needs libfaketime (pip install libfaketime, or the system's package)"
            elif shutil.which(need) is None:
                return f"needs {need}"
        return ""


def all_rows() -> list[Row]:
    """Return the rows of every module, in the order of the modules."""
    found: list[Row] = []
    for name in MODULES:
        found += importlib.import_module(f"torture.{name}").ROWS
    return found
