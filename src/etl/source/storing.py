"""Blocking file calls, off the event loop, and patient where the client's own files are written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from etl.runtime.backoff import Backoff

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


async def in_thread(call: Callable[[], _T]) -> _T:
    """Run a blocking call in a thread; when cancelled, wait for it first: no two ever overlap."""
    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


async def persist(name: str, call: Callable[[], _T]) -> _T:
    """Write a file of the client's own; a full disk is waited for, without a last attempt."""
    backoff = Backoff()
    while True:
        try:
            result = await in_thread(call)
        except OSError as error:
            if not backoff.failures:
                logger.error("%s can't be written: %s; trying again", name, error.strerror)  # noqa: TRY400  answered
            await asyncio.sleep(backoff.next_s())
        else:
            if backoff.failures:
                logger.info("%s is written again", name)
            return result
