"""The fixtures that every test can ask for."""

from __future__ import annotations

from support.postgres import database_url, postgres_url

__all__ = ["database_url", "postgres_url"]
