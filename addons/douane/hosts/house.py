"""What a gateway is made of, opened and checked before anything listens."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from douane.audit import record
from douane.audit.log import AuditLog
from douane.ca import Authority
from douane.loader import Loaded, load, tls_names
from douane.people import Tokens
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


def open_house(places: Places) -> House:
    """Load, open and make what a gateway needs. Raises ConfigError, EnvironmentFailedError."""
    tokens = Tokens()
    loaded = load(places.policies, tokens=tokens)
    private_folder(places.data)
    private_folder(places.certs)
    authority = Authority.open(places.certs, tls_names(loaded))
    prices = Prices.open(places.data, price_lists(loaded), overrides(loaded))
    audit = AuditLog.open(places.audit, node_name(os.environ))
    closed = close_orphans(audit, time.time)
    if closed:
        log.warning("calls of a gateway that died were closed as unknown", extra={"calls": closed})
    return House(loaded, tokens, prices, audit, authority)


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
