"""What a gateway is made of, opened and checked before anything listens."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from douane.audit import record
from douane.audit.log import AuditLog
from douane.ca import Authority
from douane.datakey import open_data_key
from douane.ledger.sqlite import SqliteLedger
from douane.ledger.till import Till
from douane.loader import Loaded, load, tls_names
from douane.people import Tokens
from douane.placeholders import DataKey
from douane.places import Places, node_name, private_folder
from douane.prices import Prices, Rates

__all__ = ["House", "open_house", "overrides"]

log = logging.getLogger("douane.gateway")


@dataclass(frozen=True, slots=True)
class House:
    """What a gateway is made of, opened and checked. *audit* None: nothing is recorded (benchmarks only)."""

    loaded: Loaded
    tokens: Tokens
    prices: Prices
    audit: AuditLog | None
    authority: Authority
    till: Till = field(default_factory=Till)
    ledger: SqliteLedger | None = None
    """Behind the till; None: nothing can be reserved (benchmarks without budgets only)."""
    data_key: DataKey = field(default_factory=DataKey)


def open_house(places: Places) -> House:
    """Load, open and make what a gateway needs. Raises ConfigError, EnvironmentFailedError."""
    tokens, till, data_key = Tokens(), Till(), DataKey()
    loaded = load(places.policies, tokens=tokens, till=till, data_key=data_key)
    private_folder(places.data)
    data_key.give(open_data_key(places.data / "secret.key"))
    private_folder(places.certs)
    authority = Authority.open(places.certs, tls_names(loaded))
    prices = Prices.open(places.data, price_lists(loaded), overrides(loaded))
    audit = AuditLog.open(places.audit, node_name(os.environ))
    ledger = SqliteLedger.open(places.data)
    ledger.charge_orphans([orphan["id"] for orphan in audit.orphans])  # before their outcomes say so
    closed = close_orphans(audit, time.time)
    if closed:
        log.warning("calls of a gateway that died were closed as unknown", extra={"calls": closed})
    till.ledger, till.prices = ledger, prices
    return House(loaded, tokens, prices, audit, authority, till, ledger, data_key)


def close_orphans(audit: AuditLog, clock: Callable[[], float]) -> int:
    """Write the outcome of every intent that an earlier process left open: ``ended: unknown``. Returns how many."""
    for orphan in audit.orphans:
        audit.append_blocking(record.unknown(orphan, clock()))
    return len(audit.orphans)


def price_lists(loaded: Loaded) -> dict[str, str]:
    """Provider → id of its price list; providers without one are left out."""
    return {name: provider.prices for name, provider in loaded.providers.items() if provider.prices}


def overrides(loaded: Loaded) -> dict[str, Rates]:
    """``prices:`` of the policy files."""
    return {name: Rates(**price) for name, price in loaded.prices.items()}
