"""One thread that writes one SQLite file which the processes of a machine share.

Law: what waits is done in one transaction, in the order given, so that many calls share an fsync and no call waits on the
event loop for a lock. A request is answered after its transaction is durable, or refused within ``ANSWER_SECONDS``. One that
must not be lost (*owed*) and cannot be written is written as soon as the file can be, before all else; where nobody waits for
it, it goes with the next that somebody waits for, or after ``_GATHER_SECONDS``.

Processes queue at a lock of the file system's: SQLite's own is asked again and again, with naps in between, and starves
whoever naps longest.
"""

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from douane.background import give_way
from douane.errors import EnvironmentFailedError
from douane.ledger.base import ANSWER_SECONDS, LedgerUnavailableError
from douane.ledger.patience import Patience

__all__ = ["PATIENT_MS", "Writer", "connect"]

_BUSY_MS = 200
"""How long a transaction waits for a process that does not queue: less than ANSWER_SECONDS."""
PATIENT_MS = 5000
"""How long opening and reading wait."""
_BATCH = 256
_OWED = 100_000
_OWED_SECONDS = 1.0
"""After which what is owed is tried again, where nobody asks for anything."""
_GATHER_SECONDS = 0.01
_CLOSE_SECONDS = 5.0
_ITS_OWN = (sqlite3.IntegrityError, sqlite3.DataError, ArithmeticError, LookupError, TypeError, ValueError)
"""What fails because of what is to be written: trying it again is no use."""


@dataclass(slots=True)
class _Wish:
    """One request to the writing thread."""

    act: Callable[[Any], Any]
    about: Any
    """What it will look at; None: nobody can say."""
    future: "asyncio.Future[Any] | None"
    owed: bool
    """It is done sometime, whoever waits."""
    given_up: bool = False
    """Nobody waits any more."""
    result: Any = None
    failure: Exception | None = None
    done: threading.Event | None = None
    """For a thread that waits."""
    tried: bool = False


class _Owed:
    """What :meth:`Writer.owe` promises. Who awaits it wants it now."""

    __slots__ = ("_hurry", "_wish")

    def __init__(self, wish: _Wish, hurry: Callable[[], None]) -> None:
        self._wish, self._hurry = wish, hurry

    def __await__(self) -> Generator[Any, Any, Any]:
        wish = self._wish
        if wish.future is None:
            wish.future = asyncio.get_running_loop().create_future()
            if wish.tried:  # looked at after the future is there: the writing thread looks at them in the other order
                _answer([wish])
            else:
                self._hurry()
        return wish.future.__await__()


_HURRY = _Wish(lambda _: None, None, None, owed=False)
"""In the queue: somebody waits for what stands before it."""


class Writer:
    """Asks are callables that get what *begin* makes of the connection, and of what they are *about*, once a transaction has
    begun; its ``close()`` is called before the commit, and *done* with it after."""

    def __init__(self, path: Path, schema: str, version: int, begin: Callable[[sqlite3.Connection, list[Any]], Any],
                 done: Callable[[Any], None], *, durable: bool = True) -> None:
        """Opens the file, made where it is missing. *durable*: else a power failure may cost the last transactions.
        Raises EnvironmentFailedError."""
        self.path = path
        self.failure = ""
        """Why the last transaction failed; empty after one that did not."""
        self._begin, self._done = begin, done
        self._wishes: queue.SimpleQueue[_Wish | None] = queue.SimpleQueue()
        self._owed: list[_Wish] = []
        self._patience = Patience[_Wish](_too_late)
        self._closed = False
        self._thread: threading.Thread | None = None
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            with contextlib.ExitStack() as undo:
                self._queue = os.open(path.with_name(path.name + ".queue"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
                undo.callback(os.close, self._queue)
                # to begin a file is nothing that SQLite lets others wait for
                _line_up(self._queue)
                undo.callback(fcntl.flock, self._queue, fcntl.LOCK_UN)
                self.connection = undo.enter_context(contextlib.closing(connect(path, PATIENT_MS)))
                self.connection.execute("PRAGMA journal_mode=WAL")
                self.connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
                _make(self.connection, path, schema, version)
                self.connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
                fcntl.flock(self._queue, fcntl.LOCK_UN)
                undo.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise EnvironmentFailedError(f"{path}: cannot be opened: {error}") from None
        self._identity = _identity(path)

    def now(self, act: Callable[[Any], Any]) -> Any:
        """*act* in a transaction of its own; blocks. Raises EnvironmentFailedError."""
        done = threading.Event()
        wish = _Wish(act, None, None, owed=True, done=done)
        self._put(wish)
        if not done.wait(PATIENT_MS / 1000) or wish.failure is not None:
            raise EnvironmentFailedError(f"{self.path}: cannot be written: {wish.failure or 'it takes too long'}")
        return wish.result

    async def ask(self, act: Callable[[Any], Any], about: Any = None) -> Any:
        """*act*'s result. Raises LedgerUnavailableError within ANSWER_SECONDS; it may be done all the same."""
        if self._closed:
            raise LedgerUnavailableError("the ledger is closed")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        wish = _Wish(act, about, future, owed=False)
        self._patience.begin(future, wish)
        self._put(wish)
        try:
            return await future
        except asyncio.CancelledError:
            wish.given_up = True
            raise

    def owe(self, act: Callable[[Any], Any], about: Any = None) -> Awaitable[Any]:
        """In line when this returns; done when awaited, which nobody need. Raises LedgerUnavailableError."""
        if self._closed:
            raise LedgerUnavailableError("the ledger is closed")
        wish = _Wish(act, about, None, owed=True)
        self._put(wish)
        return _Owed(wish, partial(self._wishes.put, _HURRY))

    def look_again(self, touch: Callable[[Any], Any]) -> None:
        """Where the last transaction failed, try one; on the loop. Readiness must not wait for a call that it keeps away."""
        if self.failure and not self._closed:
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            future.add_done_callback(_nobody_misses)
            self._put(_Wish(touch, None, future, owed=False))

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
        self.connection.close()
        os.close(self._queue)

    def _put(self, wish: _Wish) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self.path.stem, daemon=True)
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
            if wish is None or self._serve_with(wish):
                break

    def _serve_with(self, first: _Wish) -> bool:
        """*first* and what else waits. Returns whether that was the end."""
        batch: list[_Wish] = []
        following: _Wish | None = first
        until, waited_for = time.monotonic() + _GATHER_SECONDS, False
        while following is not None:
            waited_for = waited_for or not following.owed or following.done is not None
            if following is not _HURRY:
                batch.append(following)
            if len(batch) == _BATCH:
                break
            left = 0.0 if waited_for else until - time.monotonic()
            try:
                following = self._wishes.get(timeout=left) if left > 0 else self._wishes.get_nowait()
            except queue.Empty:
                break
        self._serve(batch)
        return following is None

    def _serve(self, batch: list[_Wish]) -> None:
        if not batch and not self._owed:
            return
        wishes = [*self._owed, *batch]
        failure = self._transact(wishes)
        if isinstance(failure, _ITS_OWN):
            failure = self._apart(wishes)
        else:
            for wish in wishes:
                wish.failure = failure
        self.failure = "" if failure is None else str(failure)
        self._owed = [one for one in wishes if one.owed and one.failure is not None and not isinstance(one.failure, _ITS_OWN)]
        del self._owed[_OWED:]
        by_loop: dict[asyncio.AbstractEventLoop, list[_Wish]] = {}
        for wish in batch:
            wish.tried = True
            if wish.done is not None:
                wish.done.set()
            if wish.future is not None:
                by_loop.setdefault(wish.future.get_loop(), []).append(wish)
        for loop, of_loop in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_answer, of_loop)

    def _apart(self, wishes: list[_Wish]) -> Exception | None:
        """One of *wishes* can never be done: each by itself, so that it alone fails, and is owed no more. Returns what else
        failed."""
        found = None
        for wish in wishes:
            wish.failure = self._transact([wish])
            if not isinstance(wish.failure, _ITS_OWN):
                found = wish.failure or found
        return found

    def _transact(self, wishes: list[_Wish]) -> Exception | None:
        """All of *wishes* durably, or none. Returns what failed."""
        connection = self.connection
        fcntl.flock(self._queue, fcntl.LOCK_EX)
        try:
            if _identity(self.path) != self._identity:
                raise sqlite3.OperationalError("the file was moved or deleted")
            connection.execute("BEGIN IMMEDIATE")
            wanted = [wish for wish in wishes if wish.owed or not wish.given_up]
            work = self._begin(connection, [wish.about for wish in wanted if wish.about is not None])
            for wish in wanted:
                wish.result = wish.act(work)
            work.close()
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError, *_ITS_OWN) as error:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
            return error
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)
        self._done(work)
        return None


def _answer(wishes: list[_Wish]) -> None:
    """On the loop."""
    for wish in wishes:
        if wish.future is None or wish.future.done():
            continue
        if wish.failure is None:
            wish.future.set_result(wish.result)
        else:
            wish.future.set_exception(LedgerUnavailableError(f"the ledger cannot be written ({type(wish.failure).__name__})"))


def _too_late(wish: _Wish) -> None:
    wish.given_up = True
    if wish.future is not None and not wish.future.done():
        wish.future.set_exception(LedgerUnavailableError(f"the ledger did not answer within {ANSWER_SECONDS:g} s"))


def _nobody_misses(done: "asyncio.Future[Any]") -> None:
    if not done.cancelled():
        done.exception()


def _line_up(fd: int) -> None:
    """The lock of the queue. Raises OSError where nobody gives it up in time."""
    until = time.monotonic() + PATIENT_MS / 1000
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _identity(path: Path) -> tuple[int, int]:
    said = path.stat()
    return said.st_dev, said.st_ino


def connect(path: Path, patience_ms: int, mode: str = "rw") -> sqlite3.Connection:
    """Raises sqlite3.Error. *mode*: ``ro`` reads only."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=patience_ms / 1000,
                           isolation_level=None, check_same_thread=False)


def _make(connection: sqlite3.Connection, path: Path, schema: str, version: int) -> None:
    """The schema, where it is missing; and a look at the file. Raises EnvironmentFailedError, sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")  # another process may be making it
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found == 0:
        for statement in schema.strip().rstrip(";").split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={version}")
    connection.execute("COMMIT")
    if found not in (0, version):
        raise EnvironmentFailedError(f"{path}: of version {found}; this Douane reads version {version}: move it away to "
                                     "begin a new one")
    (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if sound != "ok":
        raise EnvironmentFailedError(f"{path}: is damaged ({sound}); move it away to begin a new one")
