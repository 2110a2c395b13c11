"""Who made what, in the file of the histories, beside them.

Law: nobody reads who has what: a row is a keyed digest of provider, tenant, collection and id, and another of provider and
tenant. Without the gateway's key no row can be made that means anything. The file's one thread does the work.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass
from typing import Any

from douane.histories.base import HistoryUnavailableError, durable
from douane.histories.sqlite import SqliteHistories
from douane.objects.base import Holder, ObjectsUnavailableError
from douane.placeholders import DataKey

__all__ = ["MOST", "SqliteObjects"]

MOST = 100_000
"""Objects of one tenant at one provider; of more, the oldest are forgotten, and reachable by nobody then."""
_DIGEST = 16
"""Bytes."""
_OWED = 1000


@dataclass(frozen=True, slots=True)
class _All:
    rows: frozenset[bytes]
    row: Callable[[str], bytes]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.row(name) in self.rows


class SqliteObjects:
    """The :class:`~douane.objects.base.Objects` of an open file."""

    def __init__(self, file: SqliteHistories, key: DataKey, *, most: int = MOST) -> None:
        self._file = file
        self._key = key
        self._most = most
        self._owed: dict[bytes, bytes] = {}
        """Row → whose, of what could not be written: the file's thread writes it once it can."""

    async def missing(self, holder: Holder, names: Collection[str]) -> int:
        rows = {self._row(holder, name) for name in names} - self._owed.keys()

        def look(connection: sqlite3.Connection) -> int:
            return sum(connection.execute("SELECT 1 FROM object WHERE name=?", (row,)).fetchone() is None for row in rows)

        found: int = await _asked(self._file.run(look, writes=False))
        return found

    async def all_of(self, holder: Holder) -> Container[str]:
        whose = self._whose(holder)

        def look(connection: sqlite3.Connection) -> frozenset[bytes]:
            return frozenset(name for (name,) in connection.execute("SELECT name FROM object WHERE holder=?", (whose,)))

        rows = await _asked(self._file.run(look, writes=False))
        return _All(rows.union(row for row, owed in self._owed.items() if owed == whose), lambda name: self._row(holder, name))

    def add(self, holder: Holder, names: Collection[str], at: float) -> "asyncio.Future[None]":
        whose = self._whose(holder)
        rows = [(self._row(holder, name), whose, int(at)) for name in names]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT INTO object (name, holder, made_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)
            (count,) = connection.execute("SELECT count(*) FROM object WHERE holder=?", (whose,)).fetchone()
            if count > self._most:
                connection.execute("DELETE FROM object WHERE rowid IN (SELECT rowid FROM object WHERE holder=?"
                                   " ORDER BY made_at LIMIT ?)", (whose, count - self._most * 9 // 10))

        def noted(done: "asyncio.Future[None]") -> None:
            if not done.cancelled() and done.exception() is not None and len(self._owed) < _OWED:
                self._owed.update((row, whose) for row, whose, _ in rows)

        saving = self._file.run(write, writes=True)
        saving.add_done_callback(noted)
        return saving

    def remove(self, holder: Holder, names: Collection[str]) -> "asyncio.Future[None]":
        rows = [(self._row(holder, name),) for name in names]
        for (row,) in rows:
            self._owed.pop(row, None)
        return self._file.run(lambda connection: connection.executemany("DELETE FROM object WHERE name=?", rows) and None,
                              writes=True)

    def _row(self, holder: Holder, name: str) -> bytes:
        return self._key.digest("object", holder.provider, holder.tenant, name)[:_DIGEST]

    def _whose(self, holder: Holder) -> bytes:
        return self._key.digest("objects of", holder.provider, holder.tenant)[:_DIGEST]


async def _asked(asking: "asyncio.Future[Any]") -> Any:
    try:
        await durable(asking)
    except HistoryUnavailableError as error:
        raise ObjectsUnavailableError(f"who made which object cannot be read: {error}") from None
    return asking.result()
