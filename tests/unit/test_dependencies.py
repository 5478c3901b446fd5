"""What is installed is what the two lock files name, and never older than is safe."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
DEV = [Requirement(text) for text in PROJECT["optional-dependencies"]["dev"]]

# No floor may go below these; the reason says what came back if one did.
SAFE_SINCE = {
    # Before 3.14.1 requests could be smuggled and bodies fill the memory.
    "aiohttp": (
        "3.14.4",
        "older ones leave a request whose address has an unusable port unanswered",
    ),
}


def floor(requirement: Requirement) -> Version:
    """The oldest version that a requirement allows; it must have one, and nothing else."""
    (specifier,) = requirement.specifier
    assert specifier.operator == ">=", f"{requirement} has no floor"
    return Version(specifier.version)


def entries(lock: str) -> list[str]:
    """Each package of a lock file with its hashes."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    return re.findall(r"(?m)^[a-z0-9-]+==\S+.*(?:\n    .*)*", text)


def locked(lock: str) -> dict[str, Version]:
    named = (entry.split(maxsplit=1)[0].split("==") for entry in entries(lock))
    return {name: Version(version) for name, version in named}


@pytest.mark.parametrize("requirement", RUNTIME + DEV, ids=lambda found: found.name)
def test_every_dependency_has_a_floor_that_lock_and_environment_keep(
    requirement: Requirement,
) -> None:
    oldest = floor(requirement)
    for lock in LOCKS if requirement in RUNTIME else LOCKS[1:]:
        assert locked(lock)[requirement.name] >= oldest
    assert Version(metadata.version(requirement.name)) >= oldest


@pytest.mark.parametrize("name", SAFE_SINCE)
def test_no_floor_is_below_what_is_safe(name: str) -> None:
    (requirement,) = (found for found in RUNTIME + DEV if found.name == name)
    safe, reason = SAFE_SINCE[name]
    assert floor(requirement) >= Version(safe), reason


def test_lock_of_the_pipeline_is_part_of_the_lock_of_all() -> None:
    assert locked("requirements.lock").items() < locked("requirements-dev.lock").items()


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_file_names_no_host_and_a_hash_for_every_package(lock: str) -> None:
    assert "://" not in (ROOT / lock).read_text(encoding="utf-8")
    assert len(entries(lock)) > 15
    assert [entry for entry in entries(lock) if "--hash=sha256:" not in entry] == []
