"""The embedded ledger: one SQLite file that the processes of one machine share.

Law: a method answers after its transaction is durable (WAL, ``synchronous=FULL``); a reservation, or its refusal, within
``ANSWER_SECONDS``.
One thread a process writes; what waits is done in one transaction, in the order given, so that many calls share an
fsync and no call waits on the event loop for a lock. A request checks before it writes: a refused one has written
nothing. A resolution that cannot be written is owed, and written as soon as the store can be.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from douane.background import give_way
from douane.errors import EnvironmentFailedError
from douane.ledger.base import ANSWER_SECONDS, Account, Balance, Demand, Held, LedgerUnavailableError, Refused
from douane.ledger.books import Added, Books

__all__ = ["FILE", "SqliteLedger", "read_balances"]

FILE = "ledger.sqlite"
VERSION = 1
_BUSY_MS = 200
"""How long a transaction waits for another process: less than ANSWER_SECONDS."""
_PATIENT_MS = 5000
"""How long opening and reading wait."""
_BATCH = 256
_OWED = 100_000
_OWED_SECONDS = 1.0
"""After which what is owed is tried again, where nobody asks for anything."""
_CLOSE_SECONDS = 5.0
_KEEP_SECONDS = 3600.0
"""How long a resolved reservation is remembered, so that it is not opened anew."""
_PRUNE_SECONDS = 60.0

_SCHEMA = """
CREATE TABLE account (
  id INTEGER PRIMARY KEY,
  book TEXT NOT NULL, scope TEXT NOT NULL, name TEXT NOT NULL, period TEXT NOT NULL,
  begins INTEGER NOT NULL, ends INTEGER,
  captured INTEGER NOT NULL DEFAULT 0 CHECK (captured >= 0),
  reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
  ceiling INTEGER,
  UNIQUE (book, scope, name, period, begins)
) STRICT;
CREATE TABLE hold (
  call TEXT NOT NULL, account INTEGER NOT NULL REFERENCES account,
  amount INTEGER NOT NULL CHECK (amount >= 0),
  state TEXT NOT NULL DEFAULT 'held' CHECK (state IN ('held', 'captured', 'void')),
  at INTEGER NOT NULL,  -- by the clock of the machine, for pruning alone
  PRIMARY KEY (call, account)
) STRICT, WITHOUT ROWID;
CREATE INDEX hold_at ON hold (at);
"""


@dataclass(slots=True)
class _Wish:
    """One request to the writing thread."""

    act: Callable[[Books], Any]
    future: "asyncio.Future[Any]"
    reserves: str = ""
    """The call for which money is held; empty where a hold is resolved."""
    added: list[Added] = field(default_factory=list)
    """What was held for it."""
    given_up: bool = False
    """Nobody waits any more: nothing is held for it. Holds are resolved all the same."""
    result: Any = None


class SqliteLedger:
    """``open``, then the methods of :class:`~douane.ledger.base.Ledger`; ``close`` at the end."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.failure = ""
        """Why the last transaction failed; empty after one that did not."""
        self._connection = connection
        self._wishes: queue.SimpleQueue[_Wish | None] = queue.SimpleQueue()
        self._owed: list[_Wish] = []
        """Resolutions that could not be written: done before all else once the store can be written again."""
        self._closed = False
        self._identity = _identity(path)
        self._thread: threading.Thread | None = None
        self._pruned = 0.0

    @classmethod
    def open(cls, folder: Path) -> "SqliteLedger":
        """The ledger of *folder*, made where it is missing. Raises EnvironmentFailedError."""
        path = folder / FILE
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            with contextlib.ExitStack() as undo:
                connection = undo.enter_context(contextlib.closing(_connect(path, _PATIENT_MS)))
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                _make(connection, path)
                connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
                undo.pop_all()
                return cls(path, connection)
        except (sqlite3.Error, OSError) as error:
            raise EnvironmentFailedError(f"{path}: the ledger cannot be opened: {error}") from None

    def held(self) -> dict[str, int]:
        """The calls that hold something, and since when (seconds since the epoch). Raises EnvironmentFailedError."""
        try:
            return dict(self._connection.execute("SELECT call, max(at) FROM hold WHERE state='held' GROUP BY call").fetchall())
        except sqlite3.Error as error:
            raise EnvironmentFailedError(f"{self.path}: the ledger cannot be read: {error}") from None

    def recover(self, spent: Mapping[str, int | None]) -> int:
        """Book what calls have cost whose process died: by call, in nano-USD; None: what it reserved, for nobody knows better.
        Returns how many held something. Before the first reservation only. Raises EnvironmentFailedError."""
        if self._thread is not None:
            raise RuntimeError("the ledger is in use")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            books = Books(self._connection)
            found = sum(books.resolve(call, amount) for call, amount in spent.items())
            books.close()
            self._connection.execute("COMMIT")
        except (sqlite3.Error, OverflowError) as error:
            raise EnvironmentFailedError(f"{self.path}: the ledger cannot be written: {error}") from None
        return found

    def close(self) -> None:
        """Do what waits, then close. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._wishes.put(None)
            self._thread.join(_CLOSE_SECONDS)
            if self._thread.is_alive():
                return  # the disk hangs; what is held stays charged
        if self._owed:
            self._transact(self._owed)  # once more; else it is booked at the next start
        self._connection.close()

    def look_again(self) -> None:
        """Where the last transaction failed, try one; on the loop. Readiness must not wait for a call that it keeps away."""
        if self.failure and not self._closed:
            self._put(_Wish(Books.touch, _ignored(asyncio.get_running_loop()), reserves="-"))

    # -- Ledger ----------------------------------------------------------------------------------------------------

    async def reserve(self, call: str, at: float, demands: Sequence[Demand], amount: int) -> Held | Refused:
        added: list[Added] = []
        wish = _Wish(lambda books: books.reserve(call, at, demands, amount, added), asyncio.get_running_loop().create_future(),
                     call, added)
        found: Held | Refused = await self._ask(wish)
        return found

    def capture(self, call: str, amount: int | None, accounts: Sequence[Account]) -> Awaitable[bool]:
        if self._closed:
            raise LedgerUnavailableError("the ledger is closed")
        wish = _Wish(partial(Books.resolve, call=call, amount=amount, accounts=tuple(accounts)),
                     _ignored(asyncio.get_running_loop()))
        self._put(wish)
        return wish.future

    async def _ask(self, wish: _Wish) -> Any:
        if self._closed:
            raise LedgerUnavailableError("the ledger is closed")
        timer = asyncio.get_running_loop().call_later(ANSWER_SECONDS, _too_late, wish)
        self._put(wish)
        try:
            return await wish.future
        except asyncio.CancelledError:
            wish.given_up = True
            raise
        finally:
            timer.cancel()

    def _put(self, wish: _Wish) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
            self._thread.start()
        self._wishes.put(wish)

    # -- the writing thread ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        give_way()
        while True:
            try:
                wish = self._wishes.get(timeout=_OWED_SECONDS if self._owed else None)
            except queue.Empty:
                self._serve([])
                continue
            if wish is None:
                break
            batch, last = [wish], False
            while not last and len(batch) < _BATCH:
                try:
                    following = self._wishes.get_nowait()
                except queue.Empty:
                    break
                last = following is None
                if following is not None:
                    batch.append(following)
            self._serve(batch)
            if last:
                break

    def _serve(self, batch: list[_Wish]) -> None:
        batch = [one for one in batch if not (one.reserves and one.given_up)]
        if not batch and not self._owed:
            return
        failure = self._transact([*self._owed, *batch])
        self.failure = "" if failure is None else str(failure)
        if failure is None:
            self._owed.clear()
        else:
            self._owed += [one for one in batch if not one.reserves][: _OWED - len(self._owed)]
        by_loop: dict[asyncio.AbstractEventLoop, list[_Wish]] = {}
        for wish in batch:
            by_loop.setdefault(wish.future.get_loop(), []).append(wish)
        for loop, wishes in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._answer, wishes, failure)

    def _transact(self, wishes: list[_Wish]) -> Exception | None:
        """All of *wishes* durably, or none. Returns what failed."""
        connection = self._connection
        try:
            if _identity(self.path) != self._identity:
                raise sqlite3.OperationalError("the file was moved or deleted")
            connection.execute("BEGIN IMMEDIATE")
            books = Books(connection)
            for wish in wishes:
                wish.result = wish.act(books)
            for wish in wishes:
                if wish.reserves and wish.given_up:  # in the meantime
                    books.take_back(wish.reserves, wish.added)
            books.close()
            if time.monotonic() - self._pruned > _PRUNE_SECONDS:
                self._pruned = time.monotonic()
                _prune(connection)
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError, OverflowError) as error:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
            return error
        return None

    def _answer(self, wishes: list[_Wish], failure: Exception | None) -> None:
        """On the loop."""
        for wish in wishes:
            if wish.future.done():
                if wish.reserves and failure is None and not self._closed:  # held too late: nobody knows of it
                    self._put(_Wish(partial(Books.take_back, call=wish.reserves, added=wish.added),
                                    _ignored(wish.future.get_loop())))
            elif failure is None:
                wish.future.set_result(wish.result)
            else:
                wish.future.set_exception(LedgerUnavailableError(
                    f"the ledger cannot be written ({type(failure).__name__})"))


def _too_late(wish: _Wish) -> None:
    wish.given_up = True
    if not wish.future.done():
        wish.future.set_exception(LedgerUnavailableError(f"the ledger did not answer within {ANSWER_SECONDS:g} s"))


def _ignored(loop: asyncio.AbstractEventLoop) -> "asyncio.Future[Any]":
    """A future that nobody awaits, and whose exception nobody misses."""
    future: asyncio.Future[Any] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


def _identity(path: Path) -> tuple[int, int]:
    said = path.stat()
    return said.st_dev, said.st_ino


def _connect(path: Path, patience_ms: int, mode: str = "rw") -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=patience_ms / 1000,
                           isolation_level=None, check_same_thread=False)


def _make(connection: sqlite3.Connection, path: Path) -> None:
    """The schema, where it is missing; and a look at the file. Raises EnvironmentFailedError, sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")  # another process may be making it
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found == 0:
        for statement in _SCHEMA.strip().rstrip(";").split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={VERSION}")
    connection.execute("COMMIT")
    if found not in (0, VERSION):
        raise EnvironmentFailedError(f"{path}: a ledger of version {found}; this Douane reads version {VERSION}")
    (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if sound != "ok":
        raise EnvironmentFailedError(f"{path}: the ledger is damaged ({sound}); move it away to begin a new one")


def _prune(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM hold WHERE at < ? AND state != 'held'", (int(time.time() - _KEEP_SECONDS),))


def read_balances(folder: Path, at: float) -> list[Balance]:
    """Every account whose window holds *at*, and those with open reservations; the gateway may be running or not.

    Raises EnvironmentFailedError where the file cannot be read; empty where there is none."""
    path = folder / FILE
    if not path.exists():
        return []
    try:
        with contextlib.closing(_connect(path, _PATIENT_MS, "ro")) as connection:
            rows = connection.execute(
                "SELECT book, scope, name, period, begins, ends, captured, reserved, ceiling FROM account"
                " WHERE reserved > 0 OR (begins <= ? AND (ends IS NULL OR ends > ?))"
                " ORDER BY scope, name, book, ends IS NULL, ends - begins, begins", (at, at)).fetchall()
    except sqlite3.Error as error:
        raise EnvironmentFailedError(f"{path}: the ledger cannot be read: {error}") from None
    return [Balance(Account(*row[:6]), row[6], row[7], row[8]) for row in rows]
