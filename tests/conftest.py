"""The fixtures that every test can ask for."""

from __future__ import annotations

from hypothesis import settings

from support.embedded import pg_directory, pg_empty, pg_pristine, pg_server
from support.postgres import database_url, postgres_url

__all__ = [
    "database_url",
    "pg_directory",
    "pg_empty",
    "pg_pristine",
    "pg_server",
    "postgres_url",
]

# A busy machine is no failure.
settings.register_profile("etl", deadline=None)
settings.load_profile("etl")
