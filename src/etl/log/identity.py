"""The log id: which log the offsets in a database belong to.

Format: `log_id` holds 32 hexadecimal digits and a line break. Made once, by the first process that
opens the directory, and never changed: a wiped directory is another log.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from etl.runtime.errors import CorruptError
from etl.runtime.files import FILE_MODE, sync_directory, write_all

FILE_NAME = "log_id"
_FORMAT = re.compile(r"[0-9a-f]{32}\n")


def read_or_make_log_id(directory: Path) -> str:
    """Return the id of the log in `directory`; of several processes that make it at once, one wins.

    Raises:
        CorruptError: the file holds something else.
    """
    path = directory / FILE_NAME
    if not path.exists():
        _make(path)
    text = path.read_text(errors="replace")
    if not _FORMAT.fullmatch(text):
        raise CorruptError(
            f"{path} does not hold a log id, value {text[:40]!r}",
            hint="restore it from a copy, or from partition_offsets.log_id in the database",
        )
    return text.strip()


def _make(path: Path) -> None:
    temporary = path.with_name(f"{FILE_NAME}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        write_all(fd, f"{secrets.token_hex(16)}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass  # another process was first, and its id is the log's
    finally:
        temporary.unlink()
    sync_directory(path.parent)
