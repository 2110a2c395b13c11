"""The two ledgers under one name, for tests that hold for both; and accounts to try them with.

Workers of tests import this: what only one of the ledgers needs is imported where it is used.
"""

import contextlib
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from douane.ledger.base import Account, Demand, Spent, Store, Unit
from douane.ledger.windows import Period, window

__all__ = ["AT", "DAY", "KINDS", "ORG", "TOTAL", "Shop", "account", "demands", "opened", "patience", "shop", "usd", "worker"]

KINDS = ("sqlite", "redis")
ORG = "acme"
AT = 1_767_323_045.678
ROOT = Path(__file__).parents[1]


def account(name: str = "support", period: Period = "day", scope: str = "team", unit: Unit = "usd", org: str = ORG) -> Account:
    return Account(org, "", scope, name, unit, period, *window(period, AT))


DAY, TOTAL = account(), account(period="total")


def demands(amount: int, day: int = 100, total: int | None = None) -> tuple[Demand, ...]:
    first = Demand(DAY, amount, day)
    return (first,) if total is None else (first, Demand(TOTAL, amount, total))


def usd(amount: int) -> Spent:
    return Spent(amount, 0, 1)


def opened(kind: str, place: str, owner: str) -> Store:
    if kind == "sqlite":
        from douane.ledger.sqlite import SqliteLedger
        return SqliteLedger(Path(place), owner)
    from douane.ledger.redis import RedisLedger
    from douane.secrets import Secret
    return RedisLedger(Secret(place), owner)


class Shop:
    """Where one store lies; what it opens is closed with it."""

    def __init__(self, kind: str, place: str) -> None:
        self.kind, self.place = kind, place
        self._opened: list[Store] = []

    def open(self, owner: str = "one") -> Store:
        store = opened(self.kind, self.place, owner)
        self._opened.append(store)
        return store

    def close(self) -> None:
        for one in self._opened:
            one.close()

    def balance(self, of: Account = DAY) -> tuple[int, int]:
        """(captured, reserved)."""
        found = {one.account: one for one in self._opened[-1].balances(AT)}
        return (found[of].captured, found[of].reserved) if of in found else (0, 0)

    def worker(self, code: str, *arguments: object) -> "subprocess.Popen[str]":
        """A process that runs *code* with ``store`` and ``arguments``; its owner is the first of them."""
        return worker(self.kind, self.place, code, *arguments)


_PRELUDE = """
import asyncio, sys, time
from douane.ledger.base import *
from tests.ledgers import *
arguments = sys.argv[3:]
patience(sys.argv[1]).__enter__()
store = opened(sys.argv[1], sys.argv[2], arguments[0])
"""


def worker(kind: str, place: str, code: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", _PRELUDE + code, kind, place, *map(str, arguments)], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            env={"PYTHONPATH": f"{ROOT / 'addons'}:{ROOT}"})


@contextlib.contextmanager
def patience(kind: str) -> Iterator[None]:
    """On a busy machine nobody answers in time: how soon who does not is refused is each ledger's own tests' affair."""
    names = ("patience",) if kind == "sqlite" else ("patience", "redis", "redis_link")
    with contextlib.ExitStack() as stack:
        for name in names:
            importlib.import_module(f"douane.ledger.{name}")
            stack.enter_context(mock.patch(f"douane.ledger.{name}.ANSWER_SECONDS", 4.0))
        if kind == "redis":
            stack.enter_context(mock.patch("douane.ledger.redis_link._DEAD_SECONDS", 4.0))
        yield


@contextlib.contextmanager
def shop(kind: str) -> Iterator[Shop]:
    """An empty one."""
    with tempfile.TemporaryDirectory() as folder, patience(kind):
        if kind == "redis":
            from tests.redis_server import shared
            server = shared()
            with server.client() as client:
                client.flushall()
        one = Shop(kind, folder if kind == "sqlite" else server.url)
        try:
            yield one
        finally:
            one.close()
