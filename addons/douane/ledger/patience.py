"""How long somebody waits for the ledger.

Law: each waits ``ANSWER_SECONDS``, in the order in which they came: one timer is enough for all, where one for each call costs
more than its request."""

import asyncio
from collections import deque
from collections.abc import Callable

from douane.ledger.base import ANSWER_SECONDS

__all__ = ["Patience"]


class Patience[T]:
    """Of one event loop at a time; one that has ended leaves nobody who waits. *give_up* is called on the loop, for whom nobody
    has answered in time."""

    __slots__ = ("_give_up", "_loop", "_timer", "_waiting")

    def __init__(self, give_up: Callable[[T], None]) -> None:
        self._give_up = give_up
        self._waiting: deque[tuple[float, asyncio.Future[object], T]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, future: "asyncio.Future[object]", who: T) -> None:
        """*who* waits for *future* from now on."""
        loop = future.get_loop()
        if self._loop is not loop:
            self._loop, self._timer = loop, None
            self._waiting = deque(one for one in self._waiting if one[1].get_loop() is loop)
        until = loop.time() + ANSWER_SECONDS
        self._waiting.append((until, future, who))
        if self._timer is None:
            self._timer = loop.call_at(until, self._look)

    def end(self) -> list[T]:
        """Nobody is given up any more. Returns who is left."""
        if self._timer is not None:
            self._timer.cancel()
        left, self._waiting = [who for _, _, who in self._waiting], deque()
        return left

    def _look(self) -> None:
        loop, waiting = asyncio.get_running_loop(), self._waiting
        self._timer = None
        while waiting:
            until, future, who = waiting[0]
            if not future.done():
                if until > loop.time():
                    self._timer = loop.call_at(until, self._look)
                    return
                self._give_up(who)
            waiting.popleft()
