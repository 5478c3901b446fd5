"""The client: watches the source, sends its lines to the server, and keeps how far it is.

    source ── runs ──▶ lines ── delivery ──▶ server
                                   │ acknowledged
                                   ▼
                      dead letters, then progress

It never exits by itself: no fault of another process ends it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from etl.runtime.files import Lock, make_private_directory, remove_temporaries
from etl.runtime.lifecycle import fields, main
from etl.runtime.settings import Settings
from etl.source.dead_letters import DeadLetters
from etl.source.delivery import Delivery, StalledError
from etl.source.feed import Feed
from etl.source.follow import OVERLAP_BYTES, Follow
from etl.source.ledger import Ledger
from etl.source.lines import Lines
from etl.source.link import Link
from etl.source.progress import Keeper, load
from etl.source.rotation import is_succeeded
from etl.source.runs import Runs, Start
from etl.source.storing import persist
from etl.source.trouble import Trouble
from etl.source.watch import Stat, Watch

logger = logging.getLogger(__name__)

REQUESTS_IN_FLIGHT = 4
SMALL_REQUESTS_IN_FLIGHT = 64
SMALL_REQUEST_EVENTS = 16
STOP_GRACE_S = 1.0


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Send run after run until the stop."""
    make_private_directory(settings.data_path)
    lock = Lock(settings.data_path / "client.lock", role="client").acquire()
    try:
        await Client(settings).run(stop)
    finally:
        lock.release()


class Client:
    """What lives as long as the process; the lock on the data directory is held."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.source_path
        self._follows = settings.client_mode == "follow"
        self._progress_path = settings.data_path / "client_progress.json"
        self._keeper = Keeper(self._progress_path)
        self._letters = DeadLetters(settings.data_path / "dead_letters.jsonl")
        self._watch = Watch(self._path)
        self._trouble = Trouble()
        small = settings.batch_events <= SMALL_REQUEST_EVENTS
        self._window = SMALL_REQUESTS_IN_FLIGHT if small else REQUESTS_IN_FLIGHT

    async def run(self, stop: asyncio.Event) -> None:
        """Work until the stop, then keep how far it is."""
        works = (stop.wait(), self._send(), self._watch.run(), self._keeper.run())
        tasks: list[asyncio.Task[object]] = [asyncio.ensure_future(work) for work in works]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._keep()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _keep(self) -> None:
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await self._keeper.flush()
        except TimeoutError:
            logger.warning("%s is not up to date; lines will be sent again", self._progress_path)
        self._letters.close()

    async def _send(self) -> None:
        remove_temporaries(self._progress_path)
        kind = Follow if self._follows else Runs
        runs = kind(path=self._path, watch=self._watch, progress=load(self._progress_path))
        await persist("dead_letters.jsonl", self._letters.open)
        async with Link(self._settings, connections=self._window) as link:
            try:
                while True:
                    await self._send_run(await runs.next(), runs, link)
            except StalledError as error:
                logger.error("not ready, and idle until started again: %s", error)  # noqa: TRY400  it says it all
                await asyncio.Event().wait()

    async def _send_run(self, start: Start, runs: Runs, link: Link) -> None:
        ledger = Ledger(progress=start.progress, keeper=self._keeper, letters=self._letters)
        try:
            await self._keeper.save(start.progress)
            logger.info(
                "run %d begins at line %d",
                start.progress.run,
                start.progress.next + 1,
                extra=fields(file=start.progress.file),
            )
            began = time.monotonic()
            await self._delivery(start, ledger, link).run()
            await ledger.finish()
        finally:
            os.close(start.fd)
        runs.finished(ledger.progress)
        logger.info(
            "run %d is finished",
            ledger.progress.run,
            extra=fields(**ledger.summary(), seconds=round(time.monotonic() - began, 3)),
        )

    def _succession(self, start: Start) -> Callable[[Stat], bool]:
        return partial(is_succeeded, self._path, Path(start.progress.file))

    def _delivery(self, start: Start, ledger: Ledger, link: Link) -> Delivery:
        lines = Lines(
            start.fd,
            start.progress.mark,
            end=start.progress.end,
            lines_max=self._settings.batch_events,
            bytes_max=self._settings.batch_bytes,
            overlap_bytes=OVERLAP_BYTES if self._follows else 0,
            head=start.progress.head if self._follows else None,
        )
        feed = Feed(
            lines=lines,
            path=self._path,
            stat=start.stat,
            watch=self._watch,
            quiet_s=self._settings.quiet_ms / 1000,
            succeeded=self._succession(start) if self._follows else None,
            ended=ledger.end_at,
        )
        return Delivery(
            feed=feed, link=link, ledger=ledger, trouble=self._trouble, window=self._window
        )


if __name__ == "__main__":
    sys.exit(main("client", run))
