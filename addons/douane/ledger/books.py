"""What one transaction of the SQLite ledger reads and writes.

Law: a request is looked at in full before it writes: a refused one has written nothing but the alert that it was. The
transaction holds the write lock, so that an account once read stays true to its end: each is read once, and written once by
:meth:`Books.close`, however many calls come to it.
"""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from douane.ledger.base import MOST, Account, Alert, Demand, Held, Refused, Spent, Stop

__all__ = ["SCHEMA", "Books", "Numbers", "known"]

SCHEMA = """
CREATE TABLE account (
  id INTEGER PRIMARY KEY,
  org TEXT NOT NULL, book TEXT NOT NULL, scope TEXT NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL,
  period TEXT NOT NULL, begins INTEGER NOT NULL, ends INTEGER,
  captured INTEGER NOT NULL DEFAULT 0 CHECK (captured >= 0),
  reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
  ceiling INTEGER,
  alerts TEXT NOT NULL DEFAULT '',      -- thousandths of the ceiling, joined by commas
  alerted INTEGER NOT NULL DEFAULT 0,   -- the highest of them that somebody was told of
  UNIQUE (org, book, scope, name, unit, period, begins)
) STRICT;
CREATE TABLE hold (
  call TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  at INTEGER NOT NULL,                  -- by the clock of the machine, for pruning and recovery alone
  lines TEXT NOT NULL,                  -- account amount account amount …
  open INTEGER NOT NULL DEFAULT 1
) STRICT, WITHOUT ROWID;
CREATE TABLE alert (
  account INTEGER NOT NULL REFERENCES account, share INTEGER NOT NULL, at INTEGER NOT NULL,
  captured INTEGER NOT NULL, ceiling INTEGER NOT NULL,
  taken INTEGER NOT NULL DEFAULT 0,     -- until when somebody is at it
  PRIMARY KEY (account, share)
) STRICT, WITHOUT ROWID;
CREATE TABLE stop (
  scope TEXT NOT NULL, name TEXT NOT NULL, at REAL NOT NULL, running INTEGER NOT NULL,
  PRIMARY KEY (scope, name)
) STRICT, WITHOUT ROWID;
"""

_NUMBER = "SELECT id FROM account WHERE org=? AND book=? AND scope=? AND name=? AND unit=? AND period=? AND begins=?"
_LOOK = "SELECT captured, reserved, ceiling, alerts, alerted, unit FROM account WHERE id=?"
_OPEN = "INSERT INTO account (org, book, scope, name, unit, period, begins, ends) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_WRITE = "UPDATE account SET captured=?, reserved=? WHERE id=?"
_WRITE_ALL = "UPDATE account SET captured=?, reserved=?, ceiling=?, alerts=?, alerted=? WHERE id=?"
_HOLD = "INSERT INTO hold (call, owner, at, lines) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_FOUND = "SELECT lines, open FROM hold WHERE call=?"
_RAISE = "UPDATE hold SET lines=? WHERE call=?"
_RESOLVE = "UPDATE hold SET open=0 WHERE call=? AND open RETURNING lines"
_ALERT = "INSERT INTO alert (account, share, at, captured, ceiling) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_DUE = ("SELECT org, book, scope, name, unit, period, begins, ends, share, at, alert.captured, alert.ceiling"
        " FROM alert JOIN account ON account.id=alert.account WHERE taken <= ? ORDER BY at LIMIT 1000")
_NEVER = 2**53
_KNOWN = 10_000

type Numbers = dict[Account, int]
"""Account → its number, which never changes: kept from one transaction to the next."""


@dataclass(slots=True)
class _Page:
    """An account as this transaction leaves it."""

    captured: int
    reserved: int
    ceiling: int | None
    alerts: str
    alerted: int
    unit: str
    changed: bool = False
    terms: bool = False
    """Ceiling or alerts have changed too."""


@dataclass(slots=True)
class Books:
    """Of one transaction that has begun; :meth:`close` before it is committed. Methods raise sqlite3.Error."""

    connection: sqlite3.Connection
    numbers: Numbers
    """Of accounts that were durable before: what this transaction opens is added by who commits it."""
    opened: Numbers = field(default_factory=dict)
    _pages: dict[int, _Page] = field(default_factory=dict)

    def reserve(self, call: str, owner: str, at: float, demands: Sequence[Demand]) -> Held | Refused:
        found = self.connection.execute(_FOUND, (call,)).fetchone() if demands else None
        if found is not None and not found[1]:
            return Held()
        held: dict[int, int] = {} if found is None else _read(found[0])
        over = []
        for demand in demands:
            number, page = self._account(demand.account)
            left = demand.limit - page.captured - page.reserved
            if max(0, demand.amount - held.get(number, 0)) <= left:
                continue
            if demand.hard:
                return self._refused(demand, left, at)
            over.append(demand.account)
        for demand in demands:
            number = self._opened(demand.account)
            page = self._pages[number]
            more = max(0, demand.amount - held.get(number, 0))
            page.reserved = min(page.reserved + more, MOST)
            held[number] = held.get(number, 0) + more
            page.changed = True
            self._agree(page, demand)
        lines = " ".join(f"{number} {amount}" for number, amount in held.items())
        if found is None:
            self.connection.execute(_HOLD, (call, owner, int(time.time()), lines))
        else:
            self.connection.execute(_RAISE, (lines, call))
        return Held(tuple(over))

    def _refused(self, demand: Demand, left: int, at: float) -> Refused:
        if demand.alerts:
            number = self._opened(demand.account)
            self._agree(self._pages[number], demand)
            self._alert(number, self._pages[number], refused=True)
        end = demand.account.end
        return Refused(demand.account, left, None if end is None else max(0.0, end - at))

    def resolve(self, call: str, spent: Spent) -> bool:
        """Book *spent* in place of what *call* holds."""
        found = self.connection.execute(_RESOLVE, (call,)).fetchone()
        if found is None:
            return False
        for number, held in _read(found[0]).items():
            page = self._page(number)
            page.reserved = max(page.reserved - held, 0)
            page.captured = min(page.captured + spent.of(page.unit, held), MOST)
            page.changed = True
        return True

    def stops(self) -> frozenset[Stop]:
        rows = self.connection.execute("SELECT scope, name, at, running FROM stop").fetchall()
        return frozenset(Stop(scope, name, at, bool(running)) for scope, name, at, running in rows)

    def stop(self, one: Stop) -> None:
        self.connection.execute("INSERT OR REPLACE INTO stop (scope, name, at, running) VALUES (?, ?, ?, ?)",
                                (one.scope, one.name, one.at, one.running))

    def resume(self, scope: str, name: str) -> bool:
        return self.connection.execute("DELETE FROM stop WHERE scope=? AND name=?", (scope, name)).rowcount > 0

    def due(self, at: float, seconds: float) -> list[Alert]:
        rows = self.connection.execute(_DUE, (int(at),)).fetchall()
        self.connection.execute("UPDATE alert SET taken=? WHERE taken <= ?", (int(at + seconds), int(at)))
        return [Alert(Account(*row[:8]), *row[8:]) for row in rows]

    def sent(self, one: Alert) -> None:
        number, _ = self._account(one.account)
        self.connection.execute("UPDATE alert SET taken=? WHERE account=? AND share=?", (_NEVER, number, one.share))

    def touch(self) -> None:
        """A write that changes nothing."""
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        self.connection.execute(f"PRAGMA user_version={int(version)}")

    def close(self) -> None:
        """Write the accounts, and the alerts that are due."""
        for number, page in self._pages.items():
            if not page.changed:
                continue
            self._alert(number, page)
            if page.terms:
                self.connection.execute(_WRITE_ALL, (page.captured, page.reserved, page.ceiling, page.alerts, page.alerted,
                                                     number))
            else:
                self.connection.execute(_WRITE, (page.captured, page.reserved, number))

    def _agree(self, page: _Page, demand: Demand) -> None:
        """Keep the terms of the last reservation."""
        alerts = ",".join(map(str, demand.alerts)) if demand.alerts else ""
        if page.ceiling != demand.limit or page.alerts != alerts:
            page.ceiling, page.alerts = demand.limit, alerts
            page.terms = page.changed = True

    def _alert(self, number: int, page: _Page, *, refused: bool = False) -> None:
        """Note what somebody must be told of. *refused*: a call did not fit, and the limit is as good as reached."""
        if not page.alerts or page.ceiling is None:
            return
        reached = page.captured * 1000
        for share in map(int, page.alerts.split(",")):
            if share > page.alerted and (reached >= share * page.ceiling or (refused and share <= 1000)):
                self.connection.execute(_ALERT, (number, share, int(time.time()), page.captured, page.ceiling))
                page.alerted = share
                page.terms = page.changed = True

    def _account(self, account: Account) -> tuple[int, _Page]:
        """Its number (0: it has none yet) and what stands in it."""
        number = self.numbers.get(account) or self.opened.get(account)
        if number is None:
            row = self.connection.execute(_NUMBER, _key(account)).fetchone()
            if row is None:
                return 0, _Page(0, 0, None, "", 0, account.unit)
            number = self.opened[account] = row[0]
        return number, self._page(number)

    def _opened(self, account: Account) -> int:
        number, page = self._account(account)
        if not number:
            made = self.connection.execute(_OPEN, (*_key(account), account.end)).lastrowid
            if made is None:
                raise sqlite3.DatabaseError("a new account has no number")
            number = self.opened[account] = made
            self._pages[number] = page
        return number

    def _page(self, number: int) -> _Page:
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = _Page(*self.connection.execute(_LOOK, (number,)).fetchone())
        return page


def _key(account: Account) -> tuple[str | int, ...]:
    return (account.org, account.book, account.scope, account.name, account.unit, account.period, account.start)


def known(numbers: Numbers, opened: Iterable[tuple[Account, int]]) -> None:
    """Take in what a transaction that is durable has opened; the oldest leave."""
    for account, number in opened:
        while len(numbers) >= _KNOWN:
            del numbers[next(iter(numbers))]
        numbers[account] = number


def _read(lines: str) -> dict[int, int]:
    given = list(map(int, lines.split()))
    return dict(zip(given[::2], given[1::2], strict=True))
