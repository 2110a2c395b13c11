"""What a process does beside its calls: hears of emergency stops, sends alerts, says that it lives, settles for the dead.

Law: nothing here is on a call's path, and what fails is tried again; it is said once, and once when it is well again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from douane.alerts import Courier
from douane.audit import record
from douane.audit.read import last_words, reaches_back
from douane.errors import DouaneError, EnvironmentFailedError
from douane.gate import Gate
from douane.ledger.base import NOTHING_SPENT, LedgerUnavailableError, Spent, Store
from douane.ledger.charge import UNKNOWN, recorded
from douane.logs import where

__all__ = ["Duties", "recover"]

log = logging.getLogger("douane.gateway")

STOPS_SECONDS = 0.5
"""An emergency stop holds within a second, on every node."""
BEAT_SECONDS = 5.0
ALERT_SECONDS = 2.0
LOOK_SECONDS = 10.0
RECOVER_SECONDS = 30.0


class Duties:
    """``start`` on the loop, ``stop`` before the files are closed. *courier*: its channels may be exchanged."""

    def __init__(self, gate: Gate, store: Store, audit: Path, courier: Courier,
                 note: Callable[[dict[str, Any]], Coroutine[Any, Any, None]]) -> None:
        self._gate, self._store, self._audit, self._note = gate, store, audit, note
        self.courier = courier
        self._tasks: list[asyncio.Task[None]] = []
        self._failing: dict[str, str] = {}

    async def start(self) -> None:
        """Raises EnvironmentFailedError where nobody can say what is stopped."""
        try:
            await self.hear_stops()
        except LedgerUnavailableError as error:
            raise EnvironmentFailedError(f"the ledger cannot be read: {error.reason}") from None
        for work, seconds in ((self.hear_stops, STOPS_SECONDS), (self._store.beat, BEAT_SECONDS),
                              (self._send, ALERT_SECONDS), (self._look, LOOK_SECONDS),
                              (self._settle_for_the_dead, RECOVER_SECONDS)):
            self._tasks.append(asyncio.get_running_loop().create_task(self._every(seconds, work)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def hear_stops(self) -> None:
        """Raises LedgerUnavailableError; what is in force stays so."""
        new, gone = self._gate.stops.update(await self._store.stops())
        for stops, name in ((new, "stopped"), (gone, "resumed")):
            for one in stops:
                log.warning("calls are %s", name, extra={"scope": one.scope, "name_": one.name, "running": one.running})
                await self._note(record.event(name, self._gate.clock(), scope=one.scope, whose=one.name, running=one.running))

    async def _send(self) -> None:
        wrong = await self.courier.round(self._gate.clock())
        if wrong:
            raise DouaneError("; ".join(wrong))

    async def _look(self) -> None:
        self._gate.observer.budgets(await asyncio.to_thread(self._store.balances, self._gate.clock()))

    async def _settle_for_the_dead(self) -> None:
        await asyncio.to_thread(recover, self._store, self._audit)

    async def _every(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        name = work.__name__
        while True:
            try:
                await work()
            except DouaneError as error:
                if self._failing.get(name) is None:
                    log.error("%s", error, extra={"duty": name})
                self._failing[name] = str(error)
            else:
                if self._failing.pop(name, None) is not None:
                    log.info("works again", extra={"duty": name})
            await asyncio.sleep(seconds)


def _made(call: str, second: int) -> float:
    """When *call* was, to the millisecond, which its id begins with (``gate.new_id``); a ledger has the second. What was held
    in the first second of a log would else stay held for ever."""
    with contextlib.suppress(ValueError):
        moment = int(call[:12], 16) / 1000
        if int(moment) == second:
            return moment
    return second


def recover(ledger: Store, folder: Path, *, starting: bool = False) -> None:
    """Book what gateways that died had not: calls whose outcome is recorded at what that says, calls without one at what they
    reserved. A call of which no log of *folder* knows, though they reach so far back, never left: what it holds is void. Of one
    whose gateway keeps its log elsewhere nobody knows better: it stays charged. *starting*: nothing of our own runs yet.
    Raises EnvironmentFailedError."""
    for owner in ledger.owners():
        held = ledger.held(owner)  # before it is asked whether it lives: whoever begins meanwhile has calls that run
        if not starting if owner == ledger.owner else ledger.is_alive(owner):
            continue
        here = (folder / owner.partition("@")[0]).is_dir()
        told = last_words(folder, held)
        spent: dict[str, Spent] = {}
        for call, at in held.items():
            said = told.get(call)
            if said is None:
                if not here:
                    spent[call] = UNKNOWN
                elif reaches_back(folder, _made(call, at)):
                    spent[call] = NOTHING_SPENT
            elif said["kind"] != "outcome":
                spent[call] = UNKNOWN
            else:
                try:
                    spent[call] = recorded(said)
                except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                    log.warning("an outcome cannot be booked, and what it held stays: %s", where(error),
                                extra={"douane_id": call})
        ledger.recover(owner, spent)


