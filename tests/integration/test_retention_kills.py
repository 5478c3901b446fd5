"""Retention, killed at each of its steps, cut off the power, frozen, and two at once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from etl.apply.retention import LOCK_FILE_NAME
from etl.log.names import list_names
from etl.runtime.files import Lock
from etl.sink import offsets
from support.database import connected
from support.hearing import hearing
from support.platter import Killed, Platter
from support.retention import KEEP_ALL, KEEP_NOTHING, Applied, applied

pytestmark = pytest.mark.asyncio


@pytest.fixture
def platter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platter:
    (tmp_path / "data").mkdir(mode=0o700)
    return Platter(tmp_path / "data", monkeypatch)


@pytest_asyncio.fixture
async def log(database_url: str, tmp_path: Path, platter: Platter) -> AsyncIterator[Applied]:
    assert platter
    async with applied(tmp_path / "data", database_url) as log:
        yield log


class Steps:
    """Every change that retention makes, and one at which it is killed: before or right after."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left, self.after, self.made = 0, False, 0
        for owner, name in (
            (os, "write"),
            (os, "fsync"),
            (Path, "replace"),
            (Path, "unlink"),
        ):
            patch.setattr(owner, name, self._striking(getattr(owner, name)))
        delete = offsets.delete

        async def deletes(*arguments: object) -> None:
            self._strike(after=False)
            await delete(*arguments)  # type: ignore[arg-type]
            self._strike(after=True)

        patch.setattr(offsets, "delete", deletes)

    def kill_at(self, number: int, *, after: bool) -> None:
        self.left, self.after, self.made = number, after, 0

    def _striking(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            self._strike(after=False)
            result = real(*arguments, **options)
            self._strike(after=True)
            return result

        return call

    def _strike(self, *, after: bool) -> None:
        if not after:
            self.made += 1
        if self.made == self.left and after == self.after:
            self.left = 0
            raise Killed


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("power", [False, True])
async def test_killed_at_any_step_a_start_goes_on_and_nothing_is_left_over(
    log: Applied, platter: Platter, monkeypatch: pytest.MonkeyPatch, *, after: bool, power: bool
) -> None:
    await log.grow(3)
    steps = Steps(monkeypatch)
    number = 0
    while True:
        number += 1
        log.append(2)
        steps.kill_at(0, after=after)
        await log.applied()
        killed = False
        async with connected(log.url) as connection:
            retention = await log.retention(connection, KEEP_NOTHING)
            steps.kill_at(number, after=after)
            try:
                await retention.run()
            except Killed:
                killed = True
        steps.kill_at(0, after=after)
        if power:
            platter.cut_power(number)
            log.restart()
        await log.delete(KEEP_ALL)
        if not killed:
            break
        await log.require_laws()
    assert number > 8
    await log.require_laws()


async def test_one_that_is_frozen_at_it_keeps_others_from_deleting_and_not_from_applying(
    log: Applied,
) -> None:
    await log.grow(6)
    frozen = Lock(log.directory / LOCK_FILE_NAME, role="retention").acquire()
    with hearing() as heard:
        assert await log.delete(KEEP_NOTHING) == []
        assert heard.count("nothing is deleted: retention with pid") == 1
    frozen.release()
    assert len(await log.delete(KEEP_NOTHING)) == 4
    await log.require_laws()


async def test_two_at_once_sum_up_each_partition_once(log: Applied) -> None:
    await log.grow(6)
    async with connected(log.url) as other:
        first = await log.retention(log.database.connection, KEEP_NOTHING)
        second = await log.retention(other, KEEP_NOTHING)
        assert len(await first.run()) == 4
        assert await second.run() == []
        log_id = (log.directory / "log_id").read_text().strip()
        await offsets.delete(other, log_id, list_names(log.directory)[:1])
        await offsets.delete(log.database.connection, log_id, list_names(log.directory)[:1])
    assert await log.database.applied() == log.lines
