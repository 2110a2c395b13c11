"""A house without walls: what a Gate holds, made of plain objects that write down what they are told, in one list."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from douane.asgi import Message
from douane.call import Call, Caller, Headers, Principal, Target, Usage
from douane.chain import AuditRules, Chain, Entry
from douane.edge import EdgeRules
from douane.errors import AuditUnavailableError
from douane.gate import Gate
from douane.policy import traits
from douane.prices import Bill
from douane.providers.base import Provider
from douane.providers.by_host import ByHost
from douane.providers.table import builtin

PROVIDERS = builtin()
OPENAI = PROVIDERS["openai"]
ANTHROPIC = PROVIDERS["anthropic"]
AT = 1_767_323_045.678
BOT = Principal("support-bot", "support", "acme")


def run[T](work: Coroutine[Any, Any, T], seconds: float = 5.0) -> T:
    """*work* to its end, within bounds."""
    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            return await work

    return asyncio.run(bounded())


class Book:
    """An AuditSink: a record is durable some turns of the loop after it was given, and stands in *steps* then."""

    def __init__(self, steps: list[Any] | None = None, broken: tuple[str, ...] = ()) -> None:
        self.steps: list[Any] = [] if steps is None else steps
        self.records: list[dict[str, Any]] = []
        self.broken = broken
        """Kinds that cannot be written."""

    async def append(self, record: dict[str, Any]) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        if record["kind"] in self.broken:
            raise AuditUnavailableError("the disk is full")
        self.records.append(record)
        self.steps.append(record["kind"])

    @property
    def kinds(self) -> list[str]:
        return [record["kind"] for record in self.records]

    @property
    def outcome(self) -> dict[str, Any]:
        (found,) = [record for record in self.records if record["kind"] == "outcome"]
        return found


class Counts:
    """An Observer."""

    def __init__(self) -> None:
        self.running = 0
        self.ended: list[tuple[tuple[str, ...], Mapping[str, float | None], Usage | None, float | None]] = []
        self.asked: list[str] = []
        self.failed: list[str] = []
        self.passed: list[str] = []
        self.beyond = 0.0

    def opened(self) -> None:
        self.running += 1

    def closed(self, labels: tuple[str, str, str, str, str], seconds: Mapping[str, float | None],
               usage: Usage | None, cost_usd: float | None) -> None:
        self.running -= 1
        self.ended.append((labels, seconds, usage, cost_usd))

    def policy(self, name: str, seconds: float) -> None:
        self.asked.append(name)

    def failed_closed(self, code: str) -> None:
        self.failed.append(code)

    def let_through(self, name: str) -> None:
        self.passed.append(name)

    def budgets(self, found: Any) -> None:
        pass

    def overshot(self, usd: float) -> None:
        self.beyond += usd


class Tariff:
    """A Pricing: models called ``gpt-…`` cost 1 USD a token, ten times that in the tier ``priority``; others are not known,
    and 100 USD is the ceiling."""

    def cost(self, provider: str, model: str, usage: Usage, at: float, tier: str = "") -> float | None:
        if not model.startswith("gpt-"):
            return None
        return float(usage.input + usage.output) * (10 if tier == "priority" else 1)

    def bill(self, provider: str, models: tuple[str, ...], usage: Usage, at: float, tier: str = "") -> Bill:
        for model in models:
            cost = self.cost(provider, model, usage, at, tier)
            if cost is not None:
                return Bill(cost, ceiling=False)
        return Bill(100.0 * (usage.input + usage.output), ceiling=True)

    def at_most(self, provider: str, model: str, tokens: tuple[int, int], at: float, tier: str = "") -> Bill:
        return self.bill(provider, (model,), Usage(*tokens), at, tier)

    def known(self, provider: str, model: str) -> str | None:
        return "gpt-4o" if model.startswith("gpt-") else None


class Policy:
    """Any policy: the callables that are given become its methods."""

    def __init__(self, admit: Callable[[Call], Any] | None = None, *, settle: Callable[..., Any] | None = None,
                 make: Callable[[Call], Any] | None = None) -> None:
        if admit is not None:
            self.admit = admit
        if settle is not None:
            self.settle = settle
        if make is not None:
            self.filter = make


def entry(policy: Any, name: str = "rule", **more: Any) -> Entry:
    return Entry(name, policy, more.pop("traits", traits(type(policy))), **more)


def chain(*entries: Entry, edge: EdgeRules | None = None, provider: Provider = OPENAI) -> Chain:
    return Chain("f" * 64, entries, edge or EdgeRules(), ByHost((provider,)), AuditRules())


def gate(held: Chain, book: Book | None = None, counts: Counts | None = None) -> Gate:
    return Gate(held, book or Book(), Tariff(), counts or Counts(), clock=lambda: AT)


def call(**more: Any) -> Call:
    given: dict[str, Any] = {
        "id": "0" * 32, "at": AT, "provider": "openai", "operation": "chat", "method": "POST", "host": "api.openai.com",
        "path": "/v1/chat/completions", "query": "", "headers": (), "caller": Caller("127.0.0.1"), "model": "gpt-4o"}
    return Call(**{**given, **more})


TARGET = Target("https", "api.openai.com", 443)


def headers_of(message: Message) -> Headers:
    return tuple(message["headers"])
