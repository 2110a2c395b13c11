"""Histories in one SQLite file of the data folder, sealed.

Law: nobody reads this file without the gateway's own key. A row's name is a keyed digest of provider, tenant and id; its
value is sealed (AES-256-GCM) with a key of that name alone, the name and the row's end as associated data, so that a row
that was changed, moved or given a longer life does not open. One thread a process does the work: no call waits on the event
loop, and what waits is written in one transaction. Rows end at their time, the oldest sooner where the file is full.
"""

import asyncio
import contextlib
import json
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from douane.errors import EnvironmentFailedError
from douane.histories.base import (
    ANSWER_SECONDS,
    NOTHING,
    History,
    HistoryTooLargeError,
    HistoryUnavailableError,
    Name,
    unwatched,
)
from douane.placeholders import DataKey
from douane.secrets import Originals

__all__ = ["FILE", "LARGEST", "STORE_LIMIT", "SqliteHistories"]

FILE = "histories.sqlite"
VERSION = 1
LARGEST = 1 << 20
"""Bytes of one history as written: some ten thousand values."""
STORE_LIMIT = 1 << 30
"""Bytes of all rows; the file keeps the size it once had and is filled anew."""
_NONCE = 12
_BUSY_MS = 200
_PATIENT_MS = 5000
"""How long a transaction waits for another process, and how long opening does."""
_BATCH = 256
_OWED = 1000
_CLOSE_SECONDS = 5.0
_SWEEP_SECONDS = 60.0
_SWEPT = 64
"""Rows that a full file gives up at once."""

_SCHEMA = """
CREATE TABLE history (name BLOB NOT NULL PRIMARY KEY, expires_at INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE INDEX history_expires_at ON history (expires_at);
"""
_OBJECTS = """
CREATE TABLE IF NOT EXISTS object (name BLOB NOT NULL PRIMARY KEY, holder BLOB NOT NULL, made_at INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS object_holder ON object (holder, made_at);
"""
"""Of ``objects/store.py``; a file of before may be without it."""
_FIND = "SELECT expires_at, sealed FROM history WHERE name=? AND expires_at>?"
_PUT = ("INSERT INTO history (name, expires_at, sealed) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET expires_at=excluded.expires_at, sealed=excluded.sealed")


@dataclass(slots=True)
class _Wish:
    """One request to the thread: to save *history*, or to load where there is none; or *work* of another table's."""

    names: Sequence[Name]
    future: "asyncio.Future[Any]"
    history: History | None = None
    expires_at: float = 0.0
    work: "Work | None" = None
    writes: bool = False
    result: Any = None
    failure: Exception | None = None

    @property
    def sweeps(self) -> bool:
        return self.history is not None and not self.names


type Work = Callable[[sqlite3.Connection], Any]
"""What is done in the thread: statements on the file. One that writes stands within the transaction, and is done again where
that fails; it must not mind being done twice."""


class SqliteHistories:
    """``open``, then the methods of :class:`~douane.histories.base.Histories`; ``close`` at the end."""

    def __init__(self, path: Path, connection: sqlite3.Connection, key: DataKey, clock: Callable[[], float],
                 limit: int) -> None:
        self.path = path
        self.failure = ""
        """Why the last work failed; empty after some that did not."""
        self._connection = connection
        self._key = key
        self._clock = clock
        self._limit = limit
        self._wishes: queue.SimpleQueue[_Wish | None] = queue.SimpleQueue()
        self._owed: list[_Wish] = []
        """What could not be saved: read from here, and written before all else once the store can be written again."""
        self._thread: threading.Thread | None = None
        self._closed = False
        self._identity = _identity(path)
        self._swept = 0.0

    @classmethod
    def open(cls, folder: Path, key: DataKey, *, clock: Callable[[], float] = time.time,
             limit: int = STORE_LIMIT) -> "SqliteHistories":
        """The store of *folder*, made where it is missing. Raises EnvironmentFailedError."""
        path = folder / FILE
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            with contextlib.ExitStack() as undo:
                connection = undo.enter_context(contextlib.closing(sqlite3.connect(
                    path, timeout=_PATIENT_MS / 1000, isolation_level=None, check_same_thread=False)))
                for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
                    connection.execute(f"PRAGMA {pragma}")
                _make(connection, path)
                connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
                undo.pop_all()
                return cls(path, connection, key, clock, limit)
        except (sqlite3.Error, OSError) as error:
            raise EnvironmentFailedError(f"{path}: the histories cannot be opened: {error}; move the file away to begin a "
                                         "new one: what it held does not come back then") from None

    def close(self) -> None:
        """Do what waits, then close. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._wishes.put(None)
            self._thread.join(_CLOSE_SECONDS)
            if self._thread.is_alive():
                return  # the disk hangs
        self._connection.close()

    def sweep(self) -> None:
        """Remove what has come to its end, and where the last work failed, try again; on the loop."""
        if not self._closed:
            self._put(_Wish((), unwatched(asyncio.get_running_loop()), NOTHING))

    # -- Histories -------------------------------------------------------------------------------------------------

    async def load(self, names: Sequence[Name]) -> History:
        if self._closed:
            raise HistoryUnavailableError("the store of histories is closed")
        wish = _Wish(names, unwatched(asyncio.get_running_loop()))
        self._put(wish)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found: History = await wish.future
        except TimeoutError:
            raise HistoryUnavailableError(f"the store of histories did not answer within {ANSWER_SECONDS:g} s") from None
        return found

    def save(self, names: Sequence[Name], history: History, expires_at: float) -> "asyncio.Future[None]":
        future = unwatched(asyncio.get_running_loop())
        if self._closed:
            future.set_exception(HistoryUnavailableError("the store of histories is closed"))
        else:
            self._put(_Wish(names, future, history, expires_at))
        return future

    def run(self, work: Work, *, writes: bool) -> "asyncio.Future[Any]":
        """Have *work* done: what it gives. Durable then, where it *writes*; else as :meth:`save`."""
        future = unwatched(asyncio.get_running_loop())
        if self._closed:
            future.set_exception(HistoryUnavailableError("the store of histories is closed"))
        else:
            self._put(_Wish((), future, work=work, writes=writes))
        return future

    def _put(self, wish: _Wish) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="histories", daemon=True)
            self._thread.start()
        self._wishes.put(wish)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        last = False
        while not last and (wish := self._wishes.get()) is not None:
            batch = [wish]
            while not last and len(batch) < _BATCH and not self._wishes.empty():  # nobody else takes from it
                following = self._wishes.get()
                last = following is None
                if following is not None:
                    batch.append(following)
            self._serve(batch)

    def _serve(self, batch: list[_Wish]) -> None:
        saves = [one for one in batch if one.history is not None or one.writes]
        failure = self._transact([*self._owed, *saves]) if saves else None
        if saves and failure is None:
            self._owed.clear()
        elif failure is not None:
            self._owed += [one for one in saves if not one.sweeps][: _OWED - len(self._owed)]
            for wish in saves:
                wish.failure = HistoryUnavailableError(f"the histories cannot be written ({type(failure).__name__})")
        for wish in batch:
            if wish.history is None and not wish.writes:
                failure = self._look_up(wish) or failure
        self.failure = "" if failure is None else str(failure)
        by_loop: dict[asyncio.AbstractEventLoop, list[_Wish]] = {}
        for wish in batch:
            by_loop.setdefault(wish.future.get_loop(), []).append(wish)
        for loop, wishes in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_answer, wishes)

    def _transact(self, saves: list[_Wish]) -> Exception | None:
        """All of *saves* durably, or none. Returns what failed."""
        connection = self._connection
        try:
            if _identity(self.path) != self._identity:
                raise sqlite3.OperationalError("the file was moved or deleted")
            connection.execute("BEGIN IMMEDIATE")
            for wish in saves:
                wish.failure = None
                if wish.work is not None:
                    wish.result = wish.work(connection)
                for name in wish.names:
                    self._add(wish, name)
            if time.monotonic() - self._swept > _SWEEP_SECONDS or saves[-1].sweeps:
                connection.execute("DELETE FROM history WHERE expires_at<=?", (int(self._clock()),))
                self._swept = time.monotonic()
            self._make_room()
            if saves[-1].sweeps:  # nothing to write but this, which shows whether it can be done
                connection.execute(f"PRAGMA user_version={VERSION}")
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
            return error
        return None

    def _add(self, wish: _Wish, name: Name) -> None:
        row, end = self._row(name), int(wish.expires_at)
        try:
            whole = self._found(name).joined(wish.history or NOTHING)
            if len(written := _written(whole)) > LARGEST:
                written = _written(whole.within(LARGEST))
                wish.failure = HistoryTooLargeError(f"a history grew over {LARGEST} bytes: its oldest values were left out")
        except HistoryUnavailableError as error:
            wish.failure = error
            return
        nonce = os.urandom(_NONCE)
        sealed = nonce + AESGCM(self._seal(name)).encrypt(nonce, written, _bound(row, end))
        self._connection.execute(_PUT, (row, end, sealed))

    def _make_room(self) -> None:
        """What is used is what is not free: two counts that SQLite keeps."""
        (size,) = self._connection.execute("PRAGMA page_size").fetchone()
        for _ in range(_OWED + _BATCH):
            used = sum(sign * self._connection.execute(f"PRAGMA {count}").fetchone()[0]
                       for count, sign in (("page_count", 1), ("freelist_count", -1)))
            if used * size <= self._limit:
                return
            gone = self._connection.execute("DELETE FROM history WHERE rowid IN (SELECT rowid FROM history"
                                            " ORDER BY expires_at LIMIT ?)", (_SWEPT,))
            if gone.rowcount == 0:
                return

    def _look_up(self, wish: _Wish) -> Exception | None:
        """Returns what failed of the store itself; a row that does not open concerns its history alone."""
        try:
            if wish.work is not None:
                wish.result = wish.work(self._connection)
                return None
            whole = NOTHING
            for name in wish.names:
                whole = whole.joined(self._found(name))
                for owed in self._owed:
                    if name in owed.names and owed.history is not None:
                        whole = whole.joined(owed.history)
            wish.result = whole
        except HistoryUnavailableError as error:
            wish.failure = error
        except (sqlite3.Error, OSError) as error:
            wish.failure = HistoryUnavailableError(f"the histories cannot be read ({type(error).__name__})")
            return error
        return None

    def _found(self, name: Name) -> History:
        row = self._row(name)
        found = self._connection.execute(_FIND, (row, int(self._clock()))).fetchone()
        if found is None:
            return NOTHING
        end, sealed = found
        try:
            written = AESGCM(self._seal(name)).decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(row, end))
        except (InvalidTag, ValueError):
            raise HistoryUnavailableError("a history does not open: its row was changed") from None
        values, hosts = json.loads(written)
        return History(Originals(values), frozenset(hosts))

    def _row(self, name: Name) -> bytes:
        return self._key.digest("history", name.provider, name.tenant, name.id)

    def _seal(self, name: Name) -> bytes:
        """A key for each name: so nonces need not differ between them, which chance alone would promise for 2^32 only."""
        return self._key.digest("history seal", name.provider, name.tenant, name.id)


def _answer(wishes: list[_Wish]) -> None:
    """On the loop."""
    for wish in wishes:
        if not wish.future.done():
            if wish.failure is None:
                wish.future.set_result(wish.result)
            else:
                wish.future.set_exception(wish.failure)


def _bound(row: bytes, end: int) -> bytes:
    """What a sealed value is bound to."""
    return b"douane history 1" + row + end.to_bytes(8, "big")


def _written(history: History) -> bytes:
    """ASCII: a value may hold half a surrogate pair."""
    return json.dumps([dict(history.originals), sorted(history.hosts)], separators=(",", ":")).encode("ascii")


def _identity(path: Path) -> tuple[int, int]:
    try:
        said = path.stat()
    except FileNotFoundError:
        return 0, 0
    return said.st_dev, said.st_ino


def _make(connection: sqlite3.Connection, path: Path) -> None:
    """The schema, where it is missing. Raises EnvironmentFailedError, sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")  # another process may be making it
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found == 0:
        for statement in _SCHEMA.strip().rstrip(";").split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={VERSION}")
    if found in (0, VERSION):
        for statement in _OBJECTS.strip().rstrip(";").split(";\n"):
            connection.execute(statement)
    connection.execute("COMMIT")
    if found not in (0, VERSION):
        raise EnvironmentFailedError(f"{path}: histories of version {found}; this Douane reads version {VERSION}")
