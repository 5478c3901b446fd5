"""Small files: replaced whole or not at all, and locks that name their owner."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from etl.runtime.errors import EtlError, InUseError
from etl.runtime.files import (
    Lock,
    make_private_directory,
    remove_temporaries,
    replace,
    write_all,
)
from support.limits import files_no_larger_than

OLD, NEW = b"old" * 1_000, b"new!" * 2_000

# Kills a child before and after every call that `replace` makes into C, one child for each.
KILLED_EVERYWHERE = """
import os, signal, sys
from pathlib import Path
from etl.runtime.files import replace

path, old, new = Path(sys.argv[1]), b"old" * 1_000, b"new!" * 2_000

def child(calls):
    def count(frame, event, function):
        nonlocal calls
        if event.startswith("c_"):
            calls -= 1
            if calls < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(count)
    replace(path, new)
    os._exit(0)

for calls in range(10_000):
    path.write_bytes(old)
    pid = os.fork()
    if not pid:
        child(calls)
    _, status = os.waitpid(pid, 0)
    print({old: "old", new: "new"}.get(path.read_bytes(), "torn"))
    if not status:
        break
"""

HOLDER = """
import sys
from pathlib import Path
from etl.runtime.files import Lock
lock = Lock(Path(sys.argv[1]), role="server").acquire()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_file_replaced_by_a_process_killed_anywhere_is_the_old_or_the_new_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.json"
    ran = subprocess.run(
        [sys.executable, "-c", KILLED_EVERYWHERE, path], capture_output=True, text=True, check=True
    )
    found = ran.stdout.split()
    assert found == sorted(found, reverse=True)  # old ones, then new ones
    assert set(found) == {"old", "new"}
    assert found.count("old") > 10
    left = sorted(tmp_path.iterdir())
    assert len(left) > 1  # what the killed ones left behind
    remove_temporaries(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == NEW


def test_temporaries_of_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("state.json.1.tmp", "other.json.1.tmp", "state.json"):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path / "state.json")
    assert {path.name for path in tmp_path.iterdir()} == {"other.json.1.tmp", "state.json"}


def test_failed_replacement_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    replace(path, OLD)
    with files_no_larger_than(len(NEW) - 1), pytest.raises(OSError, match="too large"):
        replace(path, NEW)
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed from now on, in its order."""
    done: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def noted_fsync(fd: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{fd}').readlink().name}")
        fsync(fd)

    def noted_replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    return done


def test_replacement_is_durable_before_it_is_visible_and_then_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = synced(monkeypatch)
    replace(tmp_path / "state.json", NEW)
    assert done == [f"sync state.json.{os.getpid()}.tmp", "rename", f"sync {tmp_path.name}"]


def test_replacement_that_need_not_last_is_atomic_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = synced(monkeypatch)
    replace(tmp_path / "mirror.json", NEW, durable=False)
    assert done == ["rename"]


def test_replaced_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    replace(path, NEW)
    assert path.stat().st_mode & 0o777 == 0o600


def test_short_write_goes_on_and_an_error_after_it_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        with files_no_larger_than(1_000), pytest.raises(OSError, match="too large"):
            write_all(fd, NEW)
        assert path.stat().st_size == 1_000
        write_all(fd, memoryview(NEW)[1_000:])
    finally:
        os.close(fd)
    assert path.read_bytes() == NEW


def test_directory_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data"
    make_private_directory(path)
    make_private_directory(path)
    assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702, 0o770, 0o775, 0o720])
def test_directory_that_others_can_write_is_refused_with_a_remedy(
    tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "data"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(EtlError, match=f"written by others, mode {mode:04o}; .*chmod 700"):
        make_private_directory(path)
    path.chmod(0o700)
    make_private_directory(path)


def test_directory_that_others_can_only_list_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    path.chmod(0o755)
    make_private_directory(path)
    assert path.stat().st_mode & 0o777 == 0o755


def test_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data"
    make_private_directory(path)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(EtlError, match=f"belongs to the user with id {owner}, not to {owner + 1}"):
        make_private_directory(path)


def test_directory_that_is_a_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(EtlError, match=r"can't be used as data directory.*ETL_DATA_DIR"):
        make_private_directory(tmp_path / "data")


def test_lock_in_use_names_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "server.lock"
    with holder(path) as process:
        lock = Lock(path, role="server")
        assert not lock.try_acquire()
        with pytest.raises(InUseError) as refusal:
            lock.acquire()
        assert str(refusal.value) == (
            f"{tmp_path}/ is in use by server with pid {process.pid}; "
            "stop it, or give this server another ETL_DATA_DIR"
        )


def test_lock_of_a_killed_process_is_free_whatever_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "server.lock"
    with holder(path):
        path.write_text("an owner with a much longer name 4294967296\nand more\n")
    lock = Lock(path, role="processor").acquire()
    assert lock.owner() == f"processor with pid {os.getpid()}"
    lock.release()


def test_lock_is_one_at_a_time_also_within_a_process(tmp_path: Path) -> None:
    first, second = (Lock(tmp_path / "lock", role=role) for role in ("first", "second"))
    first.acquire()
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    first.release()
    assert second.try_acquire()
    second.release()


def test_lock_is_not_inherited_by_a_program_that_is_started(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", role="first").acquire()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False):
        lock.release()
        other = Lock(tmp_path / "lock", role="other")
        assert other.try_acquire()
        other.release()


def test_owner_that_wrote_nothing_yet_is_another_process(tmp_path: Path) -> None:
    assert Lock(tmp_path / "lock", role="x").owner() == "another process"
    (tmp_path / "lock").touch()
    assert Lock(tmp_path / "lock", role="x").owner() == "another process"
