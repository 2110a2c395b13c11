"""Long work lets others have their turn, and comes to the same."""

import asyncio
import time
from collections.abc import Awaitable

import pytest

from douane.pauses import Paused, at_once, with_pauses


def work(pieces: int, seconds: float) -> Paused[int]:
    for _ in range(pieces):
        time.sleep(seconds)
        yield
    return pieces


async def turns(long: Awaitable[object]) -> int:
    """How often somebody else could go on while *long* was at work."""
    count = 0

    async def other() -> None:
        nonlocal count
        while True:
            await asyncio.sleep(0)
            count += 1

    going = asyncio.create_task(other())
    await asyncio.sleep(0)
    await long
    going.cancel()
    return count


def test_others_have_their_turn_after_a_millisecond() -> None:
    assert asyncio.run(turns(with_pauses(work(10, 0.002)))) >= 10


def test_short_work_does_not_rest() -> None:
    assert asyncio.run(turns(with_pauses(work(1, 0)))) <= 1


def test_it_comes_to_the_same() -> None:
    assert at_once(work(3, 0)) == asyncio.run(with_pauses(work(3, 0))) == 3


def test_what_it_raises_is_raised() -> None:
    def broken() -> Paused[int]:
        yield
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        asyncio.run(with_pauses(broken()))
    with pytest.raises(LookupError, match="gone"):
        at_once(broken())
