"""Rate limits of one machine: a token bucket's whole state is one moment, and a slot is a row that names its process.

Law: a request takes from all its rules or from none. The file is not synced: after a power failure the buckets are full.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from douane.ledger.base import MOST, Limited, Rate, Take

__all__ = ["MICRO", "SCHEMA", "Limits", "judge", "missing", "refusal", "worth"]

SCHEMA = """
CREATE TABLE bucket (key TEXT PRIMARY KEY, full INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE slot (key TEXT NOT NULL, call TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (key, call)) STRICT, WITHOUT ROWID;
"""
MICRO = 1_000_000
"""Moments of buckets are whole: microseconds since the epoch."""
_FULL = "SELECT full FROM bucket WHERE key=?"
_SET = "INSERT INTO bucket (key, full) VALUES (?, ?) ON CONFLICT DO UPDATE SET full=excluded.full"
_TAKEN = "SELECT DISTINCT owner FROM slot WHERE key=?"
_COUNT = "SELECT count(*) FROM slot WHERE key=?"
_HOLD = "INSERT INTO slot (key, call, owner) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"


def worth(rule: Rate, cost: int) -> tuple[int, int]:
    """(how long until it is full a bucket may still need where *cost* fits, what *cost* adds to that), in microseconds."""
    each = rule.period * MICRO
    return (max(0, rule.burst * each // rule.limit - _up(min(cost, rule.burst) * each, rule.limit)),  # rounding may say -1
            _up(cost * each, rule.limit))


def missing(rule: Rate, cost: int) -> int:
    """What giving back *cost* takes from the time until a bucket is full; below 0 where it was more than was taken."""
    return cost * rule.period * MICRO // rule.limit


def judge(rule: Rate, full: int, now: int, cost: int) -> tuple[int, Limited | None]:
    """(when the bucket will be full again, why not). *full*: when it would have been; *now*: in microseconds, as that. The
    generic cell rate algorithm (ITU-T I.371): a bucket of *burst* that empties by *cost* and fills at limit/period."""
    full = max(full, now)
    fits, more = worth(rule, cost)
    if full - now > fits:
        return full, refusal(rule, full, now, cost)
    return min(full + more, MOST), None


def refusal(rule: Rate, full: int, now: int, cost: int) -> Limited:
    """What to say of a bucket that *cost* does not fit."""
    each = rule.period * MICRO
    left = (rule.burst * each // rule.limit - (full - now)) * rule.limit // each
    return Limited(rule, max(0, left), (full - now - worth(rule, cost)[0]) / MICRO, (full - now) / MICRO)


def _up(amount: int, by: int) -> int:
    return (amount + by - 1) // by


@dataclass(slots=True)
class Limits:
    """Of one transaction."""

    connection: sqlite3.Connection
    owner: str
    lives: Callable[[str], bool]
    """Whether the process of this name runs."""

    def take(self, call: str, at: float, takes: Sequence[Take]) -> Limited | None:
        now, fills, slots = int(at * MICRO), dict[str, int](), list[str]()
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
        now = int(at * MICRO)
        for one in takes:
            key = _key(one.rule.key)
            if isinstance(one.rule, Rate):
                full = max(self._one(_FULL, key), now) - missing(one.rule, one.cost)  # what flowed over is lost
                self.connection.execute(_SET, (key, min(full, MOST)))
            else:
                self.connection.execute("DELETE FROM slot WHERE key=? AND call=?", (key, call))

    def begin_anew(self) -> None:
        """A process of this name has just begun: it holds no slot."""
        self.connection.execute("DELETE FROM slot WHERE owner=?", (self.owner,))

    def sweep(self, at: float) -> None:
        """Buckets that are full are as good as none."""
        self.connection.execute("DELETE FROM bucket WHERE full < ?", (int(at * MICRO),))

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
