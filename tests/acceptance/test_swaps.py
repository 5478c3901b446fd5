"""Each process can be exchanged for the original's, and the other two go on working."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from support.database import prepared
from support.pipeline import ROLES, pipeline

_PARTITIONS = ("server_events_261124090000.jsonl", "server_events_261124090001.jsonl")
_EVENTS: list[dict[str, object]] = [
    {"userId": f"user{n % 3}", "name": "add_revenue" if n % 4 else "subtract_revenue", "value": n}
    for n in range(200)
]


def _source(events: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def _sums(events: list[dict[str, object]]) -> dict[str, int]:
    """Sum as the original's processor does: every line is JSON, three members count."""
    sums: defaultdict[str, int] = defaultdict(int)
    for event in events:
        value = int(str(event["value"]))
        sums[str(event["userId"])] += value if event["name"] == "add_revenue" else -value
    return dict(sums)


class OriginalServer:
    """Takes single JSON events, appends them to partitions, and answers 201; knows nothing else."""

    def __init__(self, directory: Path) -> None:
        self.port = 0
        self._directory = directory
        self._events = 0
        app = web.Application()
        app.router.add_post("/liveEvent", self._post)
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> OriginalServer:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "secret":
            return web.Response(status=401)
        event = await request.json()
        name = _PARTITIONS[self._events * 2 // len(_EVENTS)]
        self._events += 1
        with (self._directory / name).open("a") as file:
            file.write(json.dumps(event) + "\n")
        return web.json_response({"message": "Event received"}, status=201)


@pytest.mark.asyncio
async def test_the_originals_server_serves_our_client_and_our_processor(
    tmp_path: Path, database_url: str
) -> None:
    async with prepared(database_url) as database, pipeline(tmp_path, database_url) as run:
        run.data.mkdir(mode=0o700)
        run.write_source(_source(_EVENTS))
        async with OriginalServer(run.data) as server:
            run.server_url = f"http://127.0.0.1:{server.port}"
            await run.start("processor", "client")
            await database.until_applied(len(_EVENTS))
            await run.roles["client"].said("is finished")
        await run.stop("processor")  # which shows how far it is
        assert await database.totals() == _sums(_EVENTS)
        mirror = json.loads((run.data / "processor_offset.json").read_bytes())
        assert mirror == dict.fromkeys(_PARTITIONS, len(_EVENTS) // 2)


@pytest.mark.asyncio
async def test_our_server_goes_on_where_the_originals_stopped(
    tmp_path: Path, database_url: str
) -> None:
    async with prepared(database_url) as database, pipeline(tmp_path, database_url) as run:
        run.data.mkdir(mode=0o700)
        for name, half in zip(_PARTITIONS, (_EVENTS[:100], _EVENTS[100:]), strict=True):
            (run.data / name).write_bytes(_source(half))
        await run.start("processor")
        await database.until_applied(len(_EVENTS))
        run.write_source(_source(_EVENTS))
        await run.start("server", "client")
        await database.until_applied(2 * len(_EVENTS))
        assert await database.totals() == {u: 2 * n for u, n in _sums(_EVENTS).items()}
        assert await database.value(
            "SELECT bool_and(done) FROM partition_offsets WHERE partition = ANY($1)", _PARTITIONS
        )


@pytest.mark.asyncio
async def test_an_earlier_partition_of_the_originals_is_applied_too(
    tmp_path: Path, database_url: str
) -> None:
    async with prepared(database_url) as database, pipeline(tmp_path, database_url) as run:
        run.write_source(_source(_EVENTS))
        await run.start(*ROLES)
        await database.until_applied(len(_EVENTS))
        await run.stop(*ROLES)
        (run.data / "server_watermark.json").unlink()
        (run.data / _PARTITIONS[0].replace("2611", "2511")).write_bytes(_source(_EVENTS))
        await run.start("server", "processor")
        await database.until_applied(2 * len(_EVENTS))
        assert await database.totals() == {u: 2 * n for u, n in _sums(_EVENTS).items()}


@pytest.mark.asyncio
async def test_the_originals_client_is_served(tmp_path: Path, database_url: str) -> None:
    async with (
        prepared(database_url) as database,
        pipeline(tmp_path, database_url) as run,
        aiohttp.ClientSession(headers={"Authorization": "secret"}) as session,
    ):
        await run.start("server", "processor")
        url = f"http://127.0.0.1:{run.port}/liveEvent"

        async def send(event: dict[str, object]) -> None:
            async with session.post(url, json=event) as reply:
                assert (reply.status, await reply.json()) == (201, {"message": "Event received"})

        await asyncio.gather(*map(send, _EVENTS))
        await database.until_applied(len(_EVENTS))
        assert await database.totals() == _sums(_EVENTS)


@pytest.mark.asyncio
async def test_the_originals_processor_reads_our_partitions(
    tmp_path: Path, database_url: str
) -> None:
    async with pipeline(tmp_path, database_url) as run:
        run.write_source(_source(_EVENTS))
        await run.start(*ROLES)
        await run.roles["client"].said("is finished")
        read = [json.loads(line) for line in run.stored()]
        assert _sums(read) == _sums(_EVENTS)
        assert len(read) == len(_EVENTS)
