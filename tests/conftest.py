"""The fixtures that every test can ask for."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Else their assertions would be gone under PYTHONOPTIMIZE=1, which must change no test's outcome.
pytest.register_assert_rewrite("support", "corpus", "torture", "fuzz")

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Share all tests among workers; a few named ones are quicker without."""
    if config.option.keyword or config.args != config.getini("testpaths"):
        return 0
    # While one waits for the disk or a process. Two to a core were no faster, and took a fifth more
    # of the processors: each collects all tests for itself.
    return (os.cpu_count() or 1) + 1
