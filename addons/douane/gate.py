"""What every host holds: the current chain, the audit log, prices, metrics, the clock.

Law 8: an exchange keeps the chain it began with. ``adopt`` swaps the chain for exchanges that open from then on.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from douane.answer import Capture
from douane.call import Call, Usage
from douane.chain import Chain
from douane.ledger.base import Balance, ClosedLedger
from douane.providers.base import Wire
from douane.purse import Most, Till
from douane.stops import StopBoard

__all__ = ["AuditSink", "Bill", "Gate", "Observer", "Pricing", "Scribe", "new_id", "other_ids"]

_random = random.SystemRandom()
_sequence = random.Random()  # noqa: S311 - ids are unique, not secret


def new_id(at: float) -> str:
    """32 hex digits that sort by time: 48 bits of milliseconds, 80 of chance."""
    return f"{int(at * 1000):012x}{_sequence.getrandbits(80):020x}"


def other_ids() -> None:
    """For a process that was forked, which would else go on with the ids of the one it comes from: two calls of one id are
    charged as one. (The kernel's own chance would need no such care, and takes thirty times as long.)"""
    _sequence.seed(_random.getrandbits(256))


other_ids()


class AuditSink(Protocol):
    async def append(self, record: dict[str, Any]) -> None:
        """Return when *record* is durable. Raises AuditUnavailableError within a second otherwise."""
        ...


class Scribe(Protocol):
    """Bodies as the log keeps them (``audit/bodies.py``); what cannot be kept is left out there, and nothing is raised."""

    async def request(self, call: Call) -> dict[str, Any] | None: ...
    async def response(self, call: Call, wire: Wire | None, answer: Capture, *, json: bool = False) -> dict[str, Any] | None:
        """*json*: the answer has been read as one JSON document."""
        ...
    async def names(self, tenant: str, given: Mapping[str, str]) -> Mapping[str, str]: ...


class Bill(Protocol):
    @property
    def usd(self) -> float: ...
    @property
    def ceiling(self) -> bool:
        """Whether some of it has no known price and was taken at the ceiling of ``prices: unknown``: the record says that it
        is estimated."""
        ...


class Pricing(Protocol):
    def bill(self, provider: str, models: tuple[str, ...], usage: Usage, at: float, tier: str = "") -> Bill:
        """What *usage* cost. *models*: the model's names, those that the answer gave before the one that was asked for.
        *tier*: the service tier that the answer named, or ``batch``."""
        ...

    def cost(self, provider: str, model: str, usage: Usage, at: float, tier: str = "") -> float | None:
        """USD; None where the model's price is not known. *tier*: the service tier that the answer named."""
        ...

    def at_most(self, provider: str, model: str, tokens: tuple[int, int], at: float, tier: str = "") -> Most:
        """What *tokens* (input, output) can cost at most, whatever is cached or thought."""
        ...

    def known(self, provider: str, model: str) -> str | None:
        """The price list's own name of *model*: a bounded label."""
        ...


class Observer(Protocol):
    """What counts (``metrics.py``); every method is cheap and raises nothing."""

    def opened(self) -> None: ...
    def closed(self, labels: tuple[str, str, str, str, str], seconds: Mapping[str, float | None],
               usage: Usage | None, cost_usd: float | None) -> None:
        """*labels*: provider, operation, model, team, verdict. *seconds*: total, gateway, upstream, first_token."""
        ...

    def policy(self, name: str, seconds: float) -> None: ...
    def failed_closed(self, code: str) -> None: ...
    def overshot(self, usd: float) -> None:
        """A call cost more than was held for it."""
        ...

    def budgets(self, found: Sequence[Balance]) -> None:
        """How the budgets stand."""
        ...

    def let_through(self, name: str) -> None:
        """A policy failed and its ``on_error: allow`` applied."""
        ...


class Gate:
    """One for a process. *log* None means that nothing is recorded: benchmarks and unit tests only, no configuration
    leads there."""

    def __init__(self, chain: Chain, log: AuditSink | None, prices: Pricing, observer: Observer,
                 clock: Callable[[], float] = time.time, scribe: Scribe | None = None,
                 ledger: Till | None = None) -> None:
        self.chain = chain
        self.ledger: Till = ClosedLedger() if ledger is None else ledger
        self.stops = StopBoard()
        self.scribe = scribe
        """None: no bodies are kept, whatever the chain's audit level."""
        self.log = log
        self.prices = prices
        self.observer = observer
        self.clock = clock

    def adopt(self, chain: Chain) -> None:
        self.chain = chain
