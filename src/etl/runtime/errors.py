"""The errors that end a process or stop a part of it, each with a remedy where one is known."""

from __future__ import annotations


class EtlError(Exception):
    """Something outside this program is wrong.

    The message is subject, what is wrong, value; the hint says what the operator can do.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class SettingsError(EtlError):
    """A setting is wrong: ends the process with exit code 2."""


class InUseError(EtlError):
    """Another process holds a lock that only one may hold."""


class CorruptError(EtlError):
    """Bytes that were once durable do not say any more what was written."""
