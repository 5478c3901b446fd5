"""A row that overlaps faults at random: whatever comes together, the laws hold.

A run of about ten seconds has rounds of two or three faults at once, each on another part of the
pipeline or in another way. Replies of the server are lost throughout.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable

from support.pipeline import ROLES, Role
from support.proxy import Proxy, proxied
from support.reply_proxy import losing_replies
from torture.rows import Row
from torture.trial import Trial, Vacuous, World

EVENTS = 60_000
ROUNDS = 8
FAULT_S_MAX = 1.2
REPLIES_BETWEEN_LOSSES = (5, 30)
LOST_COMMITS_MAX = 3

TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'etl %'
"""


class Nemesis:
    """The faults of one run."""

    def __init__(self, world: World, proxy: Proxy) -> None:
        self._world = world
        self._run = world.run
        self._proxy = proxy
        self._chance = world.trial.chance
        self._faults: list[Callable[[], Awaitable[str]]] = [
            *(self._for(self._kill, role) for role in ROLES),
            *(self._for(self._freeze, role) for role in ROLES),
            self._double_processor,
            self._terminate_backends,
            self._lose_commits,
            self._cut_database,
        ]

    def _for(
        self, fault: Callable[[str], Awaitable[str]], role: str
    ) -> Callable[[], Awaitable[str]]:
        return lambda: fault(role)

    async def strike(self) -> int:
        """Let two or three faults overlap; return how many came midway."""
        chosen = self._chance.sample(self._faults, self._chance.choice((2, 3)))
        midway = await self._world.midway()
        done = await asyncio.gather(*(fault() for fault in chosen))
        for what in done:
            self._world.trial.count(what)
        return len(done) if midway else 0

    async def _while(self, role: Role | None = None) -> None:
        """Let time pass while a fault lasts, or until the process has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._chance.random() * FAULT_S_MAX):
                await (role.process.wait() if role else asyncio.Event().wait())

    async def _kill(self, name: str) -> str:
        await self._while()
        await self._run.kill(name)
        await self._run.start(name)
        return f"{name} kills"

    async def _freeze(self, name: str) -> str:
        role = self._run.roles[name]
        role.send_signal(signal.SIGSTOP)
        await self._while(role)
        role.send_signal(signal.SIGCONT)
        return f"{name} freezes"

    async def _double_processor(self) -> str:
        second = await self._run.launch("processor")
        await self._while(second)
        await second.end(signal.SIGKILL)
        return "processors doubled"

    async def _terminate_backends(self) -> str:
        await self._while()
        await self._world.database.value(TERMINATE)
        return "backends terminated"

    async def _lose_commits(self) -> str:
        self._proxy.lose_replies += self._chance.randint(1, LOST_COMMITS_MAX)
        return "losses of COMMIT replies ordered"

    async def _cut_database(self) -> str:
        await self._while()
        self._proxy.cut_all()
        return "database connections cut"


async def nemesis(trial: Trial) -> None:
    """Overlap faults until nearly all is applied, then let everything settle."""
    truth = trial.truth(events=EVENTS)
    url = await trial.new_database()
    async with (
        proxied(url) as proxy,
        trial.world(truth, database_url=url, DATABASE_URL=proxy.url, ETL_TAKEOVER_S="1") as world,
        world.watched(),
    ):
        await world.run.start("server")
        lose_every = trial.chance.randint(*REPLIES_BETWEEN_LOSSES)
        async with losing_replies(world.run.port, lose_every=lose_every) as replies:
            world.run.server_url = replies.url
            await world.run.start("processor", "client")
            faults = Nemesis(world, proxy)
            struck = 0
            for number in range(ROUNDS):
                await world.until_part(0.9 * (number + trial.chance.random()) / ROUNDS)
                struck += await faults.strike()
            if not struck:
                raise Vacuous("no fault came midway")
            trial.count("faults midway", struck)
            proxy.lose_replies = 0
            await world.settle()
            trial.count("lost replies", replies.lost)
            trial.count("lost COMMIT replies", proxy.replies_lost)


ROWS = [Row(name="nemesis", run=nemesis, trials=30, short=True)]
