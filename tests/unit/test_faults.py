"""Faults of the database, told apart."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from etl.sink.faults import DatabaseUnavailable, database_faults, is_refusal, reason_of


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.LockNotAvailableError,
        asyncpg.CheckViolationError,
        asyncpg.NumericValueOutOfRangeError,
        asyncpg.RaiseError,
        asyncpg.UniqueViolationError,
    ],
)
def test_these_may_be_one_users_affair(error: type[asyncpg.PostgresError]) -> None:
    assert is_refusal(error("no"))


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.SerializationError,
        asyncpg.DeadlockDetectedError,
        asyncpg.TooManyConnectionsError,
        asyncpg.DiskFullError,
        asyncpg.ReadOnlySQLTransactionError,
        asyncpg.AdminShutdownError,
        asyncpg.CannotConnectNowError,
        asyncpg.QueryCanceledError,
        asyncpg.UndefinedTableError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.IdleInTransactionSessionTimeoutError,
        asyncpg.ConnectionDoesNotExistError,
        asyncpg.InternalServerError,
    ],
)
def test_these_pass_for_everybody(error: type[asyncpg.PostgresError]) -> None:
    assert not is_refusal(error("no"))


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.AdminShutdownError("terminating connection"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("lost synchronisation"),
        ConnectionRefusedError(111, "Connection refused"),
        OSError(),
        EOFError(),
        TimeoutError(),
    ],
)
def test_all_become_one_kind(error: Exception) -> None:
    with pytest.raises(DatabaseUnavailable, match="database"), database_faults():
        raise error


def test_a_cancelled_task_and_our_own_mistakes_pass_through() -> None:
    for mistake in (asyncio.CancelledError(), ValueError("ours")):
        with pytest.raises(type(mistake)), database_faults():
            raise mistake


def test_reason_is_one_line_for_people() -> None:
    assert reason_of(asyncpg.RaiseError("below zero\nDETAIL: no")) == "below zero"
    assert "locked" in reason_of(asyncpg.LockNotAvailableError("canceling statement"))
