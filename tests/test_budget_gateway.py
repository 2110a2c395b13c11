"""Budgets in a real gateway, with the real SDKs: what they raise, what is left, what outlasts a reload and a kill."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from douane.control import Client
from douane.demo.provider import LocalProvider, running_provider
from douane.environment import prepare
from douane.ledger.base import Balance
from douane.ledger.sqlite import FILE, read_balances
from tests.gateway import Gateway, Got, Wire, chat, command, environ, policy, ran, request, running_gateway, untouched, wait_for

PRICED = "prices: {gpt-4o-mini: {input: 0.0, output: 1000.0}, claude-test: {input: 0.0, output: 1000.0}}"
"""A token of output costs a tenth of a cent."""


def rules(limit: str, unbounded: str = "insert 100") -> str:
    return ("  - authenticate: {unknown: deny}\n"
            f"  - budget: {{per: team, limit: {limit}, unbounded: {unbounded}}}\n"
            "  - swap_key: {missing: keep}")


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as one:
        yield one


@pytest.fixture
def gateway(tmp_path: Path, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """With 0.25 USD a day, and this process under the variables of ``douane env``."""
    with running_gateway(tmp_path, policy(provider, chain=rules("0.25 USD/day"), more=PRICED)) as one:
        for name in list(os.environ):
            if re.fullmatch(r"(?i)(https?|all|no)_proxy|(OPENAI|ANTHROPIC)_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE", name):
                monkeypatch.delenv(name)
        for name, value in prepare(one.url, one.base / "certs", {}).items():
            if value is not None:
                monkeypatch.setenv(name, value)
        monkeypatch.setenv("OPENAI_API_KEY", "app-key")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "app-key")
        yield one


def balance(gateway: Gateway) -> Balance:
    (one,) = read_balances(gateway.data, time.time())
    return one


def settled(gateway: Gateway) -> Balance:
    """The balance once every call that has ended is booked: that is done behind its end."""
    wait_for(lambda: not balance(gateway).reserved)
    return balance(gateway)


def post(gateway: Gateway, body: bytes) -> Got:
    with Wire.tls(gateway) as wire:
        wire.send(request(body))
        return wire.answer()


def test_a_budget_runs_out_and_the_sdks_say_so_once(gateway: Gateway, provider: LocalProvider) -> None:
    asked: Any = [{"role": "user", "content": "one two three"}]
    with openai.OpenAI() as client, anthropic.Anthropic() as other:
        client.chat.completions.create(model="gpt-4o-mini", messages=asked)
        assert json.loads(provider.seen[-1].body)["max_completion_tokens"] == 100
        for chunk in client.chat.completions.create(model="gpt-4o-mini", messages=asked, stream=True,
                                                    stream_options={"include_usage": True}):
            assert chunk.id
        other.messages.create(model="claude-test", max_tokens=100, messages=asked)
        spent = [one["cost_usd"] for one in gateway.records() if one["kind"] == "outcome"]
        now = settled(gateway)
        assert now.captured == round(sum(spent) * 1e9)
        assert (now.reserved, now.limit, now.account.name) == (0, 250_000_000, "dev")
        calls = [one for one in gateway.records() if one["kind"] != "event"]
        assert {round(one["reserved_usd"], 6) for one in calls} == {0.1}
        with untouched(provider):
            with pytest.raises(openai.RateLimitError) as refused:
                client.chat.completions.create(model="gpt-4o-mini", messages=asked, max_completion_tokens=300)
            assert refused.value.code == "insufficient_quota"
            assert refused.value.response.headers["x-should-retry"] == "false"
            assert refused.value.response.headers["x-douane-code"] == "budget_exceeded"
            assert 0 < int(refused.value.response.headers["retry-after"]) <= 86400
            with pytest.raises(openai.RateLimitError):
                client.responses.create(model="gpt-4o-mini", input="x", max_output_tokens=300, stream=True)
            with pytest.raises(anthropic.APIStatusError) as unpaid:
                other.messages.create(model="claude-test", max_tokens=300, messages=asked)
            assert unpaid.value.status_code == 402
            assert unpaid.value.body["error"]["type"] == "billing_error"  # type: ignore[index]
    assert len([one for one in gateway.records() if one["kind"] == "outcome"]) == 6, "one attempt each"
    assert balance(gateway) == now


def test_balances_outlast_reload_and_restart(gateway: Gateway, provider: LocalProvider) -> None:
    assert post(gateway, chat()).status == 200
    before = settled(gateway)
    assert before.captured > 0
    gateway.policy_file.write_text(policy(provider, chain=rules("0.20 USD/day"), more="ledger: sqlite\n" + PRICED))
    with Client(gateway.data / "control.sock") as client:
        client.ask("reload")
    assert post(gateway, chat()).status == 200
    after = settled(gateway)
    assert after.captured > before.captured
    assert after.limit == 200_000_000
    gateway.stop()
    gateway.start()
    assert balance(gateway) == after
    assert json.loads(said(gateway, "--json"))[0]["spent"] == after.captured / 1e9


def said(gateway: Gateway, *words: str) -> str:
    done = ran(command(gateway.base, "budget", *words), environ())
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_douane_budget(gateway: Gateway) -> None:
    assert "no budget has been charged" in said(gateway)
    assert json.loads(said(gateway, "--json")) == []
    assert post(gateway, chat()).status == 200
    one = settled(gateway)
    (told,) = json.loads(said(gateway, "--json"))
    assert told["scope"] == "team"
    assert told["name"] == "dev"
    assert told["window"] == "day"
    assert (told["limit"], told["spent"], told["reserved"]) == (0.25, one.captured / 1e9, 0.0)
    assert told["left"] == pytest.approx(0.25 - told["spent"])
    assert re.search(r"^team +dev +- +day +\S+ 00:00 +0\.250000", said(gateway), re.MULTILINE)
    assert "no budget" in said(gateway, "--per=org")


def test_a_killed_gateway_leaves_its_calls_charged(gateway: Gateway, provider: LocalProvider) -> None:
    go = threading.Event()
    before = provider.script

    def late(seen: Any) -> Any:
        go.wait(5)
        return before(seen)

    provider.script = late
    try:
        with Wire.tls(gateway) as wire:
            wire.send(request(chat()))
            wait_for(lambda: any(one["kind"] == "intent" for one in gateway.records()))
            assert balance(gateway).reserved == 100_000_000
            gateway.stop(signal.SIGKILL)
    finally:
        go.set()
        provider.script = before
    gateway.start()
    now = balance(gateway)
    assert (now.captured, now.reserved) == (100_000_000, 0)
    unknown = gateway.last_outcome()
    assert (unknown["ended"], unknown["reserved_usd"]) == ("unknown", 0.1)


def test_without_its_ledger_nothing_passes(gateway: Gateway, provider: LocalProvider) -> None:
    assert post(gateway, chat()).status == 200
    (gateway.data / FILE).rename(gateway.data / "away")
    with untouched(provider):
        began = time.monotonic()
        got = post(gateway, chat())
        assert time.monotonic() - began < 0.6
    assert (got.status, got.code) == (503, "ledger_unavailable")

    def ready() -> int:
        with Wire.to(gateway.admin) as wire:
            wire.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return wire.answer().status

    assert ready() == 503
    (gateway.data / "away").rename(gateway.data / FILE)
    assert wait_for(lambda: ready() == 200)
    assert post(gateway, chat()).status == 200
