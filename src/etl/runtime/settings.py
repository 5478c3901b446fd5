"""All settings: environment variables, read once, checked, and shown with secrets masked."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit, urlunsplit

import msgspec

from etl.runtime.errors import SettingsError

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
DEFAULT_TOKEN = "secret"  # noqa: S105  the original's token, public by contract

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
# At most an hour: a deadline that never comes is none.
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
# A number of seconds, minutes, hours or days.
Age = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,4}[smhd]\Z")]
MIB = 1024 * 1024


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the three processes need to know.

    Field `data_dir` is read from `ETL_DATA_DIR`, and so on; `database_url` from `DATABASE_URL`.
    """

    source: str = "events.jsonl"
    data_dir: str = "data"
    host: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    port: Port = 8000
    server_url: str = "http://127.0.0.1:8000"
    token: Annotated[str, msgspec.Meta(min_length=1)] = DEFAULT_TOKEN
    database_url: str | None = None
    poll_interval_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 20
    client_mode: Literal["resend", "follow"] = "resend"
    batch_events: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 20_000
    batch_bytes: Annotated[int, msgspec.Meta(ge=1, le=8 * MIB)] = MIB
    quiet_ms: Positive = 500
    takeover_s: Positive = 3
    producers_max: Positive = 10_000
    allowed_hosts: str = ""
    header_timeout_s: Seconds = 10
    body_timeout_s: Seconds = 30
    reply_timeout_s: Seconds = 30
    idle_timeout_s: Seconds = 75
    connections_max: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 512
    header_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=65_536)] = 16_384
    # Not below a line of the largest size, and not above what the contract allows.
    body_bytes_max: Annotated[int, msgspec.Meta(ge=65_537, le=8 * MIB)] = 8 * MIB
    body_lines_max: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 100_000
    # Not below one body, which could never be taken then.
    bodies_bytes_max: Annotated[int, msgspec.Meta(ge=8 * MIB)] = 256 * MIB
    queue_bytes_max: Annotated[int, msgspec.Meta(ge=8 * MIB)] = 64 * MIB
    disk_reserve_bytes: Annotated[int, msgspec.Meta(ge=0)] = 256 * MIB
    retention: Age | None = None
    retention_bytes: Positive | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @property
    def source_path(self) -> Path:
        """The file the client watches."""
        return Path(self.source)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        return self.host in LOOPBACK_HOSTS

    @property
    def hosts(self) -> frozenset[str]:
        """The names, besides those of loopback, that a request may give as its `Host`."""
        return frozenset(name.strip().lower() for name in self.allowed_hosts.split(",")) - {""}

    @property
    def retention_s(self) -> int | None:
        """How long a partition is kept after it was applied; None for ever."""
        if self.retention is None:
            return None
        return int(self.retention[:-1]) * _SECONDS[self.retention[-1]]

    @property
    def data_path(self) -> Path:
        """The directory of all that the processes write."""
        return Path(self.data_dir)

    def shown(self) -> dict[str, object]:
        """Return the settings by variable name, secrets masked, for the log."""
        values = {_variable(name): getattr(self, name) for name in self.__struct_fields__}
        values[_variable("token")] = "***"
        values[_variable("server_url")] = masked(self.server_url)
        if self.database_url is not None:
            values["DATABASE_URL"] = masked(self.database_url)
        return values


_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _variable(field: str) -> str:
    return "DATABASE_URL" if field == "database_url" else f"ETL_{field.upper()}"


def masked(url: str) -> str:
    """Return `url` with the password and the query, which may carry one, replaced by stars."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    if not parts.netloc and ("@" in url or "=" in url):
        return "***"
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    secret = f"{name}:***" if colon else name
    return urlunsplit(
        (parts.scheme, f"{secret}{at}{host}", parts.path, "***" if parts.query else "", "")
    )


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from environment variables.

    Raises:
        SettingsError: a variable is unknown or its value unusable; the message names both.
    """
    fields = {_variable(name): name for name in Settings.__struct_fields__}
    for variable in sorted(environment):
        if variable.startswith("ETL_") and variable not in fields:
            raise _unknown(variable, environment[variable], known=sorted(fields))
    values: dict[str, object] = {}
    for variable, field in fields.items():
        if environment.get(variable):
            values[field] = _checked(variable, field, environment[variable])
    settings = Settings(**values)  # type: ignore[arg-type]  # each value was converted to its type
    if not settings.on_loopback and settings.token == DEFAULT_TOKEN:
        raise SettingsError(
            f"ETL_TOKEN is the public default while ETL_HOST is {settings.host!r}",
            hint="set ETL_TOKEN to a secret of your own, or keep ETL_HOST on 127.0.0.1",
        )
    return settings


_HOST = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]")
_SECRETS = frozenset({"ETL_TOKEN", "DATABASE_URL"})
_SCHEMES = {"server_url": ("http", "https"), "database_url": ("postgresql", "postgres")}
_TYPES: dict[str, object] = dict(
    zip(
        Settings.__struct_fields__,
        (f.type for f in msgspec.structs.fields(Settings)),
        strict=True,
    )
)


def _unknown(variable: str, text: str, *, known: list[str]) -> SettingsError:
    near = difflib.get_close_matches(variable, known, n=1, cutoff=0.8)
    # A misspelt token must not end up in a terminal or a log.
    value = f", value {text!r}" if near and near[0] not in _SECRETS else ""
    meant = f"did you mean {near[0]}? " if near else ""
    return SettingsError(
        f"{variable} is not a setting{value}", hint=f"{meant}the settings are {', '.join(known)}"
    )


def _checked(variable: str, field: str, text: str) -> object:
    if field == "token" and not (text.isascii() and text.isprintable() and " " not in text):
        raise SettingsError(f"{variable} is unusable, value ***", hint="use visible ASCII")
    if field == "allowed_hosts" and not all(_HOST.fullmatch(n.strip()) for n in text.split(",")):
        raise SettingsError(
            f"{variable} is unusable, value {text!r}",
            hint="it should be names without a port, such as etl.example,10.0.0.7",
        )
    if field in _SCHEMES:
        _check_address(variable, text, schemes=_SCHEMES[field])
    try:
        return msgspec.convert(text, _TYPES[field], strict=False)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise SettingsError(
            f"{variable} is unusable, value {text!r}", hint=_remedy(str(error))
        ) from None


def _check_address(variable: str, text: str, *, schemes: tuple[str, ...]) -> None:
    wrong = SettingsError(
        f"{variable} is not an address, value {masked(text)}",
        hint=f"it should be like {schemes[0]}://host:port",
    )
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises where it is none
    except ValueError:
        raise wrong from None
    host_needed = schemes[0] == "http"
    if parts.scheme not in schemes or (host_needed and not parts.hostname):
        raise wrong


def _remedy(reason: str) -> str:
    if "regex" in reason:
        return "it should be a number of seconds, minutes, hours or days, such as 7d or 36h"
    return f"it should be otherwise: {reason[0].lower()}{reason[1:]}".replace("`", "")
