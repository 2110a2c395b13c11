"""What a policy says a call must fit: named limits of one scope, and how a call of unknown size is taken.

A claim is what the policy files say of one call; what the call may come to is reckoned once for all its claims (purse.py).
"""

from dataclasses import dataclass
from typing import Literal

from douane.ledger.base import Account, Unit

__all__ = ["ASSUMED", "CEILING", "Cap", "Claim", "Unbounded", "Unpriced"]

type Unpriced = int | Literal["ceiling", "deny"]
"""Where a call's price or size is not known: taken at the ceiling of the price list, refused, or at so many nano-USD."""
CEILING: Unpriced = "ceiling"


@dataclass(frozen=True, slots=True)
class Unbounded:
    """What becomes of a call that states no bound for its output."""

    act: Literal["insert", "assume", "deny"]
    tokens: int = 4096


ASSUMED = Unbounded("assume")


@dataclass(frozen=True, slots=True)
class Cap:
    """A limit, in the unit of its account."""

    account: Account | None
    """None: it holds for each call by itself, and nothing is counted."""
    unit: Unit
    limit: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Of one entry of the chain, for one call."""

    scope: str
    name: str
    caps: tuple[Cap, ...]
    unbounded: Unbounded = ASSUMED
    unpriced: Unpriced = CEILING
    alerts: tuple[int, ...] = ()
    """Thousandths of each limit."""
    downgrade: str = ""
    """The model that the call is given where it does not fit otherwise; empty: it is refused."""
