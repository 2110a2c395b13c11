"""Waiting with an end, at no cost where there is nothing to wait for."""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["at_once_or_within", "is_cancelled"]


async def at_once_or_within[T](seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """*work*'s result. Raises TimeoutError where it takes longer than *seconds*. A timer is set only for what does not
    come to its end without waiting, as most policies do: it costs more than they."""
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    async with asyncio.timeout(seconds):
        return await _rest(work, waits_for)


@types.coroutine
def _rest[T](work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """``await work``, for work that has begun and now waits."""
    try:
        while True:
            try:
                sent = yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - passed on to where it belongs
                waits_for = work.throw(thrown)
            else:
                waits_for = work.send(sent)
    except StopIteration as done:
        result: T = done.value
        return result


def is_cancelled() -> bool:
    """Whether a CancelledError at hand is meant for this task, and not one that a policy raised by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
