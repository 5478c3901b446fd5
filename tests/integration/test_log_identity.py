"""The log id: made once, and never a second time beside the log it belongs to."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from etl.log.identity import FILE_NAME, read_or_make_log_id
from etl.runtime.errors import CorruptError
from support.database import prepared
from support.logs import Log, batch
from support.processing import processor_process


def test_log_id_stays_what_it_was_made(tmp_path: Path) -> None:
    assert read_or_make_log_id(tmp_path) == read_or_make_log_id(tmp_path)


def test_log_id_that_is_gone_from_a_log_is_not_made_anew(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append(batch(1, 2))
    log.close()
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(CorruptError, match="log_id is gone, but the log is there"):
        read_or_make_log_id(tmp_path)
    assert not (tmp_path / FILE_NAME).exists()


@pytest.mark.asyncio
async def test_processor_counts_nothing_again_while_the_log_id_is_gone(
    database_url: str, tmp_path: Path
) -> None:
    log = Log(tmp_path)
    log.append(batch(1, 2))
    log.close()
    path = tmp_path / FILE_NAME
    async with prepared(database_url) as database:
        with processor_process(tmp_path, database_url):
            await database.until_applied(2)
        kept = path.read_bytes()
        path.unlink()
        with processor_process(tmp_path, database_url) as process:
            assert process.stderr is not None
            while "log_id is gone" not in await asyncio.to_thread(process.stderr.readline):
                assert process.poll() is None
            assert not path.exists()
            path.write_bytes(kept)
            log = Log(tmp_path)
            log.append(batch(3))
            log.close()
            await database.until_applied(3)


def test_log_id_is_made_where_files_need_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def without_nameless_files(path: object, flags: int, *rest: object) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *rest)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(os, "open", without_nameless_files)
    assert read_or_make_log_id(tmp_path) == read_or_make_log_id(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
