"""What one transaction of the SQLite ledger reads and writes.

Law: a request is looked at in full before it writes: a refused one has written nothing but the alert that it was. The
transaction holds the write lock, so that what was once read stays true to its end: each hold and each account is read once and
written once, by :meth:`Books.close`, however often it changes in between.

Holds and accounts are read and written many by one statement: each gives the interpreter away and has to get it back from a
busy event loop, while every other process waits for the lock.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from douane.ledger.base import MOST, Account, Alert, Demand, Held, Refused, Spent, Stop

__all__ = ["SCHEMA", "About", "Books", "Numbers", "known"]

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
_LOOK = "SELECT id, captured, reserved, ceiling, alerts, alerted, unit FROM account WHERE id IN ({})"
_OPEN = "INSERT INTO account (org, book, scope, name, unit, period, begins, ends) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_WRITE_ONE = "UPDATE account SET captured=?, reserved=? WHERE id=?"
_WRITE = ("UPDATE account SET captured=new.column2, reserved=new.column3 FROM (VALUES {}) AS new"
          " WHERE account.id=new.column1")
_AGREE = "UPDATE account SET ceiling=?, alerts=?, alerted=? WHERE id=?"
_FIND = "SELECT call, owner, at, lines, open FROM hold WHERE call IN ({})"
_KEEP = ("INSERT INTO hold (call, owner, at, lines, open) VALUES {}"
         " ON CONFLICT (call) DO UPDATE SET lines=excluded.lines, open=excluded.open")
_MOST_ROWS = 64
"""Of one statement; a power of two, as all their lengths are, so that they are few enough to be kept prepared."""
_FEW = 2
"""Accounts that are written one by one: many at once take SQLite 50 µs, before the first."""
_ALERT = "INSERT INTO alert (account, share, at, captured, ceiling) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_DUE = ("SELECT org, book, scope, name, unit, period, begins, ends, share, at, alert.captured, alert.ceiling, account"
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
class _Hold:
    """A call's, as this transaction leaves it."""

    owner: str
    at: int
    amounts: dict[int, int]
    """By account."""
    open: bool = True
    changed: bool = False


@dataclass(frozen=True, slots=True)
class About:
    """What a request will look at."""

    call: str
    demands: Sequence[Demand] = ()


@dataclass(slots=True)
class Books:
    """Of one transaction that has begun; :meth:`close` before it is committed. Methods raise sqlite3.Error."""

    connection: sqlite3.Connection
    numbers: Numbers
    """Of accounts that were durable before: what this transaction opens is added by who commits it."""
    opened: Numbers = field(default_factory=dict)
    _pages: dict[int, _Page] = field(default_factory=dict)
    _holds: dict[str, _Hold | None] = field(default_factory=dict)

    def look(self, requests: Sequence[About]) -> None:
        """Read what *requests* are about, all at once."""
        calls = [one.call for one in requests if one.call not in self._holds]
        self._holds.update(dict.fromkeys(calls))
        for call, owner, at, lines, is_open in self._rows(_FIND, calls):
            self._holds[call] = _Hold(owner, at, _read(lines), bool(is_open))
        wanted = {number for one in requests for demand in one.demands if (number := self.numbers.get(demand.account))}
        for call in calls:
            hold = self._holds[call]
            if hold is not None and hold.open:
                wanted.update(hold.amounts)
        self._look_up([number for number in wanted if number not in self._pages])

    def reserve(self, call: str, owner: str, at: float, demands: Sequence[Demand]) -> Held | Refused:
        hold = self._hold(call) or _Hold(owner, int(time.time()), {})
        if not hold.open or not demands:
            return Held()
        held, over = hold.amounts, []
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
        hold.changed = True
        self._holds[call] = hold
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
        hold = self._hold(call)
        if hold is None or not hold.open:
            return False
        hold.open, hold.changed = False, True
        for number, held in hold.amounts.items():
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
        until = int(at + seconds)
        taken = [(until, row[12], row[8]) for row in rows]
        self.connection.executemany("UPDATE alert SET taken=? WHERE account=? AND share=?", taken)
        return [Alert(Account(*row[:8]), *row[8:12]) for row in rows]

    def sent(self, one: Alert) -> None:
        number, _ = self._account(one.account)
        self.connection.execute("UPDATE alert SET taken=? WHERE account=? AND share=?", (_NEVER, number, one.share))

    def touch(self) -> None:
        """A write that changes nothing."""
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        self.connection.execute(f"PRAGMA user_version={int(version)}")

    def close(self) -> None:
        """Write the holds, the accounts, and the alerts that are due."""
        pages = [(number, page) for number, page in self._pages.items() if page.changed]
        for number, page in pages:
            self._alert(number, page)
            if page.terms:
                self.connection.execute(_AGREE, (page.ceiling, page.alerts, page.alerted, number))
        if len(pages) <= _FEW:
            for number, page in pages:
                self.connection.execute(_WRITE_ONE, (page.captured, page.reserved, number))
        else:
            self._write(_WRITE, "(?, ?, ?)", [(number, page.captured, page.reserved) for number, page in pages])
        self._write(_KEEP, "(?, ?, ?, ?, ?)", [
            (call, hold.owner, hold.at, _written(hold.amounts), int(hold.open))
            for call, hold in self._holds.items() if hold is not None and hold.changed])

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
        if number not in self._pages:
            self._look_up([number])
        return self._pages[number]

    def _look_up(self, numbers: Sequence[int]) -> None:
        for number, *page in self._rows(_LOOK, numbers):
            self._pages[number] = _Page(*page)

    def _rows(self, query: str, keys: Sequence[str | int]) -> Iterator[Any]:
        for some in _pieces(keys):
            yield from self.connection.execute(_spelled(query, "?", len(some)), some).fetchall()

    def _write(self, statement: str, row: str, rows: Sequence[tuple[str | int, ...]]) -> None:
        for some in _pieces(rows):
            self.connection.execute(_spelled(statement, row, len(some)), [one for values in some for one in values])

    def _hold(self, call: str) -> _Hold | None:
        if call not in self._holds:
            self.look([About(call)])
        return self._holds[call]


def _key(account: Account) -> tuple[str | int, ...]:
    return (account.org, account.book, account.scope, account.name, account.unit, account.period, account.start)


def _pieces[T](given: Sequence[T]) -> Iterator[Sequence[T]]:
    """*given* in pieces of 64, 32 … 1."""
    at, size = 0, _MOST_ROWS
    while at < len(given):
        while size > len(given) - at:
            size //= 2
        yield given[at:at + size]
        at += size


@cache
def _spelled(statement: str, row: str, count: int) -> str:
    return statement.format(", ".join([row] * count))


def known(numbers: Numbers, opened: Iterable[tuple[Account, int]]) -> None:
    """Take in what a transaction that is durable has opened; the oldest leave."""
    for account, number in opened:
        while len(numbers) >= _KNOWN:
            del numbers[next(iter(numbers))]
        numbers[account] = number


def _read(lines: str) -> dict[int, int]:
    given = list(map(int, lines.split()))
    return dict(zip(given[::2], given[1::2], strict=True))


def _written(amounts: dict[int, int]) -> str:
    return " ".join(f"{number} {amount}" for number, amount in amounts.items())
