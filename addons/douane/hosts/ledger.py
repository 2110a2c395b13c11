"""The ledger for people: balances and emergency stops, of a gateway that runs or of its store.

Law: what is changed here stands in the store when a function returns. The gateway of this data folder acts on it at once,
others that share the store within a second.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator, Sequence
from datetime import UTC, datetime

from douane.control import Client
from douane.errors import ConfigError, EnvironmentFailedError
from douane.hosts.stores import open_store
from douane.ledger.base import Account, Balance, LedgerUnavailableError, Stop, Store
from douane.ledger.sqlite import read_balances
from douane.loader import ledger_rules
from douane.places import Places
from douane.scopes import parse_scope
from douane.stops import ALL

__all__ = ["balances", "checked", "line", "resume", "stop", "stops"]


def balances(places: Places, at: float) -> Sequence[Balance]:
    """Every account whose window holds *at*, and those with open reservations. Raises ConfigError, EnvironmentFailedError."""
    client = _gateway(places)
    if client is not None:
        with client:
            return [Balance(Account(**one.pop("account")), **one) for one in client.ask("balances")["balances"]]
    if ledger_rules(places.policies).url is None:
        return read_balances(places.data, at)
    with _store(places) as store:
        return store.balances(at)


def stops(places: Places) -> Sequence[Stop]:
    """Those in force, the oldest first. Raises ConfigError, EnvironmentFailedError."""
    client = _gateway(places)
    if client is not None:
        with client:
            found = [Stop(**one) for one in client.ask("stops")["stops"]]
    else:
        with _store(places) as store:
            found = list(_run(store.stops()))
    return sorted(found, key=lambda one: one.at)


def stop(places: Places, one: Stop) -> None:
    """Raises ConfigError, EnvironmentFailedError."""
    client = _gateway(places)
    if client is not None:
        with client:
            client.ask("stop_calls", scope=one.scope, name=one.name, running=one.running)
    else:
        with _store(places) as store:
            _run(store.stop(checked(one)))


def checked(one: Stop) -> Stop:
    """*one*, if it can hold for any call: what stands in the store is looked at with each of them."""
    try:
        if one.scope != ALL:
            parse_scope(one.scope)
    except ValueError as error:
        raise ConfigError(f"stop: {error}") from None
    return one


def resume(places: Places, scope: str, name: str) -> bool:
    """Whether there was such a stop. Raises ConfigError, EnvironmentFailedError."""
    client = _gateway(places)
    if client is not None:
        with client:
            return bool(client.ask("resume_calls", scope=scope, name=name)["found"])
    with _store(places) as store:
        return _run(store.resume(scope, name))


def line(one: Stop) -> str:
    """For a terminal."""
    since = datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{one.scope} {one.name}".strip() + f"  since {since}" + ("  (and those that ran)" if one.running else "")


def _gateway(places: Places) -> Client | None:
    """The running one of this data folder."""
    try:
        return Client(places.control)
    except EnvironmentFailedError:
        return None


@contextlib.contextmanager
def _store(places: Places) -> Iterator[Store]:
    rules = ledger_rules(places.policies)
    if rules.url is None and not places.data.is_dir():
        raise EnvironmentFailedError(f"{places.data}: there is no gateway here")
    store = open_store(rules, places.data, "admin")
    try:
        yield store
    finally:
        store.close()


def _run[T](work: Awaitable[T]) -> T:
    async def bounded() -> T:
        return await work

    try:
        return asyncio.run(bounded())
    except LedgerUnavailableError as error:
        raise EnvironmentFailedError(f"the ledger cannot be reached: {error.reason}") from None
