"""A PostgreSQL of the trial's own, to be killed and frozen."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from etl.sink.embedded import EmbeddedPostgres


class OwnPostgres:
    """A server whose processes may be struck."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._use = EmbeddedPostgres(directory)
        self.url = ""

    async def answers(self) -> None:
        """Wait until the server answers."""
        self.url = await self._use.ensure_running()

    async def kill(self) -> None:
        """End the postmaster at whatever instruction it is; its keeper starts another."""
        pid = self._postmaster()
        pidfd = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            gone = select.poll()
            gone.register(pidfd, select.POLLIN)
            await asyncio.to_thread(gone.poll, 30_000)
        finally:
            os.close(pidfd)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[int]:
        """Freeze the server, its sessions included; gives the number of processes."""
        postmaster = self._postmaster()
        frozen = []
        try:
            for pid in (postmaster, *_children(postmaster)):
                os.kill(pid, signal.SIGSTOP)
                frozen.append(pid)
            yield len(frozen)
        finally:
            for pid in reversed(frozen):
                os.kill(pid, signal.SIGCONT)

    async def end(self) -> None:
        """Wait until nothing of it is left."""
        self._use.release()
        with (self._directory / "keeper.lock").open("w") as lock:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)

    def _postmaster(self) -> int:
        return int((self._directory / "cluster/postmaster.pid").read_text().split()[0])


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which may hold anything: state, then parent.
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


@asynccontextmanager
async def own_postgres(directory: Path) -> AsyncIterator[OwnPostgres]:
    server = OwnPostgres(directory)
    await server.answers()
    try:
        yield server
    finally:
        await server.end()
