"""The log id: which log the offsets in a database belong to.

Format: `log_id` holds 32 hexadecimal digits and a line break. Made once, by the first process that
opens the directory, and never changed: a wiped directory is another log. Where only the id is gone
none is made, because under another one every event of the log would be counted again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from pathlib import Path

from etl.log import watermark as watermark_file
from etl.runtime.errors import CorruptError, EtlError
from etl.runtime.files import FILE_MODE, sync_directory, write_all

FILE_NAME = "log_id"
_HINT = "restore it from a copy, or from partition_offsets.log_id in the database"
_FORMAT = re.compile(r"[0-9a-f]{32}\n")


def read_or_make_log_id(directory: Path) -> str:
    """Return the id of the log in `directory`; of several processes that make it at once, one wins.

    Raises:
        CorruptError: the file holds something else, or is gone from a log that had it.
        EtlError: it can't be made, or not be made durable.
    """
    path = directory / FILE_NAME
    try:
        if not path.exists():
            _refuse_beside_log(path)
            _make(path)
        # Also where another process made it: offsets under an id that a power cut takes back
        # would be those of another log.
        sync_directory(directory)
        text = path.read_text(errors="replace")
    except OSError as error:
        raise EtlError(f"{path} can't be made: {error.strerror}") from error
    if not _FORMAT.fullmatch(text):
        raise CorruptError(
            f"{path} does not hold a log id, value {text[:40]!r}",
            hint=_HINT,
        )
    return text.strip()


def _refuse_beside_log(path: Path) -> None:
    """Refuse to make an id where a server of ours has been, which had one."""
    if (path.parent / watermark_file.FILE_NAME).exists() and not path.exists():
        raise CorruptError(f"{path} is gone, but the log is there", hint=_HINT)


def _make(path: Path) -> None:
    """Write the file before it gets its name, so that nobody ever reads half of it."""
    fd, unnamed = _new_file(path)
    try:
        write_all(fd, f"{secrets.token_hex(16)}\n".encode())
        os.fsync(fd)
        with contextlib.suppress(FileExistsError):  # another was first, and its id is the log's
            # With a descriptor beside the path Python calls linkat, which alone follows /proc here.
            os.link(unnamed, path, src_dir_fd=fd, follow_symlinks=True)
    finally:
        os.close(fd)
        if unnamed.parent != Path("/proc/self/fd"):
            unnamed.unlink(missing_ok=True)


def _new_file(path: Path) -> tuple[int, Path]:
    """Return an open file and what to link it by: nameless, where the file system knows such."""
    try:
        fd = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:
            raise
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return os.open(temporary, flags, FILE_MODE), temporary.absolute()
    return fd, Path(f"/proc/self/fd/{fd}")
