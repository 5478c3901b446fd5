"""`run.py`, with a stand-in for uv: no network, and every step of a set-up can be interrupted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("run.py", "pyproject.toml", "requirements.lock", "requirements-dev.lock")

# Stands in for uv: notes what it is asked for, makes an environment whose python repeats its
# arguments, and does what a test has put into `hook` at the moment of an installation.
UV = """#!/bin/sh
echo "$1" >> "$NOTES/calls"
if [ "$1" = venv ]; then
    for venv; do :; done
    mkdir -p "$venv/bin" "$venv/lib/python3.11/site-packages"
    printf '#!/bin/sh\\necho "$@"; env > "$NOTES/environment"; exit 7\\n' > "$venv/bin/python"
    chmod +x "$venv/bin/python"
else
    echo "$@" > "$NOTES/install"
    . "$NOTES/hook"
fi
"""


class Clone:
    """A copy of what run.py needs, with a path on which its uv stands first."""

    def __init__(self, place: Path) -> None:
        self.root = place / "clone of it"
        self.notes = place / "notes"
        for folder in (self.root, self.notes, place / "bin"):
            folder.mkdir()
        for name in FILES:
            shutil.copy(ROOT / name, self.root)
        (place / "bin/uv").write_text(UV)
        (place / "bin/uv").chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
            "NOTES": str(self.notes),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "",
        }
        self.hook("true")

    def hook(self, script: str) -> None:
        (self.notes / "hook").write_text(f"{script}\n")

    def without_ensurepip(self) -> None:
        """As in Debian's Python; a pip into each environment would take seconds."""
        modules = self.notes / "modules"
        modules.mkdir()
        (modules / "ensurepip.py").write_text("raise SystemExit(1)\n")
        self.environment["PYTHONPATH"] = str(modules)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.root / "run.py"), *arguments],
            env=self.environment,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[str, str, int]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return out, err, process.returncode

    def calls(self) -> list[str]:
        """What uv was asked for since the last look."""
        path = self.notes / "calls"
        found = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return found


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_first_start_sets_up_and_the_next_ones_do_not(clone: Clone) -> None:
    assert clone.run()[::2] == ("-m honcho start\n", 7)
    assert clone.calls() == ["venv", "pip"]
    assert clone.run() == ("-m honcho start\n", "", 7)
    assert clone.calls() == []


@pytest.mark.parametrize(
    ("command", "lock"),
    [
        ("start", "requirements.lock"),
        ("test", "requirements-dev.lock"),
        ("torture", "requirements-dev.lock"),
    ],
)
def test_packages_are_those_of_the_lock_file_checked_by_hash(
    clone: Clone, command: str, lock: str
) -> None:
    clone.run(command)
    asked = (clone.notes / "install").read_text()
    assert f"--require-hashes --no-deps -r {clone.root / lock}\n" in asked


def test_environment_of_the_pipeline_is_filled_for_the_tests_and_then_serves_both(
    clone: Clone,
) -> None:
    clone.run("start")
    clone.calls()
    for command, called in (("test", ["pip"]), ("start", []), ("test", []), ("start", [])):
        assert clone.run(command)[2] == 7
        assert clone.calls() == called


def test_project_itself_is_importable_from_its_source(clone: Clone) -> None:
    clone.run()
    link = clone.root / ".venv/lib/python3.11/site-packages/etl.pth"
    assert link.read_text() == f"{clone.root / 'src'}\n"


def test_arguments_behind_a_command_reach_it(clone: Clone) -> None:
    assert clone.run("test", "-k", "a b", "--lf")[0] == "-m pytest -n auto -k a b --lf\n"


def test_command_runs_inside_the_environment_at_the_root(clone: Clone) -> None:
    clone.run()
    lines = (clone.notes / "environment").read_text().splitlines()
    assert f"VIRTUAL_ENV={clone.root / '.venv'}" in lines
    assert f"PWD={clone.root}" in lines
    assert any(line.startswith(f"PATH={clone.root / '.venv/bin'}:") for line in lines)


def test_unknown_command_shows_the_usage(clone: Clone) -> None:
    out, err, code = clone.run("tests")
    assert (out, code) == ("", 2)
    assert "python3 run.py test" in err
    assert clone.calls() == []


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("start", "pyproject.toml"),
        ("start", "requirements.lock"),
        ("test", "pyproject.toml"),
        ("test", "requirements-dev.lock"),
    ],
)
def test_changed_dependencies_are_installed_into_the_same_environment(
    clone: Clone, command: str, name: str
) -> None:
    clone.run(command)
    clone.calls()
    with (clone.root / name).open("a") as file:
        file.write("# changed\n")
    (clone.root / ".venv/kept").touch()
    clone.run(command)
    assert clone.calls() == ["pip"]
    assert (clone.root / ".venv/kept").exists()


def test_moved_clone_is_set_up_again(clone: Clone) -> None:
    clone.run()
    clone.calls()
    clone.root = clone.root.rename(clone.root.with_name("elsewhere"))
    clone.run()
    assert clone.calls() == ["pip"]


def test_set_up_that_was_killed_is_redone_from_nothing(clone: Clone) -> None:
    clone.hook("touch .venv/half; kill -9 $PPID")
    assert clone.run()[2] == -9
    clone.hook("true")
    clone.calls()
    assert clone.run()[0] == "-m honcho start\n"
    assert clone.calls() == ["venv", "pip"]
    assert not (clone.root / ".venv/half").exists()


def test_update_that_was_killed_is_redone_from_nothing(clone: Clone) -> None:
    clone.run()
    (clone.root / "pyproject.toml").write_text("changed\n")
    clone.hook("kill -9 $PPID")
    clone.run()
    clone.hook("true")
    clone.calls()
    clone.run()
    assert clone.calls() == ["venv", "pip"]


def test_environment_of_someone_else_is_kept_and_filled(clone: Clone) -> None:
    clone.run()
    clone.calls()
    (clone.root / ".venv/etl-stamp").unlink()
    (clone.root / ".venv/theirs").touch()
    clone.run()
    assert clone.calls() == ["pip"]
    assert (clone.root / ".venv/theirs").exists()


def test_environment_whose_python_is_gone_is_made_anew(clone: Clone) -> None:
    clone.run()
    clone.calls()
    (clone.root / ".venv/bin/python").unlink()
    clone.run()
    assert clone.calls() == ["venv", "pip"]


def test_two_starts_at_once_set_up_once(clone: Clone) -> None:
    os.mkfifo(clone.notes / "gate")
    clone.hook('cat "$NOTES/gate" > /dev/null')
    first = clone.start()
    with (clone.notes / "gate").open("w"):  # open: the first one is in the middle of its set-up
        second = clone.start()
        assert second.stderr is not None
        assert "waiting for the set-up" in second.stderr.readline()
    for process in (first, second):
        assert process.communicate(timeout=60)[0] == "-m honcho start\n"
    assert clone.calls() == ["venv", "pip"]


def test_packages_that_can_not_be_had_are_a_clear_end_and_no_stamp(clone: Clone) -> None:
    clone.hook("exit 1")
    clone.without_ensurepip()
    out, err, code = clone.run()
    assert (out, code) == ("", 1)
    assert "could not be installed" in err
    assert "Traceback" not in err
    clone.hook("true")
    assert clone.run()[0] == "-m honcho start\n"


def test_older_python_and_other_systems_are_told_so() -> None:
    for change, told in (
        ("sys.version_info = (3, 10, 1)", "this is Python 3.10, but 3.11 or newer is needed"),
        ("sys.platform = 'darwin'", "darwin is not supported; Linux is"),
    ):
        script = f"import runpy, sys; {change}; runpy.run_path({str(ROOT / 'run.py')!r})"
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 1
        assert told in ran.stderr
