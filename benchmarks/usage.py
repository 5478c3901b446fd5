"""CPU time and peak memory of processes, as the kernel counts them in /proc.

CPU time comes in ticks of 10 ms. The peak is `VmHWM`: the most that was resident since the process
began, for a PostgreSQL process with the shared memory it has touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a process used during one run."""

    cpu_s: float
    peak_mb: float

    def __str__(self) -> str:
        return f"{self.cpu_s:.2f} s {self.peak_mb:.0f} MB"


def cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of a process; 0 for one that is gone."""
    return sum(_times(pid)[:2]) / _TICKS_PER_S


def peak_mb(pid: int) -> float:
    """Return the most memory that was resident; 0 for a process that is gone."""
    with suppress(OSError):
        if found := _PEAK.search(Path(f"/proc/{pid}/status").read_text()):
            return int(found[1]) / 1024
    return 0.0


def children(pid: int) -> list[int]:
    """Return the processes whose parent this one is."""
    found = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [other for other in found if _parent(other) == pid]


class Meter:
    """Measures from its making on: processes by name, and a PostgreSQL with all its backends.

    `own_backends` are those of the measuring connections: with this process they are `harness`.
    """

    def __init__(
        self, processes: Mapping[str, int], *, postmaster: int, own_backends: frozenset[int]
    ) -> None:
        self._processes = processes
        self._postmaster = postmaster
        self._own_backends = own_backends
        self._began = self._cpu_s()

    def read(self) -> dict[str, Use]:
        """Return what was used so far; the peak of PostgreSQL is that of its largest process."""
        now = self._cpu_s()
        backends = [pid for pid in children(self._postmaster) if pid not in self._own_backends]
        peaks = {name: peak_mb(pid) for name, pid in self._processes.items()}
        peaks["postgres"] = max(map(peak_mb, backends), default=0.0)
        peaks["harness"] = peak_mb(os.getpid())
        return {
            name: Use(cpu_s=now[name] - self._began[name], peak_mb=peak)
            for name, peak in peaks.items()
        }

    def _cpu_s(self) -> dict[str, float]:
        own = sum(map(cpu_s, self._own_backends))
        # Backends that have ended are in the times that their parent has collected.
        tree = sum(_times(self._postmaster)) / _TICKS_PER_S
        tree += sum(map(cpu_s, children(self._postmaster)))
        found = {name: cpu_s(pid) for name, pid in self._processes.items()}
        return {**found, "postgres": tree - own, "harness": cpu_s(os.getpid()) + own}


def _stat(pid: int) -> list[str]:
    """Return the fields of `/proc/PID/stat` behind the name, which may hold spaces."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _times(pid: int) -> list[int]:
    """Return user and system ticks of a process, then those of its ended children."""
    return [int(field) for field in _stat(pid)[11:15]] or [0, 0, 0, 0]


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0
