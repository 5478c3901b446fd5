"""Names by which the server may be called."""

from __future__ import annotations

import pytest

from etl.web.access import host_of, is_loopback


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:8000", "localhost"),
        ("localhost.", "localhost"),
        ("localhost.:8000", "localhost"),
        ("127.0.0.1:8000", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[::1]:8000", "[::1]"),
        ("[2001:DB8::1]:8000", "[2001:db8::1]"),
        ("etl.example:80", "etl.example"),
        ("::1", "::1"),
        ("[::1", "[::1"),
        ("localhost:8000@etl.example", "localhost:8000@etl.example"),
        ("localhost:x", "localhost:x"),
        ("localhost/", "localhost/"),
        ("localhost..", "localhost."),
        ("", ""),
    ],
)
def test_host_is_taken_without_its_port(authority: str, host: str) -> None:
    assert host_of(authority) == host


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.0.0.2", "127.255.255.255", "[::1]"]
)
def test_name_of_loopback_is_one(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost.example",
        "127.0.0.1.example",
        "127.1",
        "127.0.0.01",
        "2130706433",
        "0x7f.0.0.1",
        "128.0.0.1",
        "0.0.0.0",  # noqa: S104  a browser may take it for this machine
        "[::]",
        "[::ffff:127.0.0.1]",
        "localhost@etl.example",
        "etl.example#localhost",
        "\uff11\uff12\uff17.0.0.1",
        "locaIhost",
    ],
)
def test_any_other_name_is_foreign(host: str) -> None:
    assert not is_loopback(host)
