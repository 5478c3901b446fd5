"""The whole pipeline, from a changed file to exact totals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.database import prepared
from support.oracle import random_source, totals
from support.pipeline import ROLES, pipeline
from support.reply_proxy import losing_replies

ROOT = Path(__file__).parents[2]
_HEADERS = {"Authorization": "secret"}


def _generate(output: Path, *arguments: str) -> dict[str, Any]:
    """Run the generator, and return the truth it wrote."""
    script = ROOT / "scripts" / "generate_events.py"
    subprocess.run(
        [sys.executable, script, "--output", output, *arguments], check=True, capture_output=True
    )
    truth: dict[str, Any] = json.loads(Path(f"{output}.truth.json").read_text())
    return truth


def _exact(totals_by_user: dict[str, str]) -> dict[str, Decimal]:
    return {user: Decimal(total) for user, total in totals_by_user.items()}


def _letters(data: Path) -> list[int]:
    path = data / "dead_letters.jsonl"
    return [json.loads(line)["line"] for line in path.read_bytes().splitlines()]


@pytest.mark.asyncio
async def test_a_changed_file_is_counted_again_and_a_restart_is_not(
    tmp_path: Path, database_url: str
) -> None:
    async with prepared(database_url) as database, pipeline(tmp_path, database_url) as run:
        await run.start(*ROLES)
        truth = _generate(run.source, "1000")
        await database.until_applied(5_000)
        assert await database.totals() == _exact(truth["totals"])
        _generate(run.source, "1000")
        await database.until_applied(10_000)
        twice = {user: 2 * total for user, total in _exact(truth["totals"]).items()}
        assert await database.totals() == twice
        await run.roles["client"].said("is finished", times=2)
        assert await run.stop(*ROLES) == dict.fromkeys(ROLES, 0)
        await run.start(*ROLES)
        await run.roles["processor"].said("working")
        await run.roles["client"].said("is as run 2 sent it")
        assert await database.totals() == twice
        assert len(run.stored()) == 10_000
        await run.stop("processor")  # which shows how far it is
        mirror = json.loads((run.data / "processor_offset.json").read_bytes())
        assert sum(mirror.values()) == 10_000
        assert run.faults() == []


@pytest.mark.asyncio
async def test_every_kind_of_bad_line_becomes_one_dead_letter_and_the_rest_is_exact(
    tmp_path: Path, database_url: str
) -> None:
    async with prepared(database_url) as database, pipeline(tmp_path, database_url) as run:
        await run.start(*ROLES)
        truth = _generate(
            run.source, "4000", "--users", "300", "--seed", "5", "--decimals", "--bad", "20"
        )
        await database.until_applied(truth["valid"])
        await run.roles["client"].said("is finished")
        assert await database.totals() == _exact(truth["totals"])
        assert _letters(run.data) == truth["bad_lines"]
        assert run.faults() == []


@pytest.mark.asyncio
async def test_lost_replies_double_nothing_and_lose_no_dead_letter(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        prepared(database_url) as database,
        pipeline(tmp_path, database_url, ETL_BATCH_EVENTS="100") as run,
    ):
        truth = _generate(
            run.source, "2000", "--users", "50", "--seed", "6", "--decimals", "--bad", "30"
        )
        await run.start("server", "processor")
        async with losing_replies(run.port, lose_every=5) as proxy:
            run.server_url = proxy.url
            await run.start("client")
            await run.roles["client"].said("is finished")
            assert proxy.lost >= 15
        await database.until_applied(truth["valid"])
        assert await database.totals() == _exact(truth["totals"])
        assert _letters(run.data) == truth["bad_lines"]
        assert run.faults() == []


@pytest.mark.asyncio
async def test_lost_replies_and_killed_clients_lose_no_dead_letter(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        prepared(database_url) as database,
        pipeline(tmp_path, database_url, ETL_BATCH_EVENTS="50") as run,
    ):
        truth = _generate(run.source, "4000", "--users", "50", "--seed", "8", "--bad", "11")
        await run.start("server", "processor")
        async with losing_replies(run.port, lose_every=7) as proxy:
            run.server_url = proxy.url
            await run.start("client")
            for part in (1, 2, 3):
                await database.until(
                    "SELECT coalesce(sum(lines), 0) >= $1 FROM partition_offsets",
                    True,
                    truth["valid"] * part // 5,
                )
                await run.kill("client")
                await run.start("client")
            await run.roles["client"].said("is finished")
            assert proxy.lost
        await database.until_applied(truth["valid"])
        assert await database.totals() == _exact(truth["totals"])
        assert _letters(run.data) == truth["bad_lines"]


@pytest.mark.asyncio
async def test_a_frozen_server_is_waited_for(tmp_path: Path, database_url: str) -> None:
    source = random_source(12, events=20_000, users=20)
    async with (
        prepared(database_url) as database,
        pipeline(tmp_path, database_url, ETL_BATCH_EVENTS="100") as run,
    ):
        run.write_source(source)
        await run.start(*ROLES)
        await database.until("SELECT sum(lines) > 1000 FROM partition_offsets", True)
        run.roles["server"].process.send_signal(signal.SIGSTOP)
        await run.kill("client")
        await run.start("client")
        await run.roles["client"].said("begins at line")
        run.roles["server"].process.send_signal(signal.SIGCONT)
        await database.until_applied(20_000)
        assert await database.totals() == totals(source.splitlines())


@pytest.mark.asyncio
async def test_an_event_by_hand_shows_within_the_blink_of_an_eye(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        prepared(database_url) as database,
        pipeline(tmp_path, database_url) as run,
        aiohttp.ClientSession(headers=_HEADERS) as session,
    ):
        await run.start("server", "processor")
        url = f"http://127.0.0.1:{run.port}"
        body = b'{"userId":"u/\xf0\x9f\x92\xb6","name":"add_revenue","value":1.10}'
        async with session.post(
            f"{url}/liveEvent", data=body, headers={"Content-Type": "application/json"}
        ) as reply:
            assert reply.status == 201
            assert await reply.json() == {"message": "Event received"}
        await database.until_applied(1)
        async with session.get(f"{url}/userEvents/u%2F%F0%9F%92%B6") as reply:
            assert await reply.read() == '[{"user_id":"u/💶","revenue":1.1}]'.encode()
        async with session.get(f"{url}/userEvents/nobody") as reply:
            assert await reply.read() == b"[]"
        async with session.get(f"{url}/readyz") as reply:
            assert reply.status == 200


@pytest.mark.asyncio
async def test_a_second_server_or_client_says_who_holds_the_directory(
    tmp_path: Path, database_url: str
) -> None:
    async with pipeline(tmp_path, database_url) as run:
        run.write_source(random_source(1, events=1, users=1))
        await run.start(*ROLES)
        await run.roles["client"].said("begins at line")
        for name in ("server", "client"):
            second = await run.launch(name)
            assert await second.process.wait() == 1
            await second.said(f"is in use by {name} with pid {run.roles[name].process.pid}")
