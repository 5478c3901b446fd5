"""Who reaches the server: by which name, with which token, and what a web page can't do."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.serving import TOKEN, Answer, Served, serving

pytestmark = pytest.mark.asyncio

EVENT = b'{"userId":"u","name":"add_revenue","value":1}'
ELSEWHERE = "0.0.0.0"  # noqa: S104  what the settings say; the tests come over loopback


async def asked(
    served: Served, *lines: bytes, start: bytes = b"GET /livez HTTP/1.1", body: bytes = b""
) -> Answer:
    """What is answered to exactly these lines."""
    length = b"Content-Length: %d" % len(body)
    head = b"\r\n".join([start, *lines, length, b"Connection: close", b"", b""])
    return await served.raw(head + body)


@pytest.mark.parametrize(
    "host", [b"localhost", b"LocalHost:8000", b"127.0.0.1:80", b"127.9.9.9", b"[::1]:8000"]
)
async def test_name_of_loopback_is_answered(tmp_path: Path, host: bytes) -> None:
    async with serving(tmp_path) as served:
        assert (await asked(served, b"Host: " + host)).status == 200


async def test_old_request_without_a_host_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert (await asked(served, start=b"GET /livez HTTP/1.0")).status == 200


FOREIGN = [
    (b"GET /livez HTTP/1.1", b"evil.example"),
    (b"GET /livez HTTP/1.1", b"evil.example:8000"),
    (b"GET /livez HTTP/1.1", b"127.0.0.1.evil.example"),
    (b"GET /livez HTTP/1.1", b"localhost:8000@evil.example"),
    (b"GET /livez HTTP/1.0", b"evil.example"),
    (b"GET http://evil.example/livez HTTP/1.1", b"localhost"),
    (b"GET http://localhost/livez HTTP/1.1", b"evil.example"),
    (b"GET http://evil.example/livez HTTP/1.0", b""),
    (b"GET /userEvents/u HTTP/1.1", b"evil.example"),
    (b"GET /nothing HTTP/1.1", b"evil.example"),
    (b"OPTIONS /liveEvent HTTP/1.1", b"evil.example"),
    (b"POST /liveEvent HTTP/1.1", b"evil.example"),
]


@pytest.mark.parametrize(("start", "host"), FOREIGN)
async def test_foreign_name_reaches_nothing_on_loopback(
    tmp_path: Path, start: bytes, host: bytes
) -> None:
    async with serving(tmp_path) as served:
        token = b"Authorization: " + TOKEN.encode()
        json = b"Content-Type: application/json"
        answer = await asked(served, b"Host: " + host, token, json, start=start, body=EVENT)
        assert (answer.status, "evil.example is not" in answer.detail) == (421, True)
        assert served.lines == 0


async def test_names_that_are_allowed_are_answered_besides_those_of_loopback(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, allowed_hosts="etl.example, 10.0.0.7") as served:
        for host in (b"etl.example", b"ETL.example:443", b"10.0.0.7:80", b"localhost"):
            assert (await asked(served, b"Host: " + host)).status == 200
        assert (await asked(served, b"Host: evil.example")).status == 421


async def test_off_loopback_names_matter_only_where_they_are_set(tmp_path: Path) -> None:
    async with serving(tmp_path, host=ELSEWHERE) as served:
        assert (await asked(served, b"Host: any.example")).status == 200
    async with serving(tmp_path, host=ELSEWHERE, allowed_hosts="etl.example") as served:
        assert (await asked(served, b"Host: etl.example")).status == 200
        assert (await asked(served, b"Host: localhost")).status == 421


@pytest.mark.parametrize(
    "start",
    [
        b"GET /userEvents/u HTTP/1.1",
        b"GET / HTTP/1.1",
        b"GET /livez/ HTTP/1.1",
        b"GET //livez HTTP/1.1",
        b"GET /readyz/../userEvents/u HTTP/1.1",
        b"GET /nothing HTTP/1.1",
        b"OPTIONS /liveEvent HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"DELETE /liveEvent HTTP/1.1",
        b"HEAD /userEvents/u HTTP/1.1",
        b"POST /liveEvent HTTP/1.1",
        b"TRACE / HTTP/1.1",
    ],
)
async def test_off_loopback_all_but_the_probes_is_behind_the_token(
    tmp_path: Path, start: bytes
) -> None:
    async with serving(tmp_path, host=ELSEWHERE) as served:
        for token in ([], [b"Authorization: wrong"]):
            answer = await asked(served, b"Host: etl.example", *token, start=start)
            assert answer.status == 401
            assert "Basic" in answer.headers["WWW-Authenticate"]
        assert (await asked(served, b"Host: x", start=b"GET /livez HTTP/1.1")).status == 200
        assert (await asked(served, b"Host: x", start=b"GET /readyz HTTP/1.1")).status == 503


async def test_probe_takes_no_event_without_the_token(tmp_path: Path) -> None:
    async with serving(tmp_path, host=ELSEWHERE) as served:
        for path in (b"/livez", b"/readyz"):
            start = b"POST " + path + b" HTTP/1.1"
            answer = await asked(served, b"Host: x", start=start, body=EVENT)
            assert answer.status == 405


SIMPLE_TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "")


@pytest.mark.parametrize("content_type", SIMPLE_TYPES)
async def test_request_that_a_page_may_send_unasked_adds_nothing(
    tmp_path: Path, content_type: str
) -> None:
    """Not even with the token, which such a request can't carry."""
    async with serving(tmp_path) as served:
        page = {"Origin": "https://evil.example", "Content-Type": content_type}
        for headers in (page, page | {"Authorization": TOKEN}):
            answer = await served.ask("POST", body=EVENT, headers=headers)
            assert answer.status == (415 if "Authorization" in headers else 401)
        assert served.lines == 0


async def test_page_of_another_origin_is_allowed_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        preflight = {
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type",
            "Access-Control-Request-Private-Network": "true",
        }
        for method, path in (("OPTIONS", "/liveEvent"), ("GET", "/userEvents/u")):
            answer = await served.ask(method, path, headers=preflight)
            assert [h for h in answer.headers if h.lower().startswith("access-control")] == []
