"""`GET /userEvents/{userId}`, the probes, and who may ask without a token."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import orjson
import pytest
import pytest_asyncio

from etl.sink import schema
from support.serving import TOKEN, Answer, Served, serving

pytestmark = pytest.mark.asyncio

# Every user has a revenue of their own, so that an answer about another is seen.
USERS = [
    *(
        "user1",
        "a/b",
        "a%2Fb",
        "a b",
        "a+b",
        "a?b",
        "a#b",
        "..",
        "../u",
        ".",
        "./u",
        "//",
        "%",
        "%zz",
    ),
    *('"', "\\", "'", "\n", "a\r\nb", "\t", "\x7f", "é", "e\u0301", "💩", "\u202e", "u" * 255),
    *("💩" * 255, "userEvents", "USER1", " user1", "user1 ", "null", "\ufeffuser1"),
]


async def nothing() -> None:
    return None


@pytest_asyncio.fixture
async def served(tmp_path: Path, database_url: str) -> AsyncIterator[Served]:
    connection = await asyncpg.connect(database_url)
    try:
        await schema.apply(connection, log_id="0" * 32, take_over=nothing)
        await connection.executemany(
            "SELECT upsert_user_revenue($1, $2::text::numeric)",
            [(user_id, f"{number}.500000") for number, user_id in enumerate(USERS)],
        )
    finally:
        await connection.close()
    async with serving(tmp_path, database_url=database_url) as server:
        async with asyncio.timeout(30):
            while (await server.ask("GET", "/readyz")).status != 200:
                pass  # every answer lets the connecting go on
        yield server


async def revenue(served: Served, path: bytes) -> Answer:
    """Ask with exactly these bytes as the path: no client's idea of a tidy one."""
    return await served.raw(
        b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )


def spellings(user_id: str) -> set[bytes]:
    coded = user_id.encode()
    plain = quote(user_id, safe="/.+'").encode()
    return {
        b"".join(b"%%%02X" % byte for byte in coded),
        b"".join(b"%%%02x" % byte for byte in coded),
        quote(user_id, safe="").encode(),
        plain,
    }


async def test_each_user_is_found_however_the_id_is_encoded(served: Served) -> None:
    for number, user_id in enumerate(USERS):
        for path in spellings(user_id):
            answer = await revenue(served, b"/userEvents/" + path)
            assert (path, answer.status) == (path, 200)
            expected = {"user_id": user_id, "revenue": number + 0.5}
            assert (path, orjson.loads(answer.body)) == (path, [expected])


async def test_path_is_decoded_once_and_never_tidied(served: Served) -> None:
    for path, user_id in (
        (b"/userEvents/a%252Fb", "a%2Fb"),
        (b"/userEvents/user1?x=a/b", "user1"),
        (b"/userEvents///", "//"),
        (b"/userEvents/%", "%"),
        (b"/userEvents/%zz", "%zz"),
        (b"/userEvents/../u", "../u"),
        (b"/%75serEvents/user1", "user1"),
        (b"http://localhost/userEvents/a%2Fb", "a/b"),
        (b"http://localhost/userEvents/..", ".."),
    ):
        answer = await revenue(served, path)
        assert (path, orjson.loads(answer.body)[0]["user_id"]) == (path, user_id)


async def test_unknown_and_impossible_users_have_nothing(served: Served) -> None:
    impossible = (b"%00", b"user1%00", b"%FF", b"%ED%A0%80", b"%C0%AF", b"%F0%9F", b"u" * 256)
    for path in (b"nobody", b"", *impossible):
        answer = await revenue(served, b"/userEvents/" + path)
        assert (path, answer.status, answer.body) == (path, 200, b"[]")
        assert answer.headers["Content-Type"] == "application/json"


async def test_revenue_is_exact_without_trailing_zeros(served: Served, database_url: str) -> None:
    shown = {
        "27": b"27",
        "27.000000": b"27",
        "-0.000001": b"-0.000001",
        "1.10": b"1.1",
        "0": b"0",
        "100": b"100",
        "123456789012345678901234567890.000001": b"123456789012345678901234567890.000001",
    }
    connection = await asyncpg.connect(database_url)
    try:
        # Not by the function, which trims zeros itself.
        await connection.executemany(
            "INSERT INTO users_revenue VALUES ($1, $2::text::numeric)",
            [(text, text) for text in shown],
        )
    finally:
        await connection.close()
    for text, number in shown.items():
        answer = await served.ask("GET", f"/userEvents/{text}")
        assert answer.body == b'[{"user_id":"%s","revenue":%s}]' % (text.encode(), number)


async def test_without_a_database_users_wait_and_events_are_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for path in ("/userEvents/u", "/readyz"):
            answer = await server.ask("GET", path)
            assert (path, answer.status) == (path, 503)
            assert answer.headers["Retry-After"] == "1"
            assert "database" in answer.detail
        assert (await server.ask("GET", "/livez")).body == b"ok\n"
        assert (await server.post(b'{"userId":"u","name":"add_revenue","value":1}')).status == 201


async def test_on_loopback_who_reads_needs_no_token(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert (await server.ask("GET", "/userEvents/u")).status == 503
        assert (await server.ask("OPTIONS")).status == 204
        assert (await server.ask("POST")).status == 401


async def test_off_loopback_everything_but_the_probes_needs_the_token(tmp_path: Path) -> None:
    basic = "Basic " + base64.b64encode(f":{TOKEN}".encode()).decode()
    async with serving(tmp_path, host="192.0.2.1") as server:
        assert (await server.ask("GET", "/livez")).status == 200
        assert (await server.ask("GET", "/readyz")).status == 503
        for method, path in (("GET", "/userEvents/u"), ("OPTIONS", "/liveEvent"), ("GET", "/x")):
            assert (await server.ask(method, path)).status == 401
            for header in (TOKEN, f"Bearer {TOKEN}", basic):
                answer = await server.ask(method, path, headers={"Authorization": header})
                assert answer.status != 401
