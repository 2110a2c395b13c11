"""The embedded ledger: one SQLite file that the processes of one machine share.

Rate limits stand in a file beside it, which is not synced.

Law: a reservation, or its refusal, is answered after its transaction is durable (WAL, ``synchronous=FULL``). What a call came
to is booked behind its end, and is never lost: it is owed while the file cannot be written, and follows from the audit log
where the process dies (``held``, ``recover``).
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from douane.errors import EnvironmentFailedError
from douane.ledger import limits
from douane.ledger.base import (
    Account,
    Alert,
    Balance,
    Demand,
    Held,
    LedgerUnavailableError,
    Limited,
    Refused,
    Slots,
    Spent,
    Stop,
    Take,
)
from douane.ledger.books import SCHEMA, About, Books, Numbers, known
from douane.ledger.limits import Limits
from douane.ledger.writer import PATIENT_MS, Writer, connect

__all__ = ["FILE", "SqliteLedger", "read_balances"]

FILE, LIMITS_FILE, OWNERS = "ledger.sqlite", "limits.sqlite", "owners"
VERSION, LIMITS_VERSION = 2, 1
_KEEP_SECONDS = 3600.0
"""How long a resolved reservation is remembered, so that it is not opened anew."""
_PRUNE_SECONDS = 5.0
_SWEEP_SECONDS = 60.0


class SqliteLedger:
    """A :class:`~douane.ledger.base.Store` in *folder*, made where it is missing. Raises EnvironmentFailedError."""

    def __init__(self, folder: Path, owner: str = "-") -> None:
        self.owner = owner
        self._folder = folder
        self._numbers: Numbers = {}
        self._pruned = self._swept = 0.0
        with contextlib.ExitStack() as undo:
            self._life = undo.enter_context(_living(folder, owner))
            self._books = Writer(folder / FILE, SCHEMA, VERSION, self._begin, self._done)
            undo.callback(self._books.close)
            self._limits = Writer(folder / LIMITS_FILE, limits.SCHEMA, LIMITS_VERSION, self._begin_limits, _nothing,
                                  durable=False)
            undo.callback(self._limits.close)
            self._limits.now(Limits.begin_anew)
            self._open = undo.pop_all()

    @property
    def failure(self) -> str:
        return self._books.failure or self._limits.failure

    def look_again(self) -> None:
        self._books.look_again(Books.touch)
        self._limits.look_again(Limits.touch)

    def close(self) -> None:
        self._open.close()

    # -- what is held ----------------------------------------------------------------------------------------------

    async def reserve(self, call: str, org: str, at: float, demands: Sequence[Demand]) -> Held | Refused:
        found: Held | Refused = await self._books.ask(
            lambda books: books.reserve(call, self.owner, at, demands), About(call, demands))
        return found

    def capture(self, call: str, org: str, spent: Spent) -> Awaitable[bool]:
        return self._books.owe(partial(Books.resolve, call=call, spent=spent), About(call))

    async def take(self, call: str, org: str, at: float, takes: Sequence[Take]) -> Limited | None:
        try:
            found: Limited | None = await self._limits.ask(partial(Limits.take, call=call, at=at, takes=takes))
        except (LedgerUnavailableError, asyncio.CancelledError):
            slots = [one for one in takes if isinstance(one.rule, Slots)]
            if slots:  # it may be done yet, and nobody would free them
                with contextlib.suppress(LedgerUnavailableError):  # it is closed, and they end with this process
                    self.give_back(call, org, at, slots)
            raise
        return found

    def give_back(self, call: str, org: str, at: float, takes: Sequence[Take]) -> Awaitable[None]:
        return self._limits.owe(partial(Limits.give_back, call=call, at=at, takes=takes))

    async def stops(self) -> frozenset[Stop]:
        found: frozenset[Stop] = await self._books.ask(Books.stops)
        return found

    async def stop(self, one: Stop) -> None:
        await self._books.ask(partial(Books.stop, one=one))

    async def resume(self, scope: str, name: str) -> bool:
        found: bool = await self._books.ask(partial(Books.resume, scope=scope, name=name))
        return found

    async def due(self, at: float, seconds: float) -> Sequence[Alert]:
        found: list[Alert] = await self._books.ask(partial(Books.due, at=at, seconds=seconds))
        return found

    async def sent(self, one: Alert) -> None:
        await self._books.ask(partial(Books.sent, one=one))

    # -- whose process died ----------------------------------------------------------------------------------------

    def owners(self) -> Sequence[str]:
        return [owner for owner, in self._read("SELECT DISTINCT owner FROM hold WHERE open")]

    def is_alive(self, owner: str) -> bool | None:
        return owner == self.owner or _lives(self._folder, owner)

    def held(self, owner: str) -> Mapping[str, int]:
        return dict(self._read("SELECT call, at FROM hold WHERE open AND owner=?", owner))

    def recover(self, owner: str, spent: Mapping[str, Spent]) -> int:
        found: int = self._books.now(lambda books: sum(books.resolve(call, came_to) for call, came_to in spent.items()))
        return found

    def balances(self, at: float) -> Sequence[Balance]:
        return read_balances(self._folder, at)

    async def beat(self) -> None:
        """The lock of the file system's says who lives."""

    def _read(self, query: str, *given: str) -> list[Any]:
        try:
            with contextlib.closing(connect(self._folder / FILE, PATIENT_MS, "ro")) as connection:
                return connection.execute(query, given).fetchall()
        except sqlite3.Error as error:
            raise EnvironmentFailedError(f"{self._folder / FILE}: the ledger cannot be read: {error}") from None

    # -- the writing threads ---------------------------------------------------------------------------------------

    def _begin(self, connection: sqlite3.Connection, requests: Sequence[About]) -> Books:
        if time.monotonic() - self._pruned > _PRUNE_SECONDS:
            self._pruned = time.monotonic()
            before = time.time() - _KEEP_SECONDS
            # ids begin with the time (gate.new_id): the range ends where those begin that are too young
            connection.execute("DELETE FROM hold WHERE call < ? AND at < ? AND NOT open",
                               (f"{int(before * 1000):012x}", int(before)))
        books = Books(connection, self._numbers)
        if requests:
            books.look(requests)
        return books

    def _done(self, books: Books) -> None:
        known(self._numbers, books.opened.items())

    def _begin_limits(self, connection: sqlite3.Connection, _: Sequence[object]) -> Limits:
        found = Limits(connection, self.owner, lambda owner: _lives(self._folder, owner))
        if time.monotonic() - self._swept > _SWEEP_SECONDS:
            self._swept = time.monotonic()
            found.sweep(time.time())
        return found


def _nothing(_: object) -> None:
    pass


@contextlib.contextmanager
def _living(folder: Path, owner: str) -> Iterator[None]:
    """Holds the lock that says that *owner* lives. Raises EnvironmentFailedError."""
    try:
        (folder / OWNERS).mkdir(mode=0o700, exist_ok=True)
        fd = os.open(folder / OWNERS / owner, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise EnvironmentFailedError(f"{folder / OWNERS / owner}: cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)  # whoever looks whether we live holds it for a moment
        yield
    finally:
        os.close(fd)


def _lives(folder: Path, owner: str) -> bool:
    try:
        fd = os.open(folder / OWNERS / owner, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def read_balances(folder: Path, at: float) -> list[Balance]:
    """Every account whose window holds *at*, and those with open reservations; the gateway may be running or not.

    Raises EnvironmentFailedError where the file cannot be read; empty where there is none."""
    path = folder / FILE
    if not path.exists():
        return []
    try:
        with contextlib.closing(connect(path, PATIENT_MS, "ro")) as connection:
            rows = connection.execute(
                "SELECT org, book, scope, name, unit, period, begins, ends, captured, reserved, ceiling FROM account"
                " WHERE reserved > 0 OR (begins <= ? AND (ends IS NULL OR ends > ?))"
                " ORDER BY org, scope, name, book, unit, ends IS NULL, ends - begins, begins", (at, at)).fetchall()
    except sqlite3.Error as error:
        raise EnvironmentFailedError(f"{path}: the ledger cannot be read: {error}") from None
    return [Balance(Account(*row[:8]), *row[8:]) for row in rows]
