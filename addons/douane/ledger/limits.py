"""Rate limits of one machine: a token bucket's whole state is one moment, and a slot is a row that names its process.

Law: a request takes from all its rules or from none. The file is not synced: after a power failure the buckets are full.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from douane.ledger.base import Limited, Rate, Take

__all__ = ["SCHEMA", "Limits", "judge"]

SCHEMA = """
CREATE TABLE bucket (key TEXT PRIMARY KEY, full INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE slot (key TEXT NOT NULL, call TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (key, call)) STRICT, WITHOUT ROWID;
"""
_MICRO = 1_000_000
_FULL = "SELECT full FROM bucket WHERE key=?"
_SET = "INSERT INTO bucket (key, full) VALUES (?, ?) ON CONFLICT DO UPDATE SET full=excluded.full"
_TAKEN = "SELECT DISTINCT owner FROM slot WHERE key=?"
_COUNT = "SELECT count(*) FROM slot WHERE key=?"
_HOLD = "INSERT INTO slot (key, call, owner) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"


def judge(rule: Rate, full: int, now: int, cost: int) -> tuple[int, Limited | None]:
    """(when the bucket will be full again, why not). *full*: when it would have been; *now*: in microseconds, as that. The
    generic cell rate algorithm (ITU-T I.371): a bucket of *burst* that empties by *cost* and fills at limit/period."""
    full = max(full, now)
    each = rule.period * _MICRO
    fits = rule.burst * each // rule.limit - (min(cost, rule.burst) * each + rule.limit - 1) // rule.limit
    if full - now > fits:
        left = (rule.burst * each // rule.limit - (full - now)) * rule.limit // each
        return full, Limited(rule, max(0, left), (full - now - fits) / _MICRO, (full - now) / _MICRO)
    return full + (cost * each + rule.limit - 1) // rule.limit, None


@dataclass(slots=True)
class Limits:
    """Of one transaction."""

    connection: sqlite3.Connection
    owner: str
    lives: Callable[[str], bool]
    """Whether the process of this name runs."""

    def take(self, call: str, at: float, takes: Sequence[Take]) -> Limited | None:
        now, fills, slots = int(at * _MICRO), dict[str, int](), list[str]()
        for one in takes:
            key = _key(one.rule.key)
            if isinstance(one.rule, Rate):
                found = fills.get(key) or self._one(_FULL, key)
                fills[key], limited = judge(one.rule, found, now, one.cost)
            else:
                limited = Limited(one.rule, 0, 1.0, 1.0) if self._taken(key, one.rule.limit) else None
                slots.append(key)
            if limited is not None:
                return limited
        self.connection.executemany(_SET, fills.items())
        self.connection.executemany(_HOLD, [(key, call, self.owner) for key in slots])
        return None

    def give_back(self, call: str, at: float, takes: Sequence[Take]) -> None:
        for one in takes:
            key = _key(one.rule.key)
            if isinstance(one.rule, Rate):
                full = self._one(_FULL, key) - one.cost * one.rule.period * _MICRO // one.rule.limit
                self.connection.execute(_SET, (key, full))
            else:
                self.connection.execute("DELETE FROM slot WHERE key=? AND call=?", (key, call))

    def begin_anew(self) -> None:
        """A process of this name has just begun: it holds no slot."""
        self.connection.execute("DELETE FROM slot WHERE owner=?", (self.owner,))

    def sweep(self, at: float) -> None:
        """Buckets that are full are as good as none."""
        self.connection.execute("DELETE FROM bucket WHERE full < ?", (int(at * _MICRO),))

    def touch(self) -> None:
        """A write that changes nothing."""
        self.connection.execute("DELETE FROM slot WHERE key=''")

    def close(self) -> None:
        """Nothing is left to write."""

    def _taken(self, key: str, limit: int) -> bool:
        """Whether all slots are; those of the dead are freed."""
        if self._one(_COUNT, key) < limit:
            return False
        for owner, in self.connection.execute(_TAKEN, (key,)).fetchall():
            if owner != self.owner and not self.lives(owner):
                self.connection.execute("DELETE FROM slot WHERE owner=?", (owner,))
        return self._one(_COUNT, key) >= limit

    def _one(self, query: str, key: str) -> int:
        row = self.connection.execute(query, (key,)).fetchone()
        return 0 if row is None else int(row[0])


def _key(parts: tuple[str, ...]) -> str:
    return "\x1f".join(parts)
