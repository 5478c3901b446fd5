"""An embedded PostgreSQL: started by the first process that needs it, stopped after the last.

All files lie in one directory: `cluster/` (the data), `postgres.log`, `users.lock`, `keeper.lock`
and the socket; a socket's path that is too long is replaced by a short one in /tmp.

Invariants:

* Every process that uses the server holds `users.lock` shared; the kernel frees it however the
  process dies. As long as one holds it, a keeper (see `keeper`) keeps the server up.
* Ready means that a start-up packet was answered by the server itself, not that a file exists.
* The server listens on its socket alone, in a directory that only its owner can enter.

Not promised: a server after the last user. `python -m etl.sink.embedded DIRECTORY` prints the
address and ends; it is good as long as some process, such as a running pipeline, uses the server.
With a command behind it, that command itself counts as a user until it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

from etl.runtime.backoff import Backoff
from etl.runtime.errors import EtlError
from etl.runtime.files import make_private_directory
from etl.sink.cluster import ROLE, SOCKET_NAME, USE_ANOTHER, find_binaries, socket_directory
from etl.sink.keeper import ERROR_NAME, LOCK_NAME, LOG_NAME

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.01
ANSWER_S = 5.0
REMIND_INTERVAL_S = 5.0

_PROTOCOL = 3 << 16
_PARAMETERS = f"user\0{ROLE}\0database\0{ROLE}\0application_name\0etl-ready\0\0".encode()
_STARTUP_PACKET = struct.pack("!II", 8 + len(_PARAMETERS), _PROTOCOL) + _PARAMETERS
_TERMINATE = b"X\0\0\0\4"
_READY_FOR_QUERY = b"Z\0\0\0\5I"
_TOO_MANY_CONNECTIONS = b"C53300\0"


class EmbeddedPostgres:
    """One process's use of the server in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._users: int | None = None

    @property
    def dsn(self) -> str:
        """The address for clients; good while the server runs."""
        return f"postgresql://{ROLE}@/{ROLE}?host={quote(str(self._socket_directory), safe='/')}"

    @property
    def _socket_directory(self) -> Path:
        return socket_directory(self._directory)

    async def ensure_running(self) -> str:
        """Return the address of a server that answers, and start one where there is none.

        Cheap when it runs; to be called again after a lost connection. A long recovery is
        waited for.

        Raises:
            EtlError: it can't run here.
        """
        await self._register()
        backoff = Backoff(first_s=0.05, cap_s=5.0)
        started = False
        remind_at = time.monotonic() + REMIND_INTERVAL_S
        start_at = 0.0
        while True:
            now = time.monotonic()
            lock = _try_lock(self._directory / LOCK_NAME)
            if lock is None:
                if self._is_kept() and await self._answers():
                    return self.dsn
            elif now < start_at:
                os.close(lock)
            else:
                await asyncio.to_thread(self._start_keeper, lock, check_last=started)
                started = True
                start_at = now + backoff.next_s()
            if now >= remind_at:
                log = self._directory / LOG_NAME
                logger.warning("the embedded PostgreSQL does not answer yet; see %s", log)
                remind_at = now + REMIND_INTERVAL_S
            await asyncio.sleep(LOOK_INTERVAL_S)

    def release(self) -> None:
        """Give the use of the server up; harmless when there is none."""
        if self._users is not None:
            os.close(self._users)
            self._users = None

    def keep_through_exec(self) -> None:
        """Let a program that this process becomes by exec hold the use of the server."""
        if self._users is not None:
            os.set_inheritable(self._users, True)  # noqa: FBT003  the standard library's form

    async def _register(self) -> None:
        """Become a user; a server that is just being stopped is waited for."""
        while self._users is None:
            make_private_directory(self._directory)
            try:
                fd = os.open(self._directory / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise EtlError(
                    f"{self._directory}/ can't be used for PostgreSQL: {error.strerror}",
                    hint=f"run it as the owner, give another ETL_DATA_DIR, or {USE_ANOTHER}",
                ) from error
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                await asyncio.sleep(LOOK_INTERVAL_S)
            else:
                self._users = fd

    def _is_kept(self) -> bool:
        """Say whether the keeper has started its server; one that answers before is a dying one."""
        return (self._directory / LOCK_NAME).stat().st_size > 0

    async def _answers(self) -> bool:
        """Say whether the server answers a start-up packet."""
        path = self._socket_directory / SOCKET_NAME
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(path)
                try:
                    writer.write(_STARTUP_PACKET)
                    return await _is_ready(reader)
                finally:
                    writer.write(_TERMINATE)
                    writer.close()
        return False

    def _start_keeper(self, lock: int, *, check_last: bool) -> None:
        """Start the keeper, which inherits its lock from us: so there is never a second one.

        The lock is closed here, in whatever way this ends, also when nobody waits for it any more.
        """
        with os.fdopen(lock):
            if check_last:
                self._raise_error()
            self._launch(lock)

    def _launch(self, lock: int) -> None:
        os.ftruncate(lock, 0)
        log = os.open(self._directory / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            subprocess.run(  # noqa: S603  our own module
                [sys.executable, "-m", "etl.sink.keeper", str(self._directory), str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=[lock],
                start_new_session=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:  # killed, out of memory: goes by
            logger.warning("the keeper of %s/ did not start: %s", self._directory, error)
        finally:
            os.close(log)

    def _raise_error(self) -> None:
        """Raise what the keeper that was started last left behind, if anything."""
        with contextlib.suppress(FileNotFoundError):
            text = (self._directory / ERROR_NAME).read_text(encoding="utf-8")
            message, _, hint = text.partition("\n")
            raise EtlError(message, hint=hint or None)


async def _is_ready(reader: asyncio.StreamReader) -> bool:
    """Read the answer to a start-up packet: ready for a query, or busy but alive."""
    answer = b""
    while part := await reader.read(8192):
        answer += part
        if answer.endswith(_READY_FOR_QUERY):
            return True
        if answer[:1] == b"E":
            return _TOO_MANY_CONNECTIONS in answer
    return False


def _try_lock(path: Path) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def main(arguments: list[str]) -> int:
    """Print the address of the server in a directory, or run a command that uses it.

    `[DIRECTORY [COMMAND …]]`: the command finds the address in `DATABASE_URL` and in the
    variables that PostgreSQL's own programs read, and those programs first on its path.
    """
    directory = Path(arguments[0] if arguments else "data/postgres")
    server = EmbeddedPostgres(directory)
    try:
        dsn = asyncio.run(server.ensure_running())
    except EtlError as error:
        print(f"etl: {error}", file=sys.stderr)  # noqa: T201  a command line
        return 1
    if not arguments[1:]:
        print(dsn)  # noqa: T201  a command line
        return 0
    server.keep_through_exec()
    environment = {
        **os.environ,
        "DATABASE_URL": dsn,
        "PGHOST": str(socket_directory(directory.resolve())),
        "PGUSER": ROLE,
        "PGDATABASE": ROLE,
        "PATH": os.pathsep.join([str(next(find_binaries())), os.environ.get("PATH", os.defpath)]),
    }
    os.environ["PATH"] = environment["PATH"]
    try:
        os.execvpe(arguments[1], arguments[1:], environment)  # noqa: S606  what the user asked for
    except OSError as error:
        print(f"etl: {arguments[1]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
