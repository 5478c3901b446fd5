"""What the machine is, and how busy it was: a figure without it means nothing."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import asyncpg

ROOT = Path(__file__).resolve().parents[1]
SYNCS = 20


async def machine(directory: Path, connection: asyncpg.Connection) -> dict[str, object]:
    """Return the facts; `directory` is where the pipeline will write."""
    loads = os.getloadavg()
    return {
        "revision": _revision(),
        "cpu": _field(Path("/proc/cpuinfo"), "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _field(Path("/proc/meminfo"), "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgresql": await connection.fetchval("SHOW server_version"),
        "fsync": await connection.fetchval("SHOW fsync"),
        "synchronous_commit": await connection.fetchval("SHOW synchronous_commit"),
        "filesystem": _filesystem(directory),
        "fdatasync of 4 KiB": f"{_sync_ms(directory):.2f} ms",
        "load at the start": " ".join(f"{load:.2f}" for load in loads),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def lines(facts: dict[str, object]) -> str:
    """Return the facts for people."""
    return "\n".join(f"{name:20} {value}" for name, value in facts.items())


def _revision() -> str:
    """Return the commit, with a plus where the tree differs from it."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _filesystem(directory: Path) -> str:
    """Return the type of the file system that a directory lies on."""
    best, found = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if directory.is_relative_to(place) and len(place) >= len(best):
            best, found = place, kind
    return found


def _sync_ms(directory: Path) -> float:
    """Return the median time of appending 4 KiB and syncing it."""
    path = directory / "sync.tmp"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        samples = []
        for _ in range(SYNCS):
            os.write(fd, bytes(4096))
            began = time.perf_counter()
            os.fdatasync(fd)
            samples.append((time.perf_counter() - began) * 1000)
    finally:
        os.close(fd)
        path.unlink()
    return statistics.median(samples)
