"""Group commit: many requests share one write and one sync.

Invariants:

* `append` returns only when the batch is durable and published; a request without new events
  returns when all that was appended before it is, so a duplicate is never acknowledged early.
* After a failed write nothing that waits is written, and the sequences of its producers go back.
* After a failed sync nobody gets an answer: `run` raises, and the process ends.
* What waits is bounded by bytes and by number, and new events leave the disk its reserve.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from etl.log.files import LogFiles, WriteFailedError
from etl.log.header import Batch, Identity, encode
from etl.log.producers import Producers
from etl.log.room import Room
from etl.runtime.errors import EtlError

QUEUE_REQUESTS_MAX = 10_000
GROUP_BYTES_MAX = 16 * 1024 * 1024
# Far above a header's size, far below what a reader holds in memory.
JOIN_BYTES_MAX = 1024 * 1024


class QueueFullError(EtlError):
    """More waits for the disk than may; nothing was appended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    batch: Batch
    durable: asyncio.Future[None]


class LogWriter:
    """Owns the log: the only one that appends."""

    def __init__(
        self,
        files: LogFiles,
        producers: Producers,
        *,
        room: Room | None = None,
        queue_bytes_max: int = 64 * 1024 * 1024,
    ) -> None:
        self._files = files
        self._room = room
        self._producers = producers
        self._queue: list[_Waiting] = []
        self._queued_bytes = 0
        self._queue_bytes_max = queue_bytes_max
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        # One thread: the order of writes is the order of the queue.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="log")

    async def append(self, batch: Batch) -> None:
        """Append a batch, and return when it is durable.

        Its lines count as the producer's from the call on, so no other request comes between the
        decision what is new and this.

        Raises:
            QueueFullError: too much waits; nothing was appended.
            WriteFailedError: the disk did not take it, or is nearly full; nothing was appended.
        """
        if self._queued_bytes + len(batch.data) > self._queue_bytes_max:
            limit = self._queue_bytes_max
            raise QueueFullError(
                f"{self._queued_bytes} bytes wait for the disk, the limit is {limit}"
            )
        if len(self._queue) >= QUEUE_REQUESTS_MAX:
            raise QueueFullError(f"{QUEUE_REQUESTS_MAX} requests wait for the disk, the limit")
        if self._room is not None and batch.data:
            self._room.take(len(batch.data), waiting=self._queued_bytes)
        if batch.identity is not None:
            self._producers.admit(batch.identity)
        durable = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(batch=batch, durable=durable))
        self._queued_bytes += len(batch.data)
        self._idle.clear()
        self._wake.set()
        await durable

    async def run(self) -> None:
        """Write what waits, for ever.

        Raises:
            SyncFailedError: stop the process.
        """
        while True:
            await self._wake.wait()
            group = self._take_group()
            if not group:
                self._wake.clear()
                self._idle.set()
                continue
            try:
                await self._commit([waiting.batch for waiting in group])
            except WriteFailedError as error:
                self._fail(group, error)
            else:
                self._acknowledge(group)

    def complaint(self) -> str:
        """Return why no new events are taken at present, or nothing."""
        return self._room.complaint() if self._room is not None else ""

    async def drained(self) -> None:
        """Wait until nothing waits to be written."""
        await self._idle.wait()

    def close(self) -> None:
        """Give up the thread."""
        self._thread.shutdown(wait=True)

    def _take_group(self) -> list[_Waiting]:
        taken = bytes_taken = 0
        for waiting in self._queue:
            if taken and bytes_taken + len(waiting.batch.data) > GROUP_BYTES_MAX:
                break
            taken += 1
            bytes_taken += len(waiting.batch.data)
        group, self._queue = self._queue[:taken], self._queue[taken:]
        self._queued_bytes -= bytes_taken
        return group

    async def _commit(self, batches: list[Batch]) -> None:
        if any(batch.data for batch in batches):
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._write, batches)

    def _write(self, batches: list[Batch]) -> None:
        joined = join(batches)
        data = b"".join(map(encode, joined))
        self._files.commit(data, sum(batch.events for batch in joined), self._producers)

    def _acknowledge(self, group: list[_Waiting]) -> None:
        for waiting in group:
            if waiting.batch.identity is not None:
                self._producers.commit(waiting.batch.identity)
            if not waiting.durable.done():
                waiting.durable.set_result(None)

    def _fail(self, group: list[_Waiting], error: WriteFailedError) -> None:
        failed, self._queue = group + self._queue, []
        self._queued_bytes = 0
        self._producers.roll_back()
        for waiting in failed:
            if not waiting.durable.done():
                waiting.durable.set_exception(error)


@dataclass(slots=True, kw_only=True)
class _Joining:
    """Batches of one sender that will be one."""

    parts: list[Batch] = field(default_factory=list)
    size: int = 0

    def takes(self, batch: Batch) -> bool:
        if self.size + len(batch.data) > JOIN_BYTES_MAX:
            return False
        before, after = self.parts[-1].identity, batch.identity
        return before is None or (after is not None and before.next == after.sequence)

    def add(self, batch: Batch) -> None:
        self.parts.append(batch)
        self.size += len(batch.data)

    def joined(self) -> Batch:
        if len(self.parts) == 1:
            return self.parts[0]
        first, last = self.parts[0].identity, self.parts[-1].identity
        identity = None
        if first is not None and last is not None:
            identity = Identity(
                producer=first.producer,
                epoch=first.epoch,
                sequence=first.sequence,
                next=last.next,
            )
        return Batch(
            data=b"".join(part.data for part in self.parts),
            events=sum(part.events for part in self.parts),
            identity=identity,
        )


def join(batches: Iterable[Batch]) -> list[Batch]:
    """Join what shares a sync and a sender into fewer batches, so that single events stay cheap.

    Anonymous batches are joined, and consecutive ones of one producer and epoch; empty ones vanish.
    The order within each producer is kept; between senders none was ever promised.
    """
    done: list[_Joining] = []
    open_by_sender: dict[tuple[str, int] | None, _Joining] = {}
    for batch in batches:
        if not batch.data:
            continue
        who = batch.identity
        sender = (who.producer, who.epoch) if who else None
        joining = open_by_sender.get(sender)
        if joining is None or not joining.takes(batch):
            joining = open_by_sender[sender] = _Joining()
            done.append(joining)
        joining.add(batch)
    return [joining.joined() for joining in done]
