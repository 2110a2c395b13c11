"""What a ledger is: reserve, then capture or void.

Law 6: no budget is checked without holding the money. A reservation holds its amount in every account it names or in
none; it is resolved exactly once, by the first ``capture`` (of 0: it is void); whoever comes later changes nothing. What cannot
be done within ``ANSWER_SECONDS`` is refused (``ledger_unavailable``), never passed.

Amounts are whole nano-USD (1e-9 USD): one token at 0.02 USD a million is 20 of them. No store holds a float.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from douane.errors import RefusedError
from douane.ledger.windows import Period

__all__ = ["ANSWER_SECONDS", "LARGEST", "NANO", "Account", "Balance", "ClosedLedger", "Demand", "Held", "Ledger",
           "LedgerUnavailableError", "Refused", "nano"]

NANO = 1_000_000_000
"""Nano-USD in a USD."""
_ROUNDING = 0.0005
"""Nano-USD that a sum of floats may be off."""
LARGEST = 1_000_000_000 * NANO
"""The most an amount may be: sums of a few of them stay below SQLite's and Redis' 2^63."""
ANSWER_SECONDS = 0.25
"""What a store may take to answer."""


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


@dataclass(frozen=True, slots=True)
class Account:
    """What is counted together: one scope in one window."""

    book: str
    """Separates budgets that count the same scope for different calls; mostly empty."""
    scope: str
    """``principal``, ``team``, ``org``."""
    name: str
    """Whose; empty for those who have no team or org."""
    period: Period
    start: int
    """Seconds since the epoch."""
    end: int | None
    """None: never."""


@dataclass(frozen=True, slots=True)
class Demand:
    """An account that a call must fit, and its limit in nano-USD; None counts and refuses nothing."""

    account: Account
    limit: int | None


@dataclass(frozen=True, slots=True)
class Held:
    amount: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The first account that the amount does not fit. Nothing is held."""

    account: Account
    left: int
    """Nano-USD; below 0 where calls cost more than they had reserved."""
    retry_after: float | None
    """Seconds until its window ends; None: never."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What stands in one account, in nano-USD."""

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
    """Every method raises LedgerUnavailableError, ``reserve`` within :data:`ANSWER_SECONDS`. Then nothing was held for good,
    and what was held before stays charged."""

    async def reserve(self, call: str, at: float, demands: Sequence[Demand], amount: int) -> Held | Refused:
        """Hold *amount* for *call* in all accounts at once, or in none. Idempotent: what *call* holds in an account
        already counts (and is raised to *amount* where it is less), and a resolved reservation is not opened
        anew. *at*: seconds since the epoch."""
        ...

    def capture(self, call: str, amount: int | None, accounts: Sequence[Account]) -> Awaitable[bool]:
        """*call* cost *amount*, more or less than was held; None: what was held, in each of *accounts*. False where there is
        nothing to resolve in them. What it holds elsewhere is another budget's, which will say so itself.

        It is in line when this returns: whoever reserves from now on finds it booked. Await it to know that it is durable.
        Nobody need: the call's outcome in the audit log is, and tells what to book should the process die before."""
        ...



class ClosedLedger:
    """Stands where no ledger has been opened (``douane check``): everything is refused."""

    async def reserve(self, call: str, at: float, demands: Sequence[Demand], amount: int) -> Held | Refused:
        raise LedgerUnavailableError("no ledger is open")

    def capture(self, call: str, amount: int | None, accounts: Sequence[Account]) -> Awaitable[bool]:
        raise LedgerUnavailableError("no ledger is open")
