"""`deploy/nginx.conf`, in a real nginx before a real server, where there is one to be had."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from support.database import prepared
from support.embedded import wait_for_end
from support.pipeline import pipeline

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(
        not (shutil.which("nginx") and shutil.which("openssl")),
        reason="the example for nginx is not tried: no nginx, or no openssl, on the path",
    ),
]

EXAMPLE = (Path(__file__).parents[2] / "deploy/nginx.conf").read_text(encoding="utf-8")
TOKEN = "t0ken-of-nobody"  # noqa: S105  of a test
READER = "Basic cmVhZGVyOnBhc3M="  # reader:pass
EVENT = b'{"userId":"u","name":"add_revenue","value":1}'

CERTIFY = [
    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc"),
    *("-subj", "/CN=etl.example", "-addext", "subjectAltName=DNS:etl.example"),
]
MAIN = """
user {user}; pid {place}/pid; error_log {place}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {place}/t1; proxy_temp_path {place}/t2; fastcgi_temp_path {place}/t3;
    uwsgi_temp_path {place}/t4; scgi_temp_path {place}/t5;
    include {place}/etl.conf;
}}
"""


@contextmanager
def nginx(place: Path, server: str) -> Iterator[None]:
    """The example at work on a socket in a directory, its paths and its one address replaced."""
    example = EXAMPLE
    for stands, here in (
        ("listen 443", f"listen unix:{place}/tls"),
        ("/etc/ssl/certs/etl.example.pem", f"{place}/cert"),
        ("/etc/ssl/private/etl.example.key", f"{place}/key"),
        ("/etc/nginx/etl.htpasswd;", f"{place}/htpasswd;"),
        ("http://127.0.0.1:8000", server),
    ):
        assert stands in example
        example = example.replace(stands, here)
    (place / "etl.conf").write_text(example)
    (place / "main.conf").write_text(MAIN.format(user=getpass.getuser(), place=place))
    (place / "htpasswd").write_text("reader:{PLAIN}pass\n")
    subprocess.run(
        [*CERTIFY, "-keyout", place / "key", "-out", place / "cert"],
        check=True,
        capture_output=True,
    )
    subprocess.run(["nginx", "-c", place / "main.conf"], check=True)  # returns when it listens
    master = os.pidfd_open(int((place / "pid").read_text()))
    try:
        yield
    finally:
        signal.pidfd_send_signal(master, signal.SIGTERM)
        wait_for_end(master)


class Outside:
    """Someone on the network, who spells paths as no library would."""

    def __init__(self, place: Path) -> None:
        self._socket = place / "tls"
        self._trust = ssl.create_default_context(cafile=place / "cert")

    async def ask(
        self,
        request: str,
        token: str = "",
        *,
        body: bytes = b"",
        host: str = "etl.example",
        sni: str = "etl.example",
    ) -> tuple[int, str]:
        """Send a request, and return status and body of the answer."""
        reader, writer = await asyncio.open_unix_connection(
            self._socket, ssl=self._trust, server_hostname=sni
        )
        head = [
            f"{request} HTTP/1.1",
            f"Host: {host}",
            "Connection: close",
            f"Content-Length: {len(body)}",
            "Content-Type: application/json",
            *([f"Authorization: {token}"] if token else []),
        ]
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        answer = (await reader.read()).decode()
        writer.transport.abort()  # nginx has gone: no farewell reaches it
        return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]


@pytest_asyncio.fixture
async def outside(tmp_path: Path, database_url: str) -> AsyncIterator[Outside]:
    """Someone before an nginx and a server that knows users with strange names."""
    settings = {"ETL_TOKEN": TOKEN, "ETL_ALLOWED_HOSTS": "etl.example"}
    place = tmp_path / "nginx"
    place.mkdir()
    async with prepared(database_url) as known, pipeline(tmp_path, database_url, **settings) as run:
        for user in ("u", "../livez", "a/b"):
            await known.connection.execute("SELECT upsert_user_revenue($1, 7)", user)
        await run.start("server")
        await run.roles["server"].said("database answers")
        with nginx(place, f"http://127.0.0.1:{run.port}"):
            yield Outside(place)


async def test_events_need_the_token_and_revenue_a_password(outside: Outside) -> None:
    assert (await outside.ask("POST /liveEvent", body=EVENT))[0] == 401
    assert (await outside.ask("POST /liveEvent", TOKEN, body=EVENT))[0] == 201
    for token in ("", TOKEN):
        assert (await outside.ask("GET /userEvents/u", token))[0] == 401
    for path in ("/userEvents/u", "/userEvents/a%2Fb", "/userEvents/a/b"):
        status, body = await outside.ask(f"GET {path}", READER)
        assert (status, '"revenue":7' in body.replace(" ", "")) == (200, True)


@pytest.mark.parametrize(
    "path",
    [
        "/userEvents/..%2Flivez",
        "/userEvents/../livez",
        "/userEvents/..%2FliveEvent",
        "//userEvents/u",
        "/livez/../userEvents/u",
        "/liveEvent/../userEvents/u",
        "/userEvents%2Fu",
        "/%75serEvents/u",
        "https://etl.example/userEvents/u",
    ],
)
async def test_no_spelling_shows_revenue_without_the_password(outside: Outside, path: str) -> None:
    for token in ("", TOKEN):
        status, body = await outside.ask(f"GET {path}", token)
        assert "revenue" not in body
        assert status in {401, 403, 404} or (status, body) == (200, "ok\n")


async def test_probes_are_open_and_all_else_is_not_there(outside: Outside) -> None:
    assert await outside.ask("GET /livez") == (200, "ok\n")
    assert await outside.ask("GET /readyz") == (200, "ok\n")
    assert (await outside.ask("GET /metrics", TOKEN))[0] == 404
    assert (await outside.ask("GET /liveEvent", TOKEN))[0] == 403


async def test_other_names_are_refused(outside: Outside) -> None:
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        await outside.ask("GET /livez", sni="evil.example")
    assert (await outside.ask("GET /livez", host="evil.example"))[0] == 404
