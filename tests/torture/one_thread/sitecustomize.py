"""Loaded by a Python started with this folder on its path: what goes to a thread is done at once.

With one thread a system call has one number, so that a sweep over the numbers misses none.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def _at_once(
    _: ThreadPoolExecutor, call: Callable[..., Any], /, *arguments: Any, **named: Any
) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(call(*arguments, **named))
    except BaseException as error:  # noqa: BLE001  the caller of the future gets it
        future.set_exception(error)
    return future


ThreadPoolExecutor.submit = _at_once  # type: ignore[method-assign,assignment]
