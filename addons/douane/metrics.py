"""What ``/metrics`` shows.

Law 7 and bounded cardinality: labels are names of our own tables, teams from the policy files, and model names only where
the price list has them (``other`` otherwise). Nothing that a caller can make up becomes a label.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from douane.call import Usage

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_FINE = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
_CALL = ("provider", "operation", "model", "team", "verdict")
_KINDS = ("input", "output", "cached_input", "cache_write", "reasoning")


class Metrics:
    """Counts for one process. Every method is cheap and raises nothing."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        new = {"registry": self.registry}
        self._calls = Counter("douane_calls", "Calls to governed hosts that have ended", _CALL, **new)
        self._running = Gauge("douane_exchanges_running", "Exchanges (calls and streams) that have not ended", **new)
        self._tokens = Counter("douane_tokens", "Tokens, as providers report them", ("provider", "model", "team", "kind"), **new)
        self._cost = Counter("douane_cost_usd", "Cost of ended calls whose price is known", ("provider", "model", "team"), **new)
        self._total = Histogram("douane_call_seconds", "From the first byte of a request to the end of its answer",
                                ("provider", "operation"), buckets=_SECONDS, **new)
        self._gateway = Histogram("douane_gateway_seconds", "The gateway's own part of a call", ("provider", "operation"),
                                  buckets=_FINE, **new)
        self._upstream = Histogram("douane_upstream_seconds", "The provider's part of a call", ("provider", "operation"),
                                   buckets=_SECONDS, **new)
        self._first = Histogram("douane_first_byte_seconds", "To the first byte of an answer's body", ("provider", "operation"),
                                buckets=_SECONDS, **new)
        self._policy = Histogram("douane_policy_seconds", "Time in a policy's admit", ("policy",), buckets=_FINE, **new)
        self._failed = Counter("douane_failed_closed", "Calls refused because something failed, not because of what they were",
                               ("code",), **new)
        self._through = Counter("douane_let_through", "Failures of a policy that on_error: allow let pass", ("policy",), **new)
        self._tunnels = Counter("douane_tunnels", "CONNECTs to hosts that are not governed", ("decision",), **new)
        self._children: dict[tuple[str, ...], tuple[Counter, ...]] = {}
        self._latencies: dict[tuple[str, str], tuple[Histogram, ...]] = {}
        self._policies: dict[str, Histogram] = {}

    def opened(self) -> None:
        self._running.inc()

    def closed(self, labels: tuple[str, str, str, str, str], seconds: Mapping[str, float | None],
               usage: Usage | None, cost_usd: float | None) -> None:
        self._running.dec()
        counters = self._children.get(labels)
        if counters is None:
            provider, _, model, team, _ = labels
            counters = self._children[labels] = (
                self._calls.labels(*labels), self._cost.labels(provider, model, team),
                *(self._tokens.labels(provider, model, team, kind) for kind in _KINDS))
        counters[0].inc()
        if cost_usd:
            counters[1].inc(cost_usd)
        if usage is not None:
            for counter, kind in zip(counters[2:], _KINDS, strict=True):
                tokens = getattr(usage, kind)
                if tokens:
                    counter.inc(tokens)
        histograms = self._latencies.get(labels[:2])
        if histograms is None:
            histograms = self._latencies[labels[:2]] = tuple(
                one.labels(*labels[:2]) for one in (self._total, self._gateway, self._upstream, self._first))
        for histogram, name in zip(histograms, ("total", "gateway", "upstream", "first_token"), strict=True):
            value = seconds[name]
            if value is not None:
                histogram.observe(value)

    def policy(self, name: str, seconds: float) -> None:
        child = self._policies.get(name)
        if child is None:
            child = self._policies[name] = self._policy.labels(name)
        child.observe(seconds)

    def failed_closed(self, code: str) -> None:
        self._failed.labels(code).inc()

    def let_through(self, name: str) -> None:
        self._through.labels(name).inc()

    def tunnel(self, decision: str) -> None:
        """*decision*: ``tunnelled`` or the denial code."""
        self._tunnels.labels(decision).inc()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
