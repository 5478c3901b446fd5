"""A pipeline in which events flow slowly and in small pieces: there is much to strike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from torture.http_proxy import Odds, http_proxy
from torture.trial import Trial, World

BATCH_EVENTS = "10"
SLOW = Odds(delay_s=0.06)


@asynccontextmanager
async def flowing(
    trial: Trial, *, events: int, users: int = 50, url: str = "", seen_url: str = ""
) -> AsyncIterator[World]:
    """Start everything and wait for the first events; `seen_url` is where it finds its database."""
    url = url or await trial.new_database()
    truth = trial.truth(events=events, users=users)
    async with trial.world(
        truth, database_url=url, ETL_BATCH_EVENTS=BATCH_EVENTS, DATABASE_URL=seen_url or url
    ) as world:
        await world.run.start("server", "processor")
        async with http_proxy(world.run.port, trial.chance) as slow:
            slow.odds = SLOW
            world.run.server_url = slow.url
            await world.run.start("client")
            await world.until_part(0.01)
            yield world
