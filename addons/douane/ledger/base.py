"""What a ledger is: reserve, then capture or void.

Law 6: no budget is checked without holding what the call may cost. A reservation holds its amounts in every account it names
or in none; it is resolved exactly once, by the first ``capture`` (of nothing: it is void); whoever comes later changes nothing.
What cannot be done within ``ANSWER_SECONDS`` is refused (``ledger_unavailable``), never passed.

Amounts are whole: nano-USD (1e-9 USD: one token at 0.02 USD a million is 20 of them), tokens, calls. No store holds a float.
"""

import hashlib
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from douane.errors import RefusedError
from douane.frozen import made_fast
from douane.ledger.windows import Period

__all__ = ["ANSWER_SECONDS", "LARGEST", "MOST", "NANO", "NOTHING_SPENT", "Account", "Alert", "Balance", "ClosedLedger",
           "Demand", "Held", "Ledger", "LedgerUnavailableError", "Limited", "Limiter", "Outbox", "Rate", "Refused", "Slots",
           "Spent", "Stop", "Stops", "Store", "Take", "Unit", "nano"]

NANO = 1_000_000_000
"""Nano-USD in a USD."""
_ROUNDING = 0.0005
"""Nano-USD that a sum of floats may be off."""
LARGEST = 2**52
"""The most an amount or a limit may be (4.5 million USD): Redis' scripts count in doubles, which are exact below 2^53."""
MOST = 2**53 - 1
"""The most a sum may be: what goes beyond is lost to arithmetic, and no budget is so large."""
ANSWER_SECONDS = 0.25
"""What a store may take to answer."""

type Unit = Literal["usd", "tokens", "calls"]


def nano(usd: float) -> int:
    """*usd* in nano-USD, rounded up, so that nothing that costs is free; :data:`LARGEST` at most. Raises ValueError for
    what is no amount of money."""
    if not usd >= 0:
        raise ValueError("an amount is 0 or more")
    if usd >= LARGEST / NANO:
        return LARGEST
    exact = usd * NANO
    whole = int(exact)
    return whole if exact - whole < _ROUNDING else whole + 1


@made_fast
@dataclass(frozen=True, slots=True)
class Account:
    """What is counted together: one scope in one window, in one unit."""

    org: str
    """Whose accounts these are; empty for callers without one. No account spans orgs: a store may keep them apart."""
    book: str
    """Separates budgets that count the same scope for different calls; mostly empty."""
    scope: str
    """``principal``, ``user``, ``agent``, ``team``, ``org``, ``model``, ``provider``, ``tag:NAME``."""
    name: str
    """Whose; empty for those who have no team, user …"""
    unit: Unit
    period: Period
    start: int
    """Seconds since the epoch."""
    end: int | None
    """None: never."""


@made_fast
@dataclass(frozen=True, slots=True)
class Demand:
    """What a call may come to in one account, and the account's limit."""

    account: Account
    amount: int
    limit: int
    hard: bool = True
    """False: it counts and refuses nothing."""
    alerts: tuple[int, ...] = ()
    """Thousandths of the limit at which somebody is told, once a window; ascending."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a call came to."""

    usd: int
    """Nano-USD."""
    tokens: int
    calls: int
    usd_floor: bool = False
    """Nobody knows all of it: what is held stays charged where it is more. Likewise below."""
    tokens_floor: bool = False

    def of(self, unit: str, held: int) -> int:
        """What is booked in place of *held*; never less than nothing."""
        if unit == "usd":
            return max(self.usd, held if self.usd_floor else 0)
        if unit == "tokens":
            return max(self.tokens, held if self.tokens_floor else 0)
        return max(self.calls, 0)


NOTHING_SPENT = Spent(0, 0, 0)
"""The reservation is void."""


@dataclass(frozen=True, slots=True)
class Held:
    """All of it is held."""

    over: tuple[Account, ...] = ()
    """Accounts whose limit it goes beyond, of demands that are not hard."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The first account that its amount does not fit. Nothing was held, and what was held before stays."""

    account: Account
    left: int
    """In the account's unit; below 0 where calls came to more than they had reserved."""
    retry_after: float | None
    """Seconds until its window ends; None: never."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What stands in one account, in its unit."""

    account: Account
    captured: int
    reserved: int
    limit: int | None
    """As of the last reservation."""

    @property
    def left(self) -> int | None:
        return None if self.limit is None else self.limit - self.captured - self.reserved


class LedgerUnavailableError(RefusedError):
    """The store is locked, broken, full, closed or too slow."""

    def __init__(self, reason: str) -> None:
        super().__init__("ledger_unavailable", reason)


class Ledger(Protocol):
    """Every method raises LedgerUnavailableError, ``reserve`` within :data:`ANSWER_SECONDS`."""

    async def reserve(self, call: str, org: str, at: float, demands: Sequence[Demand]) -> Held | Refused:
        """Hold the amounts for *call* in all accounts at once, all of *org*, or in none. No account twice. Idempotent: what
        *call* holds in an account already counts, and is raised to the amount where it is less; a resolved reservation is not
        opened anew, and holds nothing. *at*: seconds since the epoch.

        Where it raises, nobody knows whether it holds: :meth:`capture` all the same, of nothing where it is the first."""
        ...

    def capture(self, call: str, org: str, spent: Spent) -> Awaitable[bool]:
        """*call* came to *spent*, more or less than was held, in all its accounts. False where there is nothing to resolve.

        It is in line when this returns: whoever reserves from now on finds it booked. Await it to know that it is durable.
        Nobody need: the call's outcome in the audit log is, and tells what to book should the process die before."""
        ...


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket, kept as GCRA does: by the one moment at which it will be full again. *limit* in *period* seconds flow
    in; *burst* fit."""

    key: tuple[str, ...]
    """Whose, and of which rule."""
    unit: Literal["requests", "tokens"]
    limit: int
    period: int
    burst: int


@dataclass(frozen=True, slots=True)
class Slots:
    """At most *limit* calls at once."""

    key: tuple[str, ...]
    limit: int


@dataclass(frozen=True, slots=True)
class Take:
    """What a call takes of a rule: *cost* of its unit. Of a :class:`Slots` it is one slot."""

    rule: Rate | Slots
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Limited:
    """The first rule that the call does not fit. Nothing was taken."""

    rule: Rate | Slots
    remaining: int
    """What it could have taken."""
    retry_after: float
    """Seconds until it fits, should nobody else come; of slots, a guess: 1."""
    reset_after: float
    """Seconds until the bucket is full."""


class Limiter(Protocol):
    """Rate limits. Raises LedgerUnavailableError within :data:`ANSWER_SECONDS`. What it holds may be lost in a power cut."""

    async def take(self, call: str, org: str, at: float, takes: Sequence[Take]) -> Limited | None:
        """Take all or nothing. A cost above the burst is taken from a full bucket, which is then in debt. *at*: seconds since
        the epoch; a slot is held until :meth:`give_back`, or until the gateway that took it is known to be dead."""
        ...

    def give_back(self, call: str, org: str, at: float, takes: Sequence[Take]) -> Awaitable[None]:
        """The call has ended: *cost* is what it took too much (below 0: too little) of a rate; slots are free. Nobody need
        await it."""
        ...


@dataclass(frozen=True, slots=True)
class Stop:
    """Calls that are refused until somebody resumes them."""

    scope: str
    """As in :class:`Account`; or ``all``, with an empty *name*."""
    name: str
    at: float
    """Since when; seconds since the epoch."""
    running: bool = False
    """Those that run are ended too."""


class Stops(Protocol):
    """Emergency stops. Raises LedgerUnavailableError."""

    async def stops(self) -> frozenset[Stop]:
        """All that are in force."""
        ...

    async def stop(self, one: Stop) -> None: ...

    async def resume(self, scope: str, name: str) -> bool:
        """Whether there was one."""
        ...


@dataclass(frozen=True, slots=True)
class Alert:
    """A share of a limit has been spent, or a call was refused."""

    account: Account
    share: int
    """Thousandths of the limit."""
    at: float
    captured: int
    limit: int

    @property
    def id(self) -> str:
        """The same for the same share of the same window, however often it is sent."""
        of = self.account
        said = repr((of.org, of.book, of.scope, of.name, of.unit, of.period, of.start, self.share))
        return hashlib.sha256(said.encode()).hexdigest()[:32]


class Outbox(Protocol):
    """Alerts that wait to be sent. Raises LedgerUnavailableError."""

    async def due(self, at: float, seconds: float) -> Sequence[Alert]:
        """Those that nobody is at. They are the caller's for so many *seconds*: whoever dies leaves them to others."""
        ...

    async def sent(self, one: Alert) -> None:
        """It has been delivered, and never comes again."""
        ...


class Store(Ledger, Limiter, Stops, Outbox, Protocol):
    """What a gateway opens. The methods below block: for a start, or a thread. They raise EnvironmentFailedError."""

    owner: str
    """Whose reservations and slots these are: unique to this process among all that share the store."""

    @property
    def failure(self) -> str:
        """Why the last request failed; empty after one that did not."""
        ...

    def look_again(self) -> None:
        """Where the last request failed, try one; on the loop. Readiness must not wait for a call that it keeps away."""
        ...

    def owners(self) -> Sequence[str]:
        """Whoever has calls that hold something."""
        ...

    def is_alive(self, owner: str) -> bool | None:
        """Whether *owner* is a process that runs; None: the store cannot tell."""
        ...

    def held(self, owner: str) -> Mapping[str, int]:
        """The calls of *owner* that hold something, and since when (seconds since the epoch)."""
        ...

    def recover(self, owner: str, spent: Mapping[str, Spent]) -> int:
        """Book what calls of *owner*, which is dead, have come to. Returns how many held something."""
        ...

    def balances(self, at: float) -> Sequence[Balance]:
        """Every account whose window holds *at*, and those with open reservations."""
        ...

    async def beat(self) -> None:
        """Say that this process lives; every few seconds. Raises LedgerUnavailableError."""
        ...

    def close(self) -> None:
        """Do what waits, then close. Idempotent."""
        ...


class ClosedLedger:
    """Stands where no ledger has been opened: everything is refused."""

    async def reserve(self, call: str, org: str, at: float, demands: Sequence[Demand]) -> Held | Refused:
        raise LedgerUnavailableError("no ledger is open")

    def capture(self, call: str, org: str, spent: Spent) -> Awaitable[bool]:
        raise LedgerUnavailableError("no ledger is open")

    async def take(self, call: str, org: str, at: float, takes: Sequence[Take]) -> Limited | None:
        raise LedgerUnavailableError("no ledger is open")

    def give_back(self, call: str, org: str, at: float, takes: Sequence[Take]) -> Awaitable[None]:
        raise LedgerUnavailableError("no ledger is open")
