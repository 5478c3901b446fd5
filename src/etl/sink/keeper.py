"""The keeper: the one detached process that runs the embedded PostgreSQL of a directory.

Invariants:

* At most one keeper per directory: it inherits `keeper.lock`, held exclusively, from whoever
  started it, and holds it for life. The file is empty until this keeper has started a server.
* `postgres` is its child and dies with it; the next keeper waits until nothing of it is left.
* It stops the server when it can take `users.lock` exclusively, that is when no process that
  uses the server is alive, and it holds that lock until the server is gone.

What it can't answer it leaves in `keeper.error`, where the process that started it finds it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from etl.runtime.backoff import Backoff
from etl.runtime.errors import EtlError
from etl.sink.cluster import (
    Programs,
    cluster_path,
    environment,
    find_programs,
    make_cluster,
    make_socket_directory,
    remove_remains,
    remove_socket,
    socket_directory,
)

LOCK_NAME = "keeper.lock"
LOG_NAME = "postgres.log"
ERROR_NAME = "keeper.error"
LOG_BYTES_MAX = 1024 * 1024
LOOK_INTERVAL_S = 0.2
STOP_S = 60.0
STEADY_S = 10.0

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "50",
    "shared_buffers": "128MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    # Durable: the defaults, written down, since command-line settings win over all others.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # A bulk upsert touches many pages: few checkpoints, room in the log, no replication records.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_buffers": "16MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    # Few processes beside the connections.
    "max_logical_replication_workers": "0",
    "max_parallel_workers_per_gather": "0",
}


class Keeper:
    """Runs PostgreSQL in one directory until nobody uses it."""

    def __init__(self, directory: Path, lock: int) -> None:
        self._directory = directory
        self._lock = lock
        self._users = os.open(directory / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._told_to_stop = False

    def run(self) -> None:
        """Run the server, again and again, until it isn't wanted any more."""
        signal.signal(signal.SIGTERM, self._stop)
        programs = find_programs(self._directory)
        make_cluster(programs, self._directory, before_exec=dies_with_parent(signal.SIGKILL))
        backoff = Backoff(first_s=0.1, cap_s=5.0)
        while not self._unwanted():
            remove_remains(self._directory)
            make_socket_directory(self._directory)
            began = time.monotonic()
            child = self._start(programs)
            os.pwrite(self._lock, f"{child.pid:<10}\n".encode(), 0)
            if self._wait(child):
                self._end(child)
                break
            say(f"postgres ended with {child.returncode}; starting it again")
            if time.monotonic() - began > STEADY_S:
                backoff.reset()
            time.sleep(backoff.next_s())
        remove_socket(self._directory)

    def _start(self, programs: Programs) -> subprocess.Popen[bytes]:
        settings = {**SETTINGS, "unix_socket_directories": quoted(self._directory)}
        if programs.major >= 18:  # the version that brought worker processes for reads
            settings["io_method"] = "sync"
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return subprocess.Popen(  # noqa: S603  the programs found before
            programs.command("postgres", "-D", str(cluster_path(self._directory)), *arguments),
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=environment(),
            preexec_fn=dies_with_parent(signal.SIGQUIT),  # noqa: PLW1509  there is one thread
        )

    def _wait(self, child: subprocess.Popen[bytes]) -> bool:
        """Wait for the end of the child or of its use; say whether it is to be stopped."""
        ended = select.poll()
        pidfd = os.pidfd_open(child.pid)
        try:
            ended.register(pidfd, select.POLLIN)
            while child.poll() is None:
                if self._unwanted():
                    return True
                ended.poll(LOOK_INTERVAL_S * 1000)
                self._bound_log()
        finally:
            os.close(pidfd)
        return False

    def _unwanted(self) -> bool:
        """Say whether nobody uses the server; then the users' lock is ours, and stays so."""
        if self._told_to_stop:
            return True
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        child.send_signal(signal.SIGINT)  # a fast stop: sessions end, a last checkpoint is written
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGQUIT)
            child.wait()

    def _bound_log(self) -> None:
        log = self._directory / LOG_NAME
        try:
            if log.stat().st_size > LOG_BYTES_MAX:
                log.with_name(f"{LOG_NAME}.1").write_bytes(log.read_bytes()[-LOG_BYTES_MAX:])
                os.truncate(log, 0)  # PostgreSQL appends: it goes on at the new end
        except OSError:
            return  # a full disk, or a directory that is gone, is no reason to stop a database

    def _stop(self, _number: int, _frame: object) -> None:
        self._told_to_stop = True


def quoted(directory: Path) -> str:
    """Return the socket's directory as PostgreSQL reads a list of names."""
    return '"{}"'.format(str(socket_directory(directory)).replace('"', '""'))


def dies_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return what a child runs before it execs: it gets this signal when its parent dies."""
    parent = os.getpid()

    def ask() -> None:
        _prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before it was asked
            os._exit(1)

    return ask


def say(text: str) -> None:
    """Write one line to the log, which is standard error here."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    os.write(2, f"{stamp} UTC [{os.getpid()}] KEEPER:  {text}\n".encode())


def leave_error(directory: Path, error: EtlError) -> None:
    """Leave an error for the process that started this one."""
    text = f"{error.message}\n{error.hint or ''}"
    (directory / ERROR_NAME).write_text(text, encoding="utf-8")


def main(directory: Path, lock: int) -> int:
    """Become a process of its own, then keep the server."""
    if os.fork():
        return 0  # whoever started us reaps this one at once, and never the keeper
    (directory / ERROR_NAME).unlink(missing_ok=True)
    try:
        Keeper(directory, lock).run()
    except EtlError as error:
        leave_error(directory, error)
    except OSError as error:
        leave_error(directory, EtlError(f"the keeper of {directory}/ has ended: {error}"))
    except subprocess.CalledProcessError as error:
        leave_error(
            directory,
            EtlError(
                f"{cluster_path(directory)}/ can't be initialised: exit code {error.returncode}",
                hint=f"see {directory / LOG_NAME}",
            ),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
