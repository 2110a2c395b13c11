"""What ``/metrics`` shows.

Law 7 and bounded cardinality: labels are names of our own tables, teams from the policy files, and model names only where
the price list has them (``other`` otherwise). Nothing that a caller can make up becomes a label.

The counts are kept in plain dictionaries of one event loop and turned into prometheus-client's families when somebody
asks: its own counters take a lock at each step, which made a twentieth of a call's CPU.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from douane.call import Usage
from douane.ledger.base import NANO, Account, Balance

__all__ = ["Metrics"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
FINE = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
"""Upper bounds of buckets, seconds: of whole calls, and of the gateway's own part."""
_KINDS = ("input", "output", "cached_input", "cache_write", "reasoning")
_LATENCIES = (
    ("total", "douane_call_seconds", "From the first byte of a request to the end of its answer", SECONDS),
    ("gateway", "douane_gateway_seconds", "The gateway's own part of a call", FINE),
    ("upstream", "douane_upstream_seconds", "The provider's part of a call", SECONDS),
    ("first_token", "douane_first_byte_seconds", "To the first byte of an answer's body", SECONDS),
)


_NAMED_BY_US = frozenset({"principal", "team", "org", "provider"})
_MOST_BUDGETS = 1000


class _Histogram:
    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def parts(self) -> tuple[list[int], float]:
        """(counts, sum), for :meth:`add`."""
        return list(self._counts), self._sum

    def add(self, counts: Sequence[int], total: float) -> None:
        self._counts = [a + b for a, b in zip(self._counts, counts, strict=True)]
        self._sum += total

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """(cumulative (upper bound, count) pairs, sum)."""
        pairs, total = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            pairs.append((bound, float(total)))
        return pairs, self._sum


class _Calls:
    """Of one set of labels: calls, USD, tokens by kind."""

    __slots__ = ("cost", "count", "tokens")

    def __init__(self) -> None:
        self.count = 0
        self.cost = 0.0
        self.tokens = [0] * len(_KINDS)


class Metrics(Collector):
    """Counts for one process. Every method is cheap and raises nothing."""

    def __init__(self) -> None:
        self._running = 0
        self._calls: dict[tuple[str, str, str, str, str], _Calls] = {}
        self._latencies: dict[tuple[str, str], tuple[_Histogram, ...]] = {}
        self._policies: dict[str, _Histogram] = {}
        self._failed: dict[str, int] = {}
        self._through: dict[str, int] = {}
        self._tunnels: dict[str, int] = {}
        self._overshot = [0.0, 0.0]
        self._budgets: Sequence[Balance] = ()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def opened(self) -> None:
        self._running += 1

    def closed(self, labels: tuple[str, str, str, str, str], seconds: Mapping[str, float | None],
               usage: Usage | None, cost_usd: float | None) -> None:
        """*labels*: provider, operation, model, team, verdict."""
        self._running -= 1
        calls = self._calls.get(labels)
        if calls is None:
            calls = self._calls[labels] = _Calls()
        calls.count += 1
        if cost_usd:
            calls.cost += cost_usd
        if usage is not None:
            tokens = calls.tokens
            tokens[0] += usage.input
            tokens[1] += usage.output
            tokens[2] += usage.cached_input
            tokens[3] += usage.cache_write
            tokens[4] += usage.reasoning
        histograms = self._latencies.get(labels[:2])
        if histograms is None:
            histograms = self._latencies[labels[:2]] = tuple(_Histogram(bounds) for *_, bounds in _LATENCIES)
        for histogram, value in zip(histograms, seconds.values(), strict=True):
            if value is not None:
                histogram.observe(value)

    def policy(self, name: str, seconds: float) -> None:
        histogram = self._policies.get(name)
        if histogram is None:
            histogram = self._policies[name] = _Histogram(FINE)
        histogram.observe(seconds)

    def failed_closed(self, code: str) -> None:
        self._failed[code] = self._failed.get(code, 0) + 1

    def overshot(self, usd: float) -> None:
        self._overshot[0] += 1
        self._overshot[1] += usd

    def budgets(self, found: Sequence[Balance]) -> None:
        """How they stand now: of scopes whose names stand in policy files or in our tables."""
        self._budgets = [one for one in found if one.account.scope in _NAMED_BY_US][:_MOST_BUDGETS]

    def let_through(self, name: str) -> None:
        self._through[name] = self._through.get(name, 0) + 1

    def tunnel(self, decision: str) -> None:
        """*decision*: ``tunnelled`` or the denial code."""
        self._tunnels[decision] = self._tunnels.get(decision, 0) + 1

    def counts(self) -> dict[str, Any]:
        """All of it as JSON can carry it, for :meth:`add`."""
        return {"running": self._running,
                "calls": [[labels, one.count, one.cost, one.tokens] for labels, one in self._calls.items()],
                "latencies": [[labels, [one.parts() for one in found]] for labels, found in self._latencies.items()],
                "policies": [[name, found.parts()] for name, found in self._policies.items()],
                "failed": dict(self._failed), "through": dict(self._through), "tunnels": dict(self._tunnels),
                "overshot": list(self._overshot), "budgets": [asdict(one) for one in self._budgets]}

    def add(self, counts: Mapping[str, Any], *, ended: bool = False) -> None:
        """What :meth:`counts` of another process said. *ended*: it is no more, and what ran there runs no longer."""
        self._running += 0 if ended else counts["running"]
        for labels, count, cost, tokens in counts["calls"]:
            calls = self._calls.setdefault(tuple(labels), _Calls())
            calls.count += count
            calls.cost += cost
            calls.tokens = [a + b for a, b in zip(calls.tokens, tokens, strict=True)]
        for labels, found in counts["latencies"]:
            mine = self._latencies.setdefault(tuple(labels), tuple(_Histogram(bounds) for *_, bounds in _LATENCIES))
            for one, parts in zip(mine, found, strict=True):
                one.add(*parts)
        for name, parts in counts["policies"]:
            self._policies.setdefault(name, _Histogram(FINE)).add(*parts)
        for into, more in ((self._failed, "failed"), (self._through, "through"), (self._tunnels, "tunnels")):
            for name, count in counts[more].items():
                into[name] = into.get(name, 0) + count
        self._overshot = [a + b for a, b in zip(self._overshot, counts["overshot"], strict=True)]
        if not ended:  # everybody's are the same, as each has looked at them last
            self._budgets = [Balance(Account(**one.pop("account")), **one) for one in map(dict, counts["budgets"])]

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("douane_exchanges_running", "Exchanges (calls and streams) that have not ended",
                                float(self._running))
        yield from self._collect_calls()
        for index, (_, name, what, _) in enumerate(_LATENCIES):
            yield _histograms(name, what, ("provider", "operation"),
                              {labels: found[index] for labels, found in self._latencies.items()})
        yield _histograms("douane_policy_seconds", "Time in a policy's admit", ("policy",),
                          {(name,): histogram for name, histogram in self._policies.items()})
        yield _counter("douane_failed_closed", "Calls refused because something failed, not because of what they were",
                       "code", self._failed)
        yield from _gauges(self._budgets)
        yield CounterMetricFamily("douane_overshot_calls", "Calls that cost more than was held for them", self._overshot[0])
        yield CounterMetricFamily("douane_overshot_usd", "What they cost beyond that", self._overshot[1])
        yield _counter("douane_let_through", "Failures of a policy that on_error: allow let pass", "policy", self._through)
        yield _counter("douane_tunnels", "Connections to hosts that are not governed", "decision", self._tunnels)

    def _collect_calls(self) -> Iterator[Metric]:
        calls = CounterMetricFamily("douane_calls", "Calls to governed hosts that have ended",
                                    labels=("provider", "operation", "model", "team", "verdict"))
        who = ("provider", "operation", "model", "team")
        tokens = CounterMetricFamily("douane_tokens", "Tokens, as providers report them", labels=(*who, "kind"))
        cost = CounterMetricFamily("douane_cost_usd", "Cost of ended calls whose price is known", labels=who)
        summed: dict[tuple[str, ...], _Calls] = {}
        for labels, one in self._calls.items():
            calls.add_metric(labels, one.count)
            total = summed.setdefault(labels[:4], _Calls())
            total.cost += one.cost
            total.tokens = [a + b for a, b in zip(total.tokens, one.tokens, strict=True)]
        for key, total in summed.items():
            cost.add_metric(key, total.cost)
            for kind, count in zip(_KINDS, total.tokens, strict=True):
                tokens.add_metric((*key, kind), count)
        yield from (calls, tokens, cost)


def _gauges(budgets: Sequence[Balance]) -> Iterator[Metric]:
    """Amounts in the account's unit; money in USD."""
    labels = ("org", "scope", "name", "book", "window", "unit")
    limit = GaugeMetricFamily("douane_budget_limit", "The limit of a budget in its window", labels=labels)
    spent = GaugeMetricFamily("douane_budget_spent", "What was charged to a budget in its window", labels=labels)
    reserved = GaugeMetricFamily("douane_budget_reserved", "What a budget holds for calls that run", labels=labels)
    for one in budgets:
        of = one.account
        key, part = (of.org, of.scope, of.name, of.book, of.period, of.unit), NANO if of.unit == "usd" else 1
        if one.limit is not None:
            limit.add_metric(key, one.limit / part)
        spent.add_metric(key, one.captured / part)
        reserved.add_metric(key, one.reserved / part)
    yield from (limit, spent, reserved)


def _histograms(name: str, what: str, labels: tuple[str, ...],
                found: Mapping[tuple[str, ...], _Histogram]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, what, labels=labels)
    for key, histogram in found.items():
        buckets, total = histogram.buckets()
        family.add_metric(key, buckets, total)
    return family


def _counter(name: str, what: str, label: str, found: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, what, labels=(label,))
    for key, count in found.items():
        family.add_metric((key,), count)
    return family
