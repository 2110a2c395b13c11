"""What policies that charge find when a call comes: the open ledger and the prices of today.

Policies are bound before the house opens its files, and outlive none of its reloads; the till does. Until the house puts
something in, every reservation is refused.
"""

from dataclasses import dataclass
from typing import Protocol

from douane.ledger.base import ClosedLedger, Ledger

__all__ = ["Most", "Pricing", "Till"]


class Most(Protocol):
    @property
    def usd(self) -> float: ...
    @property
    def ceiling(self) -> bool:
        """Whether some of it has no known price and was taken at the ceiling."""
        ...


class Pricing(Protocol):
    def at_most(self, provider: str, model: str, tokens: tuple[int, int], at: float, tier: str = "") -> Most:
        """What *tokens* (input, output) can cost at most, whatever is cached or thought."""
        ...


@dataclass(frozen=True, slots=True)
class _Unknown:
    usd: float = 0.0
    ceiling: bool = True


class _NoPrices:
    def at_most(self, provider: str, model: str, tokens: tuple[int, int], at: float, tier: str = "") -> Most:
        return _Unknown()


class Till:
    __slots__ = ("ledger", "prices")

    def __init__(self) -> None:
        self.ledger: Ledger = ClosedLedger()
        self.prices: Pricing = _NoPrices()
