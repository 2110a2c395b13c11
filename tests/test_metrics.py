"""What ``/metrics`` shows: parsed as Prometheus would, equal to what was counted, and of bounded size."""

import json
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from douane.call import Usage
from douane.exchange import Exchange
from douane.gate import Gate
from douane.ledger.base import NANO, Account, Balance
from douane.metrics import Metrics
from douane.pricerules import Rules
from douane.prices import Prices
from douane.rates import Rates
from tests import house

type Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

LABELS = ("openai", "chat", "gpt-4o", "support", "allow")
WHO = {"provider": "openai", "operation": "chat", "model": "gpt-4o", "team": "support"}


def seconds(total: float, gateway: float, upstream: float | None = None, first: float | None = None) -> dict[str, float | None]:
    return {"total": total, "gateway": gateway, "upstream": upstream, "first_token": first}


def read(metrics: Metrics) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} stands twice"
            found[key] = sample.value
    return found


def value(samples: Samples, sample: str, /, **labels: str) -> float:
    return samples[sample, frozenset(labels.items())]


def test_before_the_first_call() -> None:
    assert value(read(Metrics()), "douane_exchanges_running") == 0


def test_counts_equal_what_was_told() -> None:
    metrics = Metrics()
    for _ in range(4):
        metrics.opened()
    metrics.closed(LABELS, seconds(1.0, 0.001, 0.9, 0.2), Usage(10, 5, 3, 2, 1, 4), 0.25)
    metrics.closed(LABELS, seconds(2.0, 0.002, 1.9, 0.3), Usage(1, 1), 0.5)
    metrics.closed((*LABELS[:4], "pii_found"), seconds(0.1, 0.1), None, None)
    samples = read(metrics)
    assert value(samples, "douane_exchanges_running") == 1
    assert value(samples, "douane_calls_total", **WHO, verdict="allow") == 2
    assert value(samples, "douane_calls_total", **WHO, verdict="pii_found") == 1
    assert value(samples, "douane_cost_usd_total", **WHO) == 0.75
    kinds = {"input": 11, "output": 6, "cached_input": 3, "cache_write": 2, "reasoning": 4}
    assert {kind: value(samples, "douane_tokens_total", **WHO, kind=kind) for kind in kinds} == kinds
    where = {"provider": "openai", "operation": "chat"}
    for name, count, total in (("call", 3, 3.1), ("gateway", 3, 0.103), ("upstream", 2, 2.8), ("first_byte", 2, 0.5)):
        assert value(samples, f"douane_{name}_seconds_count", **where) == count
        assert value(samples, f"douane_{name}_seconds_sum", **where) == pytest.approx(total)
        assert value(samples, f"douane_{name}_seconds_bucket", **where, le="+Inf") == count


def test_buckets_hold_what_is_not_longer() -> None:
    metrics = Metrics()
    for took in (0.005, 0.0051, 0.01, 400.0):
        metrics.closed(LABELS, seconds(took, 0.0), None, None)
    samples = read(metrics)
    where = {"provider": "openai", "operation": "chat"}
    bounds = ("0.005", "0.01", "0.025", "300.0", "+Inf")
    counts = [value(samples, "douane_call_seconds_bucket", **where, le=le) for le in bounds]
    assert counts == [1, 3, 3, 3, 4]


def test_policies_failures_and_tunnels() -> None:
    metrics = Metrics()
    metrics.policy("authenticate", 0.00007)
    metrics.policy("authenticate", 2.0)
    for _ in range(3):
        metrics.failed_closed("policy_error")
    metrics.let_through("redact")
    metrics.tunnel("tunnelled")
    metrics.tunnel("host_not_allowed")
    samples = read(metrics)
    assert value(samples, "douane_policy_seconds_count", policy="authenticate") == 2
    assert value(samples, "douane_policy_seconds_bucket", policy="authenticate", le="0.0001") == 1
    assert value(samples, "douane_policy_seconds_bucket", policy="authenticate", le="1.0") == 1
    assert value(samples, "douane_failed_closed_total", code="policy_error") == 3
    assert value(samples, "douane_let_through_total", policy="redact") == 1
    assert value(samples, "douane_tunnels_total", decision="tunnelled") == 1
    assert value(samples, "douane_tunnels_total", decision="host_not_allowed") == 1


def test_budgets_and_what_went_beyond_them() -> None:
    metrics = Metrics()
    account = Account("acme", "", "team", "support", "usd", "day", 0, 86400)
    users = replace(account, scope="user", name="made up")
    metrics.budgets([Balance(account, 2 * NANO, NANO // 2, 50 * NANO), Balance(users, 1, 1, 1),
                     Balance(replace(account, unit="tokens"), 7, 3, None)])
    metrics.overshot(0.25)
    metrics.overshot(0.5)
    samples = read(metrics)
    labels = {"org": "acme", "scope": "team", "name": "support", "book": "", "window": "day", "unit": "usd"}
    assert [value(samples, f"douane_budget_{what}", **labels) for what in ("limit", "spent", "reserved")] == [50, 2, 0.5]
    assert value(samples, "douane_budget_spent", **{**labels, "unit": "tokens"}) == 7
    assert value(samples, "douane_overshot_calls_total") == 2
    assert value(samples, "douane_overshot_usd_total") == 0.75
    assert "made up" not in metrics.text().decode()


def test_labels_are_escaped() -> None:
    metrics = Metrics()
    odd = 'a"b\\c\nd'
    metrics.closed(("openai", "chat", "gpt-4o", odd, "allow"), seconds(1, 1), None, None)
    assert value(read(metrics), "douane_calls_total", **{**WHO, "team": odd}, verdict="allow") == 1


def test_what_callers_make_up_becomes_no_label() -> None:
    """A real exchange with a real price list: model names of a caller's invention all count as ``other``."""
    metrics = Metrics()
    prices = Prices(Rules.of({"gpt-4o": Rates(1.0, 1.0), "llama3*": Rates()}))
    gate = Gate(house.chain(), house.Book(), prices, metrics)
    for number in range(50):
        for model in (f"invented-{number}", f"llama3-{number}", "gpt-4o", ""):
            one = Exchange(gate, house.OPENAI, None, house.call(model=model, principal=house.BOT, operation="unknown",
                                                                path=f"/invented/{number}", host="api.openai.com"))
            house.run(one.finish("complete"))
    calls = {labels: count for (name, labels), count in read(metrics).items() if name == "douane_calls_total"}
    assert {dict(labels)["model"]: count for labels, count in calls.items()} == {"other": 100, "llama3*": 50, "gpt-4o": 50}
    assert len(calls) == 3
    assert "invented" not in metrics.text().decode()


def test_counts_of_several_processes_add_up() -> None:
    both, parts = Metrics(), (Metrics(), Metrics())
    for number, one in enumerate(parts):
        for metrics in (one, both):
            for _ in range(number + 1):
                metrics.opened()
                metrics.opened()
                metrics.closed(LABELS, seconds(0.2, 0.001, 0.1), Usage(input=7, output=5), 0.25)
                metrics.closed((*LABELS[:3], f"team-{number}", "deny"), seconds(0.01, 0.01), None, None)
                metrics.policy("redact", 0.003)
                metrics.failed_closed("policy_error")
                metrics.let_through("redact")
                metrics.tunnel("tunnelled")
                metrics.overshot(0.125)
            metrics.opened()
    total = Metrics()
    for one in parts:
        total.add(json.loads(json.dumps(one.counts())))
    assert read(total) == read(both)
    assert value(read(total), "douane_exchanges_running") == 2
    ended = Metrics()
    ended.add(parts[0].counts(), ended=True)
    assert value(read(ended), "douane_exchanges_running") == 0, "what ran in a process that is no more"
    assert value(read(ended), "douane_calls_total", **WHO, verdict="allow") == 1
