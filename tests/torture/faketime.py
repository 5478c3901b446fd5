"""A clock of the trial's own: libfaketime lies to the processes, and a file says by how much."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

_BUNDLED = "vendor/libfaketime/src/libfaketime.so.1"
_INSTALLED = "*/faketime/libfaketime.so.1"


def library() -> Path | None:
    """Return where libfaketime lies: in the Python package of that name, or in the system."""
    spec = importlib.util.find_spec("libfaketime")
    places = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    found = [place / _BUNDLED for place in places if (place / _BUNDLED).exists()]
    return next(iter([*found, *sorted(Path("/usr/lib").glob(_INSTALLED))]), None)


@dataclass(slots=True, kw_only=True)
class Clock:
    """How far the clock of the processes is ahead of the true one."""

    directory: Path
    ahead_s: int = 0

    def set(self, ahead_s: int) -> None:
        """Let the clock jump."""
        self.ahead_s = ahead_s
        new = self.directory / "clock.new"
        new.write_text(f"{ahead_s:+d}\n")
        new.replace(self._file)

    def environment(self) -> dict[str, str]:
        """What a process needs to be lied to; timers and the times of files stay true."""
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    @property
    def _file(self) -> Path:
        return self.directory / "clock"
