"""Where and as whom the embedded PostgreSQL runs, and its command line."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

import etl
from etl.runtime.errors import EtlError
from etl.sink import cluster
from etl.sink.cluster import SOCKET_NAME, find_programs, socket_directory
from etl.sink.embedded import EmbeddedPostgres
from support.embedded import (
    User,
    fetch,
    keepers_of,
    kill,
    postmaster_of,
    run,
    wait_for_end,
)
from support.postgres import wait_until_stopped

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
    ],
)
def test_server_is_durable_and_listens_on_no_network(
    postgres_url: str, name: str, value: str
) -> None:
    assert fetch(postgres_url, f"SHOW {name}") == value


@pytest.mark.parametrize("name", ["a 100%25 it's \"é\\?&#=+", "a,b", "x" * 120])
def test_any_path_will_do(pg_pristine: Path, pg_empty: Path, name: str) -> None:
    directory = pg_empty / name
    shutil.copytree(pg_pristine, directory)
    server = EmbeddedPostgres(directory)
    dsn = run(server)
    assert fetch(dsn, "SELECT value FROM kept") == 42
    place = socket_directory(directory)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert len(os.fsencode(place / SOCKET_NAME)) <= 85
    server.release()
    wait_until_stopped(directory)
    assert place == directory or not place.exists()


def test_short_socket_directory_of_someone_else_is_refused(pg_empty: Path) -> None:
    directory = pg_empty / ("x" * 120)
    place = socket_directory(directory)
    place.mkdir(mode=0o755)
    try:
        with pytest.raises(EtlError, match="not a private directory"):
            cluster.make_socket_directory(directory)
    finally:
        place.rmdir()


def test_cluster_of_another_version_is_refused_untouched(
    pg_server: EmbeddedPostgres, pg_directory: Path
) -> None:
    (pg_directory / "cluster/PG_VERSION").write_text("11\n")
    with pytest.raises(EtlError, match=r"written by PostgreSQL 11, this is .*DATABASE_URL"):
        run(pg_server)
    assert (pg_directory / "cluster/PG_VERSION").read_text() == "11\n"


def test_directory_that_can_not_be_used_is_an_error_that_names_it(pg_empty: Path) -> None:
    (pg_empty / "users.lock").mkdir(parents=True)
    (pg_empty / "keeper.lock").touch()
    with pytest.raises(EtlError, match=f"{pg_empty}/ can't be used for PostgreSQL"):
        run(EmbeddedPostgres(pg_empty))


def test_cluster_that_can_not_be_initialised_is_an_error_that_names_the_log(pg_empty: Path) -> None:
    small_files = ["prlimit", "--fsize=1000000"]
    ran = command_line(pg_empty, before=small_files)
    assert ran.returncode == 1
    assert f"{pg_empty}/cluster/ can't be initialised" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert command_line(pg_empty).returncode == 0  # with more room, all is well


def test_keeper_that_meets_an_error_of_the_system_passes_it_on(pg_empty: Path) -> None:
    pg_empty.mkdir()
    (pg_empty / "cluster").symlink_to("nowhere")  # a new cluster can't take this name
    server = EmbeddedPostgres(pg_empty)
    with pytest.raises(EtlError, match=r"has ended: .*Not a directory"):
        run(server)
    server.release()


def test_missing_programs_are_an_error_that_names_the_way_out(
    pg_empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "find_binaries", lambda: iter(()))
    with pytest.raises(EtlError, match="DATABASE_URL"):
        find_programs(pg_empty)


@needs_root
def test_root_without_namespaces_runs_the_server_as_nobody(
    pg_directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    modes = [path.stat().st_mode for path in (pg_directory, *pg_directory.parents)]
    user = User(pg_directory, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert fetch(user.dsn(), "SELECT value FROM kept") == 42
    postmaster = postmaster_of(pg_directory)
    assert Path(f"/proc/{postmaster}").stat().st_uid in {0, cluster.NOBODY}
    assert "Uid:\t65534" in Path(f"/proc/{postmaster}/status").read_text()
    assert [path.stat().st_mode for path in (pg_directory, *pg_directory.parents)] == modes
    gone = os.pidfd_open(postmaster)
    kill(keepers_of(pg_directory)[0])
    wait_for_end(gone)
    user.kill()
    root = EmbeddedPostgres(pg_directory)  # and back to a namespace, on the same files
    assert fetch(run(root), "SELECT value FROM kept") == 42
    root.release()


@needs_root
def test_root_without_any_way_down_is_told_of_another_database(
    pg_empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    pg_empty.mkdir()
    with pytest.raises(EtlError, match=r"can't run here as uid 0.*DATABASE_URL"):
        find_programs(pg_empty)


@needs_root
def test_ordinary_user_needs_nothing_but_a_directory(pg_empty: Path) -> None:
    source, packages = Path(etl.__file__).parents[1], sysconfig.get_path("purelib")
    become = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]
    python = [*become, "/usr/bin/python3"]
    reads = [*python, "-c", f"open({str(source / 'etl/__init__.py')!r}); open({etl.__file__!r})"]
    if subprocess.run(reads, check=False, capture_output=True).returncode != 0:
        pytest.skip("user 1000 can't read this clone, or has no Python of the system")
    pg_empty.parent.chmod(0o755)
    pg_empty.mkdir(mode=0o700)
    os.chown(pg_empty, 1000, 1000)
    user = User(pg_empty, command=python, PYTHONPATH=f"{source}:{packages}", HOME="/nonexistent")
    assert fetch(user.dsn(), "SELECT 1") == 1
    assert "Uid:\t1000" in Path(f"/proc/{postmaster_of(pg_empty)}/status").read_text()
    user.kill()


def command_line(
    directory: Path, *command: str, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", "etl.sink.embedded", str(directory), *command],
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_line_prints_the_address_that_a_running_user_keeps_good(
    pg_server: EmbeddedPostgres, pg_directory: Path
) -> None:
    dsn = run(pg_server)
    printed = command_line(pg_directory)
    assert (printed.stdout, printed.returncode) == (f"{dsn}\n", 0)
    assert fetch(dsn, "SELECT value FROM kept") == 42


def test_command_behind_the_directory_finds_a_server_for_as_long_as_it_runs(
    pg_directory: Path,
) -> None:
    holds = "ls -l /proc/$$/fd | grep -c /users.lock"
    script = f'psql -At "$DATABASE_URL" -f -; psql -Atc "TABLE kept"; {holds}'
    ran = command_line(pg_directory, "sh", "-c", script)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("42\n1\n", "", 0)
    assert command_line(pg_directory, "no-such-command").returncode == 1
