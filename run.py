#!/usr/bin/env python3
"""Set up `.venv` where that is needed, then run the pipeline, or its tests, in it.

    python3 run.py                starts the three processes of the Procfile
    python3 run.py test [ARG ...]   runs the tests; ARG goes to pytest
    python3 run.py torture [ARG ...]  tries to break the pipeline; --help says how
    python3 run.py fuzz [ARG ...]   sends it lines and requests that are nearly right
    python3 run.py bench [NAME ...]   measures how fast it is; --help says how

The set-up installs exactly what a lock file names, checked by hash, and needs neither root nor
anything but Python with pip, or uv. It is done once, and again when `pyproject.toml`, the lock file
or the place of this directory change, or when it was interrupted. The pipeline needs only
`requirements.lock`, a third of `requirements-dev.lock`, which all else needs and which holds it.

Invariants:

* `.venv/etl-stamp` holds the hash of all that the environment was made from, and it is written
  last: an environment with the right stamp is whole.
* An environment for the tests serves the pipeline as it is, so that the two don't undo each other.
* One process at a time changes the environment; the others wait.

Only the standard library, and nothing that an old Python can't read: it must get far enough to
say that it is too old.
"""

import os
import sys

PYTHON_MIN = (3, 11)

if not sys.platform.startswith("linux"):
    sys.exit("run.py: %s is not supported; Linux is" % sys.platform)  # noqa: UP031  an old Python has to read it
if sys.version_info < PYTHON_MIN:
    sys.exit(
        "run.py: this is Python %d.%d, but 3.11 or newer is needed; "  # noqa: UP031  the same
        "run it by that name, such as python3.12 run.py" % sys.version_info[:2]
    )

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "etl-stamp"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
LOCK_DEV = ROOT / "requirements-dev.lock"
PIP_PYTHON_OPTION_SINCE = (22, 3)

COMMANDS = {
    "start": ["-m", "honcho", "start"],
    "test": ["-m", "pytest", "-n", "auto"],
    "torture": [str(ROOT / "tests" / "torture")],
    "fuzz": [str(ROOT / "tests" / "fuzz")],
    "bench": [str(ROOT / "benchmarks")],
}


def main(arguments: list[str]) -> int:
    """Set up what is missing, then become the command; return only when that is impossible."""
    name, *rest = arguments or ["start"]
    if name not in COMMANDS:
        print(__doc__.partition("\n\n")[2].partition("\n\n")[0], file=sys.stderr)
        return 0 if name in {"-h", "--help"} else 2
    os.chdir(ROOT)
    lock = LOCK if name == "start" else LOCK_DEV
    if not is_whole(lock):
        try:
            set_up(lock)
        except SetUpError as error:
            print(f"run.py: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("run.py: interrupted; the next start sets up again", file=sys.stderr)
            return 130
    return become(name, rest)


def become(name: str, arguments: list[str]) -> NoReturn:
    """Run a command in the environment, in place of this process: signals reach it directly."""
    path = os.pathsep.join([str(PYTHON.parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(VENV)}
    environment.pop("PYTHONHOME", None)
    os.execve(PYTHON, [str(PYTHON), *COMMANDS[name], *arguments], environment)


class SetUpError(Exception):
    """The environment can't be made; the message says what to do."""


def fingerprint(lock: Path) -> str:
    """Return the hash of all that an environment made from a lock file depends on."""
    found = hashlib.sha256(os.fsencode(ROOT))
    for path in (ROOT / "pyproject.toml", lock):
        found.update(path.read_bytes())
    return found.hexdigest()


def is_whole(lock: Path) -> bool:
    """Say whether the environment is there, whole, and has what a lock file names."""
    try:
        made_from = STAMP.read_text()
    except OSError:
        return False
    return made_from in map(fingerprint, (lock, LOCK_DEV)) and os.access(PYTHON, os.X_OK)


def set_up(lock: Path) -> None:
    """Make the environment, or bring it up to date.

    Raises:
        SetUpError: that is impossible here.
    """
    with (ROOT / ".venv.lock").open("w") as turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for the set-up that another run.py has begun")
            fcntl.flock(turn, fcntl.LOCK_EX)
        if is_whole(lock):
            return
        say(f"setting up .venv from {lock.name}, this once; it takes up to a minute")
        if not os.access(PYTHON, os.X_OK) or begun():
            shutil.rmtree(VENV, ignore_errors=True)
            VENV.mkdir()
        STAMP.write_text("")
        install(requirements(lock))
        packages().joinpath("etl.pth").write_text(f"{ROOT / 'src'}\n")
        STAMP.write_text(fingerprint(lock))


def begun() -> bool:
    """Say whether a set-up was begun here and not finished; another's environment is kept."""
    return STAMP.exists() and not STAMP.read_text()


def install(wanted: list[str]) -> None:
    """Install packages in one of the ways there are, the fastest first."""
    ways: list[Callable[[list[str]], bool]] = [
        with_uv,
        with_own_pip,
        with_new_pip,
        with_virtualenv,
    ]
    if not any(way(wanted) for way in ways):
        raise SetUpError(
            "the packages could not be installed; see above. This needs a network and either uv, "
            "or Python with pip or venv (in Debian: apt install python3-venv)"
        )


def with_uv(wanted: list[str]) -> bool:
    """Use uv, where it is installed."""
    uv = shutil.which("uv")
    if uv is None:
        return False
    made = PYTHON.exists() or ran(uv, "venv", "-q", "--allow-existing", "-p", base(), str(VENV))
    return made and ran(uv, "pip", "install", "-q", "-p", str(PYTHON), *wanted)


def with_own_pip(wanted: list[str]) -> bool:
    """Use the pip beside this Python: it needs none inside, and so no ensurepip either."""
    asked = output(base(), "-m", "pip", "--version").split()
    if len(asked) < 2 or version(asked[1]) < PIP_PYTHON_OPTION_SINCE:
        return False
    made = PYTHON.exists() or ran(base(), "-m", "venv", "--without-pip", str(VENV))
    return made and ran(
        base(), "-m", "pip", "--python", str(PYTHON), "install", *pip_options(), *wanted
    )


def with_new_pip(wanted: list[str]) -> bool:
    """Put a pip into the environment."""
    if not output(base(), "-m", "ensurepip", "--version"):
        return False
    return ran(base(), "-m", "venv", str(VENV)) and pip_inside(wanted)


def with_virtualenv(wanted: list[str]) -> bool:
    """Let virtualenv put a pip into the environment."""
    if not output(base(), "-m", "virtualenv", "--version"):
        return False
    return ran(base(), "-m", "virtualenv", "-q", str(VENV)) and pip_inside(wanted)


def pip_inside(wanted: list[str]) -> bool:
    """Install with the pip inside the environment."""
    return ran(str(PYTHON), "-m", "pip", "install", *pip_options(), *wanted)


def requirements(lock: Path) -> list[str]:
    """Return the options that pip and uv share: what to install, checked by hash."""
    return ["--require-hashes", "--no-deps", "-r", str(lock)]


def pip_options() -> list[str]:
    """Return the options that keep pip quiet and away from compilers."""
    return ["-qq", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:"]


def packages() -> Path:
    """Return the directory into which the packages were installed."""
    return next((VENV / "lib").glob("python3*/site-packages"))


def base() -> str:
    """Return the Python to make an environment from: not one that is itself in an environment."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    return str(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"))


def version(text: str) -> tuple[int, ...]:
    """Return a version's first two numbers."""
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def ran(*command: str) -> bool:
    """Run a command and say whether it went well."""
    return subprocess.run(command, check=False, stdout=sys.stderr).returncode == 0


def output(*command: str) -> str:
    """Return what a command prints, or nothing when it ends with an error."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def say(text: str) -> None:
    """Tell whoever waits."""
    print(f"run.py: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
