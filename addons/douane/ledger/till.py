"""What policies that charge find when a call comes: the open ledger and the prices of today.

Policies are bound before the house opens its files, and outlive none of its reloads; the till does. Until the house puts
something in, every reservation is refused.
"""

from typing import Protocol

from douane.ledger.base import ClosedLedger, Ledger

__all__ = ["Pricing", "Till"]


class Pricing(Protocol):
    def at_most(self, provider: str, model: str, tokens: tuple[int, int], at: float, tier: str = "") -> float | None:
        """USD that *tokens* (input, output) can cost at most, whatever is cached or thought; None: no price is known."""
        ...


class _NoPrices:
    def at_most(self, provider: str, model: str, tokens: tuple[int, int], at: float, tier: str = "") -> float | None:
        return None


class Till:
    __slots__ = ("ledger", "prices")

    def __init__(self) -> None:
        self.ledger: Ledger = ClosedLedger()
        self.prices: Pricing = _NoPrices()
