"""Sends the pieces of a run, several at a time, until each is acknowledged.

Invariants:

* Pieces are acknowledged in the order of lines: an answer counts only when all before it did.
* After a failure everything from the lowest unacknowledged line on is sent again, the same lines
  under the same sequences; the server skips what it knows.
* There is no last attempt.
* A line is given up only when it stands alone, was refused, and a blank line in its place was
  not: a server that refuses everything costs no line.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, replace
from functools import partial

from etl.runtime.backoff import Backoff
from etl.runtime.errors import EtlError
from etl.source.feed import Feed
from etl.source.ledger import Ledger
from etl.source.lines import BLANK, Mark, Piece, locate
from etl.source.link import Displaced, Gap, Later, Link, Refused, Reply, Taken
from etl.source.storing import in_thread
from etl.source.trouble import Trouble

logger = logging.getLogger(__name__)

GRACE_S = 1.0
REFUSED_WAIT_S = 5.0


class StalledError(EtlError):
    """This run can't go on, and nothing but an operator can change that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flight:
    piece: Piece
    anonymous: bool
    oldest: bool  # nothing was unacknowledged before it when it was sent
    answer: asyncio.Task[Reply]


class Delivery:
    """The window of one run: what waits to be sent, and what was sent without an answer yet."""

    def __init__(
        self, *, feed: Feed, link: Link, ledger: Ledger, trouble: Trouble, window: int
    ) -> None:
        self._feed = feed
        self._link = link
        self._ledger = ledger
        self._trouble = trouble
        self._window = window
        self._backoff = Backoff(cap_s=1.0)
        self._waiting: deque[Piece] = deque()
        self._flights: deque[_Flight] = deque()
        self._supply: asyncio.Task[Piece | None] | None = None
        self._exhausted = False
        self._alone_before = 0
        self._suspect: Piece | None = None

    async def run(self) -> None:
        """Deliver the whole run.

        Raises:
            StalledError: lines can't be delivered any more, whatever is tried.
        """
        try:
            while not self._exhausted or self._waiting or self._flights:
                if not self._link.known:
                    await self._ask()
                    continue
                self._launch()
                await self._any_news()
                if self._flights and self._flights[0].answer.done():
                    await self._settle()
        except asyncio.CancelledError:
            await self._take_last_answers()
            raise
        finally:
            await self._recall()
            await self._stop_supply()

    async def _ask(self) -> None:
        trouble = await self._link.ask()
        if trouble is not None:
            await self._retry(trouble)

    # Sending

    def _launch(self) -> None:
        """Send what there is while the window has room."""
        while len(self._flights) < self._room():
            piece = self._take()
            if piece is None:
                return
            flight = _Flight(
                piece=piece,
                anonymous=not self._link.many,
                oldest=not self._flights,
                answer=asyncio.create_task(self._post(piece)),
            )
            self._flights.append(flight)

    def _room(self) -> int:
        if not self._link.many:
            return 1
        oldest = self._flights or self._waiting
        if not oldest:
            return self._window
        first = oldest[0]
        piece = first.piece if isinstance(first, _Flight) else first
        return 1 if piece.first.sequence < self._alone_before else self._window

    def _take(self) -> Piece | None:
        """Return the next piece to send, made to fit the server; None while there is none."""
        if not self._waiting:
            piece = self._supplied()
            if piece is None:
                return None
            self._waiting.append(piece)
        while not self._fits(self._waiting[0]):
            self._waiting.extendleft(reversed(self._waiting.popleft().split()))
        return self._waiting.popleft()

    def _fits(self, piece: Piece) -> bool:
        if piece.lines == 1:
            return True
        return self._link.many and self._ledger.sent_elsewhere(piece) is not None

    def _supplied(self) -> Piece | None:
        if self._exhausted:
            return None
        if self._supply is None:
            piece = self._feed.cut()
            if piece is None:
                self._supply = asyncio.create_task(self._feed.next())
            return piece
        if not self._supply.done():
            return None
        piece = self._supply.result()
        self._supply = None
        self._exhausted = piece is None
        return piece

    async def _post(self, piece: Piece) -> Reply:
        if not self._link.many:
            if self._ledger.known(piece) or piece.unsendable is not None:
                return Taken(rejected=(), blank=0)
            return await self._link.post_event(piece)
        if self._ledger.sent_elsewhere(piece):
            piece = replace(piece, body=BLANK * piece.lines)
        return await self._link.post(piece, self._ledger.producer(piece.first))

    async def _any_news(self) -> None:
        tasks: set[asyncio.Task[Reply] | asyncio.Task[Piece | None]] = set()
        if self._flights:
            tasks.add(self._flights[0].answer)
        if self._supply is not None and len(self._flights) < self._room():
            tasks.add(self._supply)
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    # Answers

    async def _settle(self) -> None:
        """Act on the answer to the oldest piece."""
        flight = self._flights[0]
        match flight.answer.result():
            case Taken() as taken:
                self._backoff.reset()
                self._trouble.over()
                self._suspect = None
                await self._acknowledge(flight, taken)
            case Later() as later:
                await self._recall()
                await self._retry(later)
            case Refused(reason=reason):
                await self._recall()
                await self._isolate(reason)
            case Gap(expected=expected) if flight.oldest:
                await self._recall()
                await self._go_back(expected)
            case Gap():
                # Said while its predecessors were still under way; alone it will be asked again.
                await self._recall()
                await self._retry(Later(kind="gap", reason="it waits for an earlier request"))
            case Displaced(reason=reason):
                raise StalledError(
                    f"the server refuses this client, another has taken its place: {reason}",
                    hint="stop one of them; to send as a new producer, remove"
                    " client_progress.json and start again",
                )

    async def _acknowledge(self, flight: _Flight, taken: Taken) -> None:
        """Account for the oldest piece; only then may a later one be the oldest."""
        await self._ledger.acknowledge(flight.piece, taken, anonymous=flight.anonymous)
        self._flights.popleft()

    async def _recall(self) -> None:
        """Take back all that was sent without an answer, to send it again."""
        answers = [flight.answer for flight in self._flights]
        for answer in answers:
            answer.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
        self._waiting.extendleft(flight.piece for flight in reversed(self._flights))
        self._flights.clear()

    async def _retry(self, later: Later) -> None:
        if later.lost:
            self._link.forget()
        if self._waiting:
            self._alone_before = max(self._alone_before, self._waiting[0].next.sequence)
        self._trouble.seen(later.kind, later.reason)
        await asyncio.sleep(self._backoff.next_s(later.at_least_s))

    async def _isolate(self, reason: str) -> None:
        """Halve a refused piece; a refused line gives way to a blank one."""
        piece = self._waiting.popleft()
        self._alone_before = max(self._alone_before, piece.next.sequence)
        if piece.lines > 1:
            self._waiting.extendleft(reversed(piece.split()))
        elif piece.body != BLANK:
            self._suspect = piece
            self._waiting.appendleft(piece.without(reason))
        else:
            self._waiting.appendleft(self._suspect or piece)
            self._suspect = None
            await self._retry(
                Later(
                    kind="refused",
                    reason=f"it refuses any line: {reason}",
                    at_least_s=REFUSED_WAIT_S,
                )
            )

    async def _go_back(self, expected: int) -> None:
        """Send again from a line that was acknowledged before."""
        first = self._waiting[0].first
        mark = await in_thread(partial(locate, self._feed.fd, expected, first))
        if mark is None:
            raise StalledError(
                f"the server lacks lines {expected + 1} to {first.sequence}, and the source does"
                " not hold them any more",
                hint="put the source back as it was and start again, or remove"
                " client_progress.json to send what there is as a new producer",
            )
        logger.warning("the server lacks lines %d to %d; going back", expected + 1, first.sequence)
        await self._seek(mark)
        self._alone_before = max(self._alone_before, expected + 1)
        await asyncio.sleep(self._backoff.next_s())

    async def _seek(self, mark: Mark) -> None:
        await self._stop_supply()
        self._feed.seek(mark)
        self._waiting.clear()
        self._exhausted = False

    async def _stop_supply(self) -> None:
        if self._supply is not None:
            self._supply.cancel()
            await asyncio.gather(self._supply, return_exceptions=True)
            self._supply = None

    async def _take_last_answers(self) -> None:
        """On a stop, wait a moment for what was sent, so that little is sent again."""
        try:
            async with asyncio.timeout(GRACE_S):
                while self._flights:
                    flight = self._flights[0]
                    taken = await asyncio.shield(flight.answer)
                    if not isinstance(taken, Taken):
                        return
                    await self._acknowledge(flight, taken)
        except TimeoutError:
            return
