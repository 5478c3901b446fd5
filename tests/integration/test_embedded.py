"""The embedded PostgreSQL, with every process of it killed at least once."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from etl.sink.cluster import SOCKET_NAME, find_programs
from etl.sink.embedded import EmbeddedPostgres
from etl.sink.keeper import LOG_BYTES_MAX
from support.embedded import (
    User,
    fetch,
    keepers_of,
    kill,
    postmaster_of,
    processes_of,
    run,
    wait_for,
    wait_for_end,
)
from support.postgres import execute, wait_until_stopped


def test_server_holds_what_was_written_before_it_stopped(
    pg_server: EmbeddedPostgres, pg_directory: Path
) -> None:
    assert fetch(run(pg_server), "SELECT value FROM kept") == 42


def test_asking_again_for_a_running_server_changes_nothing(
    pg_server: EmbeddedPostgres, pg_directory: Path
) -> None:
    first = run(pg_server), postmaster_of(pg_directory), keepers_of(pg_directory)
    assert (run(pg_server), postmaster_of(pg_directory), keepers_of(pg_directory)) == first


def test_users_that_come_at_once_start_one_server(pg_empty: Path) -> None:
    users = [User(pg_empty) for _ in range(6)]
    assert len({user.dsn() for user in users}) == 1
    assert len(keepers_of(pg_empty)) == 1
    log = (pg_empty / "postgres.log").read_text()
    assert log.count("running bootstrap script") == 1
    assert log.count("starting PostgreSQL") == 1
    for user in users:
        user.kill()


def test_server_outlives_one_killed_user_and_ends_with_the_last(pg_directory: Path) -> None:
    first, second = User(pg_directory), User(pg_directory)
    dsn = first.dsn()
    assert second.dsn() == dsn
    postmaster = postmaster_of(pg_directory)
    first.kill()
    assert fetch(dsn, "SELECT value FROM kept") == 42
    assert postmaster_of(pg_directory) == postmaster
    second.kill()
    wait_until_stopped(pg_directory)
    assert processes_of(pg_directory) == []
    left = {path.name for path in pg_directory.iterdir()}
    assert left == {"cluster", "keeper.lock", "users.lock", "postgres.log"}
    assert not (pg_directory / "cluster/postmaster.pid").exists()


def test_server_that_is_being_stopped_is_waited_for(pg_directory: Path) -> None:
    for _ in range(5):
        server = EmbeddedPostgres(pg_directory)
        assert fetch(run(server), "SELECT value FROM kept") == 42
        server.release()


def test_killed_keeper_takes_the_server_along_and_is_replaced(
    pg_server: EmbeddedPostgres, pg_directory: Path
) -> None:
    execute(run(pg_server), "UPDATE kept SET value = 43")
    (keeper,) = keepers_of(pg_directory)
    postmaster = os.pidfd_open(postmaster_of(pg_directory))
    kill(keeper)
    wait_for_end(postmaster)
    assert fetch(run(pg_server), "SELECT value FROM kept") == 43
    assert len(keepers_of(pg_directory)) == 1


def test_killed_postmaster_is_started_again_by_the_same_keeper(
    pg_server: EmbeddedPostgres, pg_directory: Path
) -> None:
    execute(run(pg_server), "UPDATE kept SET value = 43")
    keepers = keepers_of(pg_directory)
    kill(postmaster_of(pg_directory))
    assert fetch(run(pg_server), "SELECT value FROM kept") == 43
    assert keepers_of(pg_directory) == keepers


def test_everything_killed_at_once_leaves_a_directory_that_starts(pg_directory: Path) -> None:
    user = User(pg_directory)
    execute(user.dsn(), "UPDATE kept SET value = 43")
    pidfds = [os.pidfd_open(pid) for pid in processes_of(pg_directory)]
    for pidfd in pidfds:
        with suppress(ProcessLookupError):  # it died of the death of another
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    user.kill()
    for pidfd in pidfds:
        wait_for_end(pidfd)
    again = EmbeddedPostgres(pg_directory)
    assert fetch(run(again), "SELECT value FROM kept") == 43
    again.release()


def keeper_that_has_written(directory: Path, file: str) -> int:
    """The keeper whose unfinished cluster, which bears its pid, holds a file."""
    found: list[int] = []

    def look() -> bool:
        torn = [path for path in directory.glob("cluster.*.tmp") if (path / file).exists()]
        pids = {int(path.name.split(".")[1]) for path in torn}
        found[:] = [pid for pid in keepers_of(directory) if pid in pids]
        return bool(found)

    wait_for(look)
    return found[0]


def test_keeper_killed_during_initdb_is_replaced_and_leaves_no_half_cluster(pg_empty: Path) -> None:
    user = User(pg_empty)
    for file in ("PG_VERSION", "global/pg_control"):  # early, and late
        kill(keeper_that_has_written(pg_empty, file))
    assert fetch(user.dsn(), "SELECT 1") == 1
    assert [path.name for path in pg_empty.glob("cluster*")] == ["cluster"]
    user.kill()


@pytest.mark.parametrize("content", ["", "1", "{dead}\n", "{alive}\n/somewhere\n", "nonsense\n"])
def test_stale_pid_file_keeps_no_server_from_starting(
    pg_server: EmbeddedPostgres, pg_directory: Path, content: str
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in ("cluster/postmaster.pid", f"{SOCKET_NAME}.lock"):
        (pg_directory / name).write_text(content.format(dead=ended.pid, alive=os.getppid()))
    (pg_directory / SOCKET_NAME).touch()
    assert fetch(run(pg_server), "SELECT value FROM kept") == 42


def test_server_without_a_keeper_is_ended_before_a_new_one_starts(
    pg_server: EmbeddedPostgres, pg_directory: Path
) -> None:
    sockets = f"unix_socket_directories={pg_directory}"
    arguments = ("-D", str(pg_directory / "cluster"), "-c", "listen_addresses=", "-c", sockets)
    orphan = subprocess.Popen(
        find_programs(pg_directory).command("postgres", *arguments), stderr=subprocess.DEVNULL
    )
    wait_for((pg_directory / SOCKET_NAME).exists)
    assert fetch(run(pg_server), "SELECT value FROM kept") == 42
    assert orphan.wait() == 0
    assert postmaster_of(pg_directory) != orphan.pid


def test_log_is_bounded(pg_server: EmbeddedPostgres, pg_directory: Path) -> None:
    run(pg_server)
    with (pg_directory / "postgres.log").open("ab") as log:
        log.write(b"x" * (LOG_BYTES_MAX + 1))
    wait_for(lambda: (pg_directory / "postgres.log").stat().st_size == 0)
    assert (pg_directory / "postgres.log.1").stat().st_size == LOG_BYTES_MAX


def test_interrupt_of_the_terminal_misses_the_keeper(
    pg_server: EmbeddedPostgres, pg_directory: Path
) -> None:
    run(pg_server)
    (keeper,) = keepers_of(pg_directory)
    assert os.getsid(keeper) not in {os.getsid(0), os.getpid()}
