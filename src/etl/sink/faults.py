"""What can go wrong with the database, told apart by what helps against it.

* A refusal concerns one user: the row is locked, or a constraint or a trigger says no. The others
  must not wait for that user.
* Everything else passes by itself or by the operator's hand: it is waited out, however long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from etl.runtime.errors import EtlError

LOCK_NOT_AVAILABLE = "55P03"
# By class of SQLSTATE; a class not named here, as a trigger may raise, is a refusal.
_PASSING_CLASSES = frozenset(
    {"08", "0A", "25", "26", "28", "2F", "38", "3D", "3F", "40", "42", "53", "55", "57", "58"}
    | {"F0", "HV", "XX"}
)


class DatabaseUnavailable(EtlError):  # noqa: N818  a state, not a mistake
    """The database can't be used now."""


class GuardError(EtlError):
    """An offset is not what this processor last read: another one has moved it."""


@contextmanager
def database_faults() -> Iterator[None]:
    """Turn whatever the driver and the network raise into `DatabaseUnavailable`."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise DatabaseUnavailable(f"database: {_told(error)}", hint=_hint(error)) from error
    except TimeoutError as error:
        raise DatabaseUnavailable("database does not answer in time") from error
    except (OSError, EOFError) as error:
        raise DatabaseUnavailable(f"database is not reachable: {_told(error)}") from error


def is_refusal(error: asyncpg.PostgresError) -> bool:
    """Say whether a failed upsert may be one user's affair."""
    state = error.sqlstate or "XX000"
    return state == LOCK_NOT_AVAILABLE or state[:2] not in _PASSING_CLASSES


def reason_of(error: asyncpg.PostgresError) -> str:
    """Return why a user's delta was refused, for people."""
    if error.sqlstate == LOCK_NOT_AVAILABLE:
        return "row is locked by another transaction"
    return _told(error)


def _told(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def _hint(error: Exception) -> str | None:
    match error:
        case asyncpg.InvalidAuthorizationSpecificationError():
            return "check user and password in DATABASE_URL"
        case asyncpg.InvalidCatalogNameError():
            return "create it, or check DATABASE_URL"
        case asyncpg.InsufficientPrivilegeError():
            return (
                "let the owner of the tables apply the schema, and then sql/roles.sql grant this "
                "user its part; or name the owner in DATABASE_URL"
            )
        case asyncpg.ReadOnlySQLTransactionError():
            return "DATABASE_URL must name a server that takes writes"
        case _:
            return None
