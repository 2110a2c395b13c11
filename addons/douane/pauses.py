"""Long work in the event loop's own thread, with pauses in which others have their turn.

Law: the loop is held for about a millisecond at once, however large the call. Work that may take longer is a generator that
yields where it may rest; short work never rests, which costs a look at the clock for each yield."""

import asyncio
from collections.abc import Generator
from time import perf_counter

__all__ = ["OFTEN", "Paused", "at_once", "with_pauses"]

type Paused[T] = Generator[None, None, T]
"""Yields where it may rest, and returns what it comes to."""

OFTEN = 64
"""Small pieces of work, of some microseconds each, after which to yield."""
_AT_ONCE = 0.001
"""Seconds."""


async def with_pauses[T](work: Paused[T]) -> T:
    """What *work* comes to. Where it has taken a millisecond, others have their turn."""
    began = perf_counter()
    while (done := _step(work)) is None:
        if perf_counter() - began > _AT_ONCE:
            await asyncio.sleep(0)
            began = perf_counter()
    result: T = done.value
    return result


def at_once[T](work: Paused[T]) -> T:
    """What *work* comes to, without a pause."""
    while (done := _step(work)) is None:
        pass
    result: T = done.value
    return result


def _step(work: Paused[object]) -> StopIteration | None:
    """Go on to the next yield; what *work* ended with, where there is none."""
    try:
        next(work)
    except StopIteration as done:
        return done
    return None
