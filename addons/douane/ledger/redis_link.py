"""A server of Redis', reached whenever it can be.

Law: one attempt to connect at a time, with pauses that grow to a second; requests never start one of their own. What waits in
one turn of the event loop leaves in one write. What is owed survives the connection and goes first on the next; a request that
may be sent twice is sent again; any other fails with its connection. A server that is silent gets nothing more to do until it
speaks, so that one which was frozen finds little of what nobody waits for any more.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis

from douane.ledger.base import ANSWER_SECONDS, LedgerUnavailableError
from douane.ledger.redis_line import Line, Wish, code_of

__all__ = ["CONNECT_SECONDS", "Link", "UnreachableError", "fail"]

CONNECT_SECONDS = 1.0
_DEAD_SECONDS = 1.0
"""Of silence, after which the connection is given up: the next one is answered sooner."""
_PAUSES = (0.05, 1.0)
_TICK_SECONDS = 0.25
_BATCH = 1000
_QUIET_SECONDS = 10.0
"""Between two lines in the log which say that the ledger fails."""

_READS = frozenset({"HGETALL", "SMEMBERS"})
"""A server that does no more than these still fails."""

log = logging.getLogger(__name__)


class UnreachableError(Exception):
    """There is a server, but it does not let us in. No secret stands in it."""


class Link:
    """*dial*: opens a :class:`Line` to the server and greets it; raises OSError, UnreachableError. *moved*: gets a wish that
    belongs to another server, and says whether it takes it; *down*: called when the server cannot be reached."""

    def __init__(self, name: str, dial: Callable[[], Awaitable[Line]], moved: Callable[[Wish], bool],
                 down: Callable[[], None]) -> None:
        self.failure = ""
        """Why the last request failed; empty after one that did not."""
        self._name, self._dial, self._moved, self._down = name, dial, moved, down
        self._queue: list[Wish] = []
        self._sulking: list[Wish] = []
        """Owed, and refused by the server: tried again at the next tick."""
        self._line: Line | None = None
        self._refusing = False
        """The last attempt to connect has failed."""
        self._flushing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._said = -_QUIET_SECONDS
        self._told = False

    def put(self, wish: Wish) -> None:
        """Send it; on the loop."""
        if self._loop is None or self._keeper is None or self._keeper.done():
            self.open()
        if self._refusing and not wish.owed:
            fail(wish, "cannot be reached")
            return
        self._queue.append(wish)
        self._soon()

    def open(self) -> None:
        """Connect, where no connection is being kept; on the loop."""
        self._loop = asyncio.get_running_loop()
        if self._keeper is None or self._keeper.done() or self._keeper.get_loop() is not self._loop:
            self._flushing = self._refusing = False
            self._keeper = self._loop.create_task(self._keep())

    def close(self) -> None:
        """On any thread, or after the loop has ended. What waits stays: :meth:`rest`."""
        if self._keeper is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._keeper.cancel)

    def rest(self) -> list[Wish]:
        """Takes what has not been sent."""
        found, self._queue, self._sulking = [*self._sulking, *self._queue], [], []
        return found

    # -- keeping the connection --------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        try:
            await self._connect()
        finally:
            for wish in (*self._queue, *self._sulking):
                wish.future.cancel()  # the loop ends, and what is owed stays so without it

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            began = loop.time()
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    line = await self._dial()
            except TimeoutError:
                self._unreachable("does not answer")
            except (OSError, UnreachableError) as error:
                self._unreachable(str(error) or type(error).__name__)
            else:
                try:
                    self._up(line)
                    await self._watch(line)
                finally:
                    line.abort()
                    self._lost(line)
            pause = 0.0 if loop.time() - began > _DEAD_SECONDS else min(max(pause * 2, _PAUSES[0]), _PAUSES[1])
            if pause or self._refusing:
                await asyncio.sleep((pause or _PAUSES[0]) * random.uniform(0.75, 1.0))  # noqa: S311

    def _unreachable(self, why: str) -> None:
        self._refusing = True
        self._fails(why)
        waiting, self._queue = self._queue, []
        for wish in waiting:
            if wish.owed:
                self._queue.append(wish)
            else:
                fail(wish, "cannot be reached")
        self._down()

    def _up(self, line: Line) -> None:
        self._line, self._refusing = line, False
        line.answered, line.ready = self._answered, self._soon
        self._works()
        self._queue = sorted([*self._sulking, *self._queue], key=lambda wish: not wish.owed)  # what is owed goes first
        self._sulking = []
        self._flush()

    async def _watch(self, line: Line) -> None:
        """Until it is lost."""
        while not line.lost.done():
            await asyncio.wait([line.lost], timeout=_TICK_SECONDS)
            if line.silence > ANSWER_SECONDS:
                self._fails("does not answer")
            if line.silence > _DEAD_SECONDS:
                return
            if self._sulking:
                self._queue += self._sulking
                self._sulking = []
            self._soon()

    def _lost(self, line: Line) -> None:
        self._line = None
        again = []
        for wish in line.flying:
            if (wish.owed or not wish.future.done()) and wish.repeat is not None:
                wish.command = wish.repeat
                again.append(wish)
                continue
            fail(wish, "has lost the connection")
            if wish.then is not None:
                wish.then(wish, None)
        self._queue = again + self._queue

    # -- what travels ------------------------------------------------------------------------------------------------

    def _soon(self) -> None:
        if self._queue and not self._flushing and self._line is not None and self._loop is not None:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        line = self._line
        while self._queue and line is not None and line.writable and line.silence <= ANSWER_SECONDS and not line.lost.done():
            batch, self._queue = self._queue[:_BATCH], self._queue[_BATCH:]
            wishes = [wish for wish in batch if wish.owed or not wish.future.done()]
            for wish in wishes:
                wish.sent = True
            if wishes:
                line.send(wishes)

    def _answered(self, wish: Wish, answer: Any) -> None:
        if isinstance(answer, hiredis.ReplyError):
            self._refused(wish, answer)
            return
        if self.failure and wish.command[0] not in _READS:
            self._works()
        if wish.then is not None:
            wish.then(wish, answer)
        elif not wish.future.done():
            wish.future.set_result(answer)

    def _refused(self, wish: Wish, error: Exception) -> None:
        """The server did not do it."""
        code = code_of(error)
        if code == "NOSCRIPT" and not wish.whole:
            wish.whole = True
            self._queue.append(wish)
            self._soon()
            return
        if code in ("MOVED", "ASK") and self._moved(wish):
            return
        if wish.owed:
            self._sulking.append(wish)
        self._fails(str(error))
        fail(wish, f"says {code}")
        if code in ("READONLY", "LOADING", "MASTERDOWN") and self._line is not None:
            self._line.abort()  # another server may be the one to ask

    def _fails(self, why: str) -> None:
        self.failure = f"{self._name}: {why}"
        now = asyncio.get_running_loop().time()
        if not self._told and now - self._said > _QUIET_SECONDS:
            self._said, self._told = now, True
            log.warning("the ledger fails, and calls that need it are refused: %s", self.failure)

    def _works(self) -> None:
        self.failure = ""
        if self._told:
            self._told = False
            log.warning("the ledger answers again: %s", self._name)


def fail(wish: Wish, why: str) -> None:
    """Whoever waits for it need not any more; what is owed stays owed."""
    if not wish.future.done():
        wish.future.set_exception(LedgerUnavailableError(f"the ledger {why}"))
        wish.future.exception()  # which nobody need look at
