"""Between the processor and PostgreSQL: loses commits of what it applies, or only their replies.

Transactions that only read are left alone: nothing depends on their `COMMIT`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.proxy import Proxy

SPARED = 0.8


class CommitProxy(Proxy):
    """While `odds` are above zero, so many of all commits are lost in one of the two ways."""

    def __init__(self, url: str, chance: random.Random) -> None:
        super().__init__(url)
        self.odds = 0.0
        self.cut_odds = 0.0
        self.did: Counter[str] = Counter()
        self._lost = False
        self._chance = chance

    async def _forth(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, committed: asyncio.Event
    ) -> None:
        writes = False
        while data := await reader.read(65536):
            if b"BEGIN" in data:
                writes = b"READ ONLY" not in data
            if b"COMMIT" in data and writes and self._is_lost():
                if self._chance.random() < 0.5:
                    self.did["COMMITs lost"] += 1
                    raise EOFError
                committed.set()
            await self._pass_on(data, writer)
        raise EOFError

    def _is_lost(self) -> bool:
        """Say whether this commit is lost; after a lost one the next is mostly spared.

        So that what is done about the loss can be seen to be right or wrong.
        """
        spared = self._lost and self._chance.random() < SPARED
        self._lost = not spared and self._chance.random() < self.odds
        return self._lost

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, committed: asyncio.Event
    ) -> None:
        while data := await reader.read(65536):
            if committed.is_set():
                assert b"COMMIT\0" in data, data
                self.did["COMMIT replies lost"] += 1
                raise EOFError
            await self._pass_on(data, writer)
        raise EOFError

    async def _pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Pass bytes on, whole or only up to somewhere."""
        cut = self._chance.random() < self.cut_odds
        writer.write(data[: self._chance.randrange(len(data))] if cut else data)
        await writer.drain()
        if cut:
            self.did["messages cut"] += 1
            raise EOFError


@asynccontextmanager
async def commit_proxy(url: str, chance: random.Random) -> AsyncIterator[CommitProxy]:
    proxy = CommitProxy(url, chance)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
