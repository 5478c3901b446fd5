"""Settings: read once, checked, named when they are wrong, and shown without secrets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from etl.runtime.errors import SettingsError
from etl.runtime.settings import DEFAULT_TOKEN, Settings, load, masked

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def refusal(**environment: str) -> str:
    with pytest.raises(SettingsError) as error:
        load(environment)
    return str(error.value)


def test_without_variables_the_defaults_hold() -> None:
    settings = load({})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.token) == ("127.0.0.1", 8000, "secret")
    assert settings.source_path == Path("events.jsonl")
    assert settings.data_path == Path("data")
    assert settings.poll_interval_ms == 20


def test_every_setting_is_read_from_its_variable() -> None:
    environment = {
        "ETL_SOURCE": "in/e.jsonl",
        "ETL_DATA_DIR": "/var/etl",
        "ETL_HOST": "::1",
        "ETL_PORT": "0",
        "ETL_SERVER_URL": "https://etl.example:8443",
        "ETL_TOKEN": "t0ken",
        "DATABASE_URL": "postgres://u:p@db/etl",
        "ETL_POLL_INTERVAL_MS": "7",
        "ETL_CLIENT_MODE": "follow",
        "ETL_BATCH_EVENTS": "1",
        "ETL_BATCH_BYTES": "65536",
        "ETL_QUIET_MS": "50",
        "ETL_TAKEOVER_S": "9",
        "ETL_PRODUCERS_MAX": "3",
        "ETL_ALLOWED_HOSTS": "etl.example, [2001:db8::7],10.0.0.7",
        "ETL_HEADER_TIMEOUT_S": "0.5",
        "ETL_BODY_TIMEOUT_S": "1.5",
        "ETL_REPLY_TIMEOUT_S": "2.5",
        "ETL_IDLE_TIMEOUT_S": "3.5",
        "ETL_CONNECTIONS_MAX": "5",
        "ETL_HEADER_BYTES_MAX": "4096",
        "ETL_BODY_BYTES_MAX": "65537",
        "ETL_BODY_LINES_MAX": "17",
        "ETL_BODIES_BYTES_MAX": "8388608",
        "ETL_QUEUE_BYTES_MAX": "8388609",
        "ETL_DISK_RESERVE_BYTES": "0",
        "ETL_RETENTION": "36h",
        "ETL_RETENTION_BYTES": "1073741824",
        "ETL_LOG_LEVEL": "debug",
        "ETL_LOG_FORMAT": "json",
    }
    assert set(environment) == set(Settings().shown())
    settings, defaults = load(environment), Settings()
    for variable, text in environment.items():
        field = variable.removeprefix("ETL_").lower()
        assert str(getattr(settings, field)) == text
        assert getattr(settings, field) != getattr(defaults, field)


def test_every_setting_stands_with_its_default_in_the_example_and_in_the_table() -> None:
    defaults = {name: str(value) for name, value in Settings().shown().items()}
    defaults["ETL_TOKEN"] = DEFAULT_TOKEN
    without = {"DATABASE_URL", "ETL_ALLOWED_HOSTS", "ETL_RETENTION", "ETL_RETENTION_BYTES"}
    example = dict(re.findall(r"(?m)^# (\w+)=(.*)$", (ROOT / ".env.example").read_text()))
    assert set(example) == set(defaults)
    assert [n for n in example if n not in without and example[n] != defaults[n]] == []
    table: dict[str, str] = {}
    for row in re.findall(r"(?m)^\| (`(?:ETL|DATABASE)_.*?) \| (.*?) \|", README.read_text()):
        names, values = re.findall(r"`(\w+)`", row[0]), re.findall(r"`(.*?)`|(none)", row[1])
        table |= {n: v or none for n, (v, none) in zip(names, values, strict=True)}
    assert table == defaults | dict.fromkeys(without, "none")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800)]
)
def test_retention_is_a_number_of_seconds_minutes_hours_or_days(text: str, seconds: int) -> None:
    assert load({"ETL_RETENTION": text}).retention_s == seconds


def test_without_retention_partitions_are_kept_for_ever() -> None:
    assert (load({}).retention_s, load({}).retention_bytes) == (None, None)


def test_other_variables_and_empty_ones_are_left_alone() -> None:
    assert load({"PORT": "5000", "HOME": "/root", "ETL_PORT": "", "DATABASE_URL": ""}) == Settings()


def test_unknown_variable_is_refused_by_name_with_those_known() -> None:
    message = refusal(ETL_PROT="8000")
    assert message.startswith("ETL_PROT is not a setting, value '8000'; did you mean ETL_PORT? ")
    assert "DATABASE_URL" in message


@pytest.mark.parametrize("variable", ["ETL_TOKNE", "ETL_PASSWORD", "ETL_DATABASE_URL"])
def test_unknown_variable_that_may_hold_a_secret_is_shown_without_it(variable: str) -> None:
    assert "hunter2" not in refusal(**{variable: "hunter2"})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ETL_PORT", "http"),
        ("ETL_PORT", "-1"),
        ("ETL_PORT", "65536"),
        ("ETL_PORT", "80.5"),
        ("ETL_POLL_INTERVAL_MS", "0"),
        ("ETL_POLL_INTERVAL_MS", "fast"),
        ("ETL_CLIENT_MODE", "Resend"),
        ("ETL_BATCH_EVENTS", "0"),
        ("ETL_BATCH_EVENTS", "100001"),
        ("ETL_BATCH_BYTES", "8388609"),
        ("ETL_QUIET_MS", "0"),
        ("ETL_TAKEOVER_S", "-3"),
        ("ETL_PRODUCERS_MAX", "0"),
        ("ETL_ALLOWED_HOSTS", "etl.example:80"),
        ("ETL_ALLOWED_HOSTS", "http://etl.example"),
        ("ETL_ALLOWED_HOSTS", "a,,b"),
        ("ETL_ALLOWED_HOSTS", "*"),
        ("ETL_HEADER_TIMEOUT_S", "0"),
        ("ETL_BODY_TIMEOUT_S", "nan"),
        ("ETL_REPLY_TIMEOUT_S", "inf"),
        ("ETL_IDLE_TIMEOUT_S", "3601"),
        ("ETL_CONNECTIONS_MAX", "0"),
        ("ETL_HEADER_BYTES_MAX", "65537"),
        ("ETL_BODY_BYTES_MAX", "65536"),
        ("ETL_BODY_BYTES_MAX", "8388609"),
        ("ETL_BODY_LINES_MAX", "100001"),
        ("ETL_BODIES_BYTES_MAX", "8388607"),
        ("ETL_QUEUE_BYTES_MAX", "8388607"),
        ("ETL_DISK_RESERVE_BYTES", "-1"),
        ("ETL_RETENTION", "7"),
        ("ETL_RETENTION", "0d"),
        ("ETL_RETENTION", "1.5h"),
        ("ETL_RETENTION", "7 d"),
        ("ETL_RETENTION", "forever"),
        ("ETL_RETENTION_BYTES", "0"),
        ("ETL_RETENTION_BYTES", "1G"),
        ("ETL_LOG_LEVEL", "verbose"),
        ("ETL_LOG_FORMAT", "xml"),
        ("ETL_SERVER_URL", "localhost:8000"),
        ("ETL_SERVER_URL", "ftp://localhost"),
        ("ETL_SERVER_URL", "http://h:99999"),
        ("DATABASE_URL", "mysql://localhost/etl"),
    ],
)
def test_unusable_value_is_refused_with_its_variable_and_what_it_should_be(
    variable: str, text: str
) -> None:
    message, _, hint = refusal(**{variable: text}).partition("; ")
    assert message.startswith(variable)
    assert text in message
    assert hint.startswith("it should be")


@pytest.mark.parametrize("token", ["tökén", "a b", "a\tb", "a\nb", "a\x7f"])
def test_token_that_no_header_carries_is_refused_and_not_shown(token: str) -> None:
    message = refusal(ETL_TOKEN=token)
    assert message == "ETL_TOKEN is unusable, value ***; use visible ASCII"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "etl.example", "127.0.0.1.example"])  # noqa: S104
def test_default_token_is_refused_on_any_host_but_loopback(host: str) -> None:
    for environment in ({}, {"ETL_TOKEN": DEFAULT_TOKEN}):
        message = refusal(ETL_HOST=host, **environment)
        assert "ETL_TOKEN" in message
        assert host in message
    assert load({"ETL_HOST": host, "ETL_TOKEN": "of-my-own"}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_default_token_is_enough_on_loopback(host: str) -> None:
    assert load({"ETL_HOST": host}).token == DEFAULT_TOKEN


def test_what_is_shown_masks_secrets_and_names_variables() -> None:
    url = "postgresql://etl:hunter2@db.example:5432/etl?sslmode=require&password=hunter3"
    shown = load({"ETL_TOKEN": "t0ken", "DATABASE_URL": url}).shown()
    text = repr(shown)
    assert "t0ken" not in text
    assert "hunter" not in text
    assert shown["ETL_TOKEN"] == "***"  # noqa: S105  the mask
    assert shown["DATABASE_URL"] == "postgresql://etl:***@db.example:5432/etl?***"
    assert shown["ETL_PORT"] == 8000


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DATABASE_URL", "postgresql://[::1"),
        ("DATABASE_URL", "host=x password=hunter2"),
        ("DATABASE_URL", "postgresql://etl:hunter2@db:99999/etl"),
        ("ETL_SERVER_URL", "http://[x"),
        ("ETL_SERVER_URL", "http://"),
    ],
)
def test_address_that_is_none_is_refused_without_its_secrets(variable: str, text: str) -> None:
    message = refusal(**{variable: text})
    assert message.startswith(f"{variable} is not an address")
    assert "hunter2" not in message


def test_unusable_database_address_is_shown_without_its_password() -> None:
    message = refusal(DATABASE_URL="mysql://etl:hunter2@db/etl")
    assert "hunter2" not in message
    assert "mysql://etl:***@db/etl" in message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://db/etl", "postgresql://db/etl"),
        ("postgresql://etl@db/etl", "postgresql://etl@db/etl"),
        ("postgresql://etl:p@ss@db/etl", "postgresql://etl:***@db/etl"),
        ("postgresql://u:p@db/etl#fragment", "postgresql://u:***@db/etl"),
    ],
)
def test_address_is_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize("module", ["etl.server", "etl.processor"])
def test_process_with_a_wrong_setting_ends_with_2_and_one_line(module: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", module],
        env={"ETL_PORT": "http", "ETL_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("etl: ETL_PORT is unusable, value 'http'; it should be")
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
