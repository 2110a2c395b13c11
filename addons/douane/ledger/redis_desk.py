"""Where the requests of calls are handed in.

Law: whoever hands one in has an answer or a refusal within ``ANSWER_SECONDS``, whatever becomes of the request. What is owed is
kept until it is done, up to a bound, and is tried once more when the desk closes.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from douane.errors import EnvironmentFailedError
from douane.ledger.base import ANSWER_SECONDS, LedgerUnavailableError
from douane.ledger.patience import Patience
from douane.ledger.redis_cluster import Route
from douane.ledger.redis_keys import Command, Script
from douane.ledger.redis_line import Wish
from douane.ledger.redis_link import fail

__all__ = ["TOO_LATE", "Desk", "wish"]

OWED = 100_000
"""What goes beyond is not kept: the audit log tells what to book."""
TOO_LATE = f"the ledger did not answer within {ANSWER_SECONDS:g} s"


def wish(script: Script | None, command: Command, repeat: Command | None) -> Wish:
    return Wish(command, asyncio.get_running_loop().create_future(), script, repeat)


class Desk:
    """Methods raise LedgerUnavailableError where it is closed."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.closed = False
        self.owed: dict[Wish, Script] = {}
        self._patience = Patience[Wish](_too_late)

    @property
    def failure(self) -> str:
        return self.route.failure

    def check(self) -> None:
        if self.closed:
            raise LedgerUnavailableError("the ledger is closed")

    async def ask(self, asked: Wish) -> Any:
        """Its answer. Raises LedgerUnavailableError in time; it may be done all the same."""
        self.put(asked)
        return await asked.future

    async def now(self, *command: str) -> Any:
        """The answer to a command that may be sent twice."""
        return await self.ask(wish(None, command, command))

    def owe(self, asked: Wish, script: Script) -> None:
        """In line when this returns; :meth:`paid` when it is done."""
        self.check()
        if len(self.owed) >= OWED:
            fail(asked, "is owed too much")
            return
        self.owed[asked] = script
        self.put(asked)

    def paid(self, asked: Wish) -> None:
        self.owed.pop(asked, None)

    def put(self, asked: Wish) -> None:
        """Send it, and refuse it when it has taken too long."""
        self.check()
        self._patience.begin(asked.future, asked)
        self.route.put(asked)

    def close(self, run: Callable[[Sequence[tuple[Script, Command]]], Sequence[Any]]) -> None:
        """*run*: does scripts on a connection of its own, and raises EnvironmentFailedError. Idempotent."""
        if self.closed:
            return
        self.closed = True
        owed, self.owed = self.owed, {}
        again = {one: command for one in owed if (command := one.repeat if one.sent else one.command) is not None}
        try:
            answers = run([(owed[one], command) for one, command in again.items()]) if again else ()
        except EnvironmentFailedError:  # it is booked at the next start
            answers = ()
        for one, answer in zip(again, answers, strict=False):
            if answer in (0, 1):
                _end(one, done=answer == 1)
        for one in (*owed, *self._patience.end()):
            _end(one)
        self.route.close()


def _too_late(asked: Wish) -> None:
    fail(asked, TOO_LATE.removeprefix("the ledger "))


def _end(asked: Wish, *, done: bool | None = None) -> None:
    """None: nobody knows. A loop that has ended is told nothing."""
    if asked.future.done() or asked.future.get_loop().is_closed():
        return
    if done is None:
        fail(asked, "is closed")
    else:
        asked.future.set_result(done)
