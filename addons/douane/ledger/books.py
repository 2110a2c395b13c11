"""What one transaction of the SQLite ledger reads and writes.

Law: a request is looked at in full before it writes: a refused one has written nothing. The transaction holds the write lock,
so that an account once read stays true to its end: each is read once, and written once by :meth:`Books.close`, however many
calls come to it.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from douane.ledger.base import Account, Demand, Held, Refused

__all__ = ["Books"]

_FIND = "SELECT id, captured, reserved FROM account WHERE book=? AND scope=? AND name=? AND period=? AND begins=?"
_LOOK = "SELECT captured, reserved FROM account WHERE id=?"
_OPEN = "INSERT INTO account (book, scope, name, period, begins, ends) VALUES (?, ?, ?, ?, ?, ?)"
_WRITE = "UPDATE account SET captured=?, reserved=?, ceiling=coalesce(?, ceiling) WHERE id=?"
_HOLD = "SELECT amount, state FROM hold WHERE call=? AND account=?"
_PUT = ("INSERT INTO hold (call, account, amount, at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET amount=amount+excluded.amount WHERE state='held'")
_RESOLVE = "UPDATE hold SET state=? WHERE call=? AND state='held' RETURNING account, amount"
_RESOLVE_ONE = "UPDATE hold SET state=? WHERE call=? AND account=? AND state='held' RETURNING account, amount"
_LESS = "UPDATE hold SET amount=amount-?, state=iif(amount=?, 'void', state) WHERE call=? AND account=?"
_MOST = 2**62
"""Of a sum: what goes beyond is lost to arithmetic, and no budget is so large."""

type Added = tuple[int, int]
"""An account's number, and an amount in it."""


@dataclass(slots=True)
class _Page:
    """An account as this transaction leaves it, in nano-USD. *ceiling*: the last limit it was asked for with."""

    number: int | None
    captured: int = 0
    reserved: int = 0
    ceiling: int | None = None
    changed: bool = False


class Books:
    """Of one transaction that has begun; :meth:`close` before it is committed. Methods raise sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._by_account: dict[Account, _Page] = {}
        self._by_number: dict[int, _Page] = {}

    def reserve(self, call: str, at: float, demands: Sequence[Demand], amount: int, added: list[Added]) -> Held | Refused:
        """*added* gets what this has added to the call's holds."""
        fitting: list[tuple[Demand, _Page, int]] = []
        for demand in demands:
            page = self._page(demand.account)
            more = amount
            found = None if page.number is None else self._connection.execute(_HOLD, (call, page.number)).fetchone()
            if found is not None:
                more = max(0, amount - found[0]) if found[1] == "held" else 0
            left = 0 if demand.limit is None else demand.limit - page.captured - page.reserved
            if demand.limit is not None and more > left:
                end = demand.account.end
                return Refused(demand.account, left, None if end is None else max(0.0, end - at))
            fitting.append((demand, page, more))
        for demand, page, more in fitting:
            number = page.number if page.number is not None else self._open(demand.account, page)
            page.reserved = min(page.reserved + more, _MOST)
            page.ceiling = page.ceiling if demand.limit is None else demand.limit
            page.changed = True
            self._connection.execute(_PUT, (call, number, more, int(time.time())))
            added.append((number, more))
        return Held(amount)

    def take_back(self, call: str, added: Sequence[Added]) -> None:
        """What a reservation has added, and nobody waits for."""
        for number, more in added:
            found = self._connection.execute(_HOLD, (call, number)).fetchone()
            if found is not None and found[1] == "held":
                self._connection.execute(_LESS, (more, more, call, number))
                self._less(number, more, 0)

    def resolve(self, call: str, amount: int | None, accounts: Sequence[Account] | None = None) -> bool:
        """Book *amount* (None: what was held) in place of every open hold of *call*, or of those in *accounts*."""
        state, rows = "void" if amount == 0 else "captured", list[Added]()
        if accounts is None:
            rows += self._connection.execute(_RESOLVE, (state, call)).fetchall()
        for account in accounts or ():
            number = self._page(account).number
            if number is not None:
                rows += self._connection.execute(_RESOLVE_ONE, (state, call, number)).fetchall()
        for number, held in rows:
            self._less(number, held, held if amount is None else amount)
        return bool(rows)

    def _less(self, number: int, held: int, spent: int) -> None:
        page = self._numbered(number)
        page.reserved = max(page.reserved - held, 0)
        page.captured = min(page.captured + spent, _MOST)
        page.changed = True

    def touch(self) -> None:
        """A write that changes nothing."""
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        self._connection.execute(f"PRAGMA user_version={int(version)}")

    def close(self) -> None:
        """Write the accounts."""
        for number, page in self._by_number.items():
            if page.changed:
                self._connection.execute(_WRITE, (page.captured, page.reserved, page.ceiling, number))

    def _page(self, account: Account) -> _Page:
        page = self._by_account.get(account)
        if page is None:
            row = self._connection.execute(_FIND, (account.book, account.scope, account.name, account.period,
                                                   account.start)).fetchone()
            page = _Page(None) if row is None else self._by_number.setdefault(row[0], _Page(*row))
            self._by_account[account] = page
        return page

    def _open(self, account: Account, page: _Page) -> int:
        number = self._connection.execute(_OPEN, (account.book, account.scope, account.name, account.period,
                                                  account.start, account.end)).lastrowid
        if number is None:
            raise sqlite3.DatabaseError("a new account has no number")
        page.number = number
        self._by_number[number] = page
        return number

    def _numbered(self, number: int) -> _Page:
        page = self._by_number.get(number)
        if page is None:
            captured, reserved = self._connection.execute(_LOOK, (number,)).fetchone()
            page = self._by_number[number] = _Page(number, captured, reserved)
        return page
