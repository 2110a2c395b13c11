"""Rate limits: a bucket's arithmetic, what a call takes and gives back, and what the real SDKs make of a refusal."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from douane.call import Call
from douane.demo.provider import LocalProvider, running_provider
from douane.errors import ConfigError
from douane.exchange import Exchange
from douane.ledger.base import LedgerUnavailableError, Rate
from douane.ledger.limits import judge
from douane.ledger.sqlite import SqliteLedger
from douane.loader import load
from douane.policies.rate_limit import RateLimit
from douane.policy import Setting, traits
from douane.providers.room import Room, anthropic_room, openai_room
from douane.scopes import parse_scope
from douane.tiers import Tier
from douane.units import parse_rate
from douane.verdict import Deny
from tests import house
from tests.gateway import Gateway, Wire, chat, policy, request, running_gateway, wait_for
from tests.house import AT, run
from tests.test_budget import asked, say


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    with contextlib.closing(SqliteLedger(tmp_path)) as opened:
        yield opened


def rule(per: str = "principal", *, tiers: Any = None, **more: Any) -> Any:
    nobody: Any = None
    spelled = ("requests", "tokens")
    given: dict[str, Any] = {name: parse_rate(value) if name in spelled and value != "tier" else value
                             for name, value in more.items()}
    return RateLimit(parse_scope(per), **given).bind(Setting(nobody, nobody, {}, tiers=tiers or {}))


def exchange(ledger: Any, *rules: Any, call: Call | None = None, at: float = AT, **beside: Any) -> Exchange:
    entries = [house.entry(one, "rate_limit", traits=traits(RateLimit), **beside) for one in rules]
    gate = house.gate(house.chain(*entries))
    gate.ledger = ledger
    gate.clock = lambda: at
    return Exchange(gate, house.OPENAI, house.OPENAI.operations[0], replace(call or asked(), at=at))


async def answered(one: Exchange, prompt: int, completion: int) -> None:
    one.forward()
    one.start(200, ((b"content-type", b"application/json"),))
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    one.feed(json.dumps({"model": "gpt-4o", "usage": usage}).encode())
    one.close()
    await one.finish("complete")


# -- the bucket ----------------------------------------------------------------------------------------------------


def test_a_bucket_fills_evenly() -> None:
    of = Rate(("k",), "requests", 60, 60, 5)
    now, full, let = 10**15, 0, []
    for step in range(0, 10_000, 100):  # milliseconds
        full, limited = judge(of, full, now + step * 1000, 1)
        if limited is None:
            let.append(step)
    assert let[:5] == [0, 100, 200, 300, 400], "the burst"
    assert let[5:] == list(range(1000, 10_000, 1000)), "then one a second"


def test_what_is_said_of_a_full_bucket_is_true() -> None:
    of = Rate(("k",), "tokens", 1000, 60, 1000)
    full, limited = judge(of, 0, 10**15, 900)
    assert limited is None
    _, limited = judge(of, full, 10**15, 400)
    assert limited is not None
    assert (limited.remaining, round(limited.retry_after, 3), round(limited.reset_after, 3)) == (100, 18.0, 54.0)
    assert judge(of, full, 10**15 + 17_990_000, 400)[1] is not None
    assert judge(of, full, 10**15 + 18_000_000, 400)[1] is None


def test_what_no_bucket_holds_is_taken_from_a_full_one() -> None:
    of = Rate(("k",), "tokens", 1000, 60, 1000)
    full, limited = judge(of, 0, 10**15, 5000)
    assert limited is None
    assert full == 10**15 + 300_000_000
    assert judge(of, full, 10**15 + 299_000_000, 1000)[1] is not None


# -- what calls take -----------------------------------------------------------------------------------------------


def test_requests(ledger: SqliteLedger) -> None:
    of = rule(requests="2/minute")
    for number in range(2):
        assert run(exchange(ledger, of, call=asked(number=number)).judge_frame(asked(number=number), asks=True)) is None
    third = exchange(ledger, of, call=asked(number=3))
    denial = run(third.admit(third.call))
    assert denial is not None
    assert (denial.code, denial.retry_after) == ("rate_limited", 30.0)
    assert denial.reason == "principal 'support-bot': 2 requests a minute"
    assert denial.room == Room("requests", 2, 0, 60.0)
    other = exchange(ledger, of, call=asked(number=4, principal=replace(house.BOT, name="other")))
    assert run(other.admit(other.call)) is None
    later = exchange(ledger, of, call=asked(number=5), at=AT + 30)
    assert run(later.admit(later.call)) is None


def test_tokens_are_taken_at_most_and_given_back(ledger: SqliteLedger) -> None:
    of = rule(tokens="3000/minute")
    first = exchange(ledger, of, call=asked(say(max_tokens=2500), 1))

    async def work() -> None:
        assert await first.admit(first.call) is None
        second = exchange(ledger, of, call=asked(say(max_tokens=600), 2))
        assert isinstance(await second.admit(second.call), Deny)
        await second.finish("denied")
        await answered(first, 10, 20)
        third = exchange(ledger, of, call=asked(say(max_tokens=2700), 3))
        assert await third.admit(third.call) is None, "it used 30"
        await third.finish("denied")
        fourth = exchange(ledger, of, call=asked(say(max_tokens=2700), 4))
        assert await fourth.admit(fourth.call) is None, "nothing was used"
        await answered(fourth, 10, 9000)
        fifth = exchange(ledger, of, call=asked(say(max_tokens=1), 5))
        denial = await fifth.admit(fifth.call)
        assert denial is not None
        assert (denial.retry_after or 0) > 100, "it used more than it took"

    run(work())


def test_so_many_at_once(ledger: SqliteLedger) -> None:
    of = rule(concurrent=2)

    async def work() -> None:
        running = [exchange(ledger, of, call=asked(number=number)) for number in range(3)]
        assert [await one.admit(one.call) is None for one in running] == [True, True, False]
        await running[2].finish("denied")
        await running[0].finish("client_disconnected")
        following = exchange(ledger, of, call=asked(number=4))
        assert await following.admit(following.call) is None
        turn = exchange(ledger, of, call=asked(number=5, session="s"))
        assert await turn.judge_frame(turn.call, asks=True) is None, "a turn runs in the slot of its session"

    run(work())


def test_slots_of_a_process_that_died_are_free(tmp_path: Path) -> None:
    of, dead = rule(concurrent=1), SqliteLedger(tmp_path, "dead")
    one = exchange(dead, of, call=asked(number=1))
    assert run(one.admit(one.call)) is None
    with contextlib.closing(SqliteLedger(tmp_path, "other")) as alive:
        two = exchange(alive, of, call=asked(number=2))
        assert run(two.admit(two.call)) is not None
        dead.close()
        three = exchange(alive, of, call=asked(number=3))
        assert run(three.admit(three.call)) is None


def test_all_or_none(ledger: SqliteLedger) -> None:
    of = rule(requests="1/hour", concurrent=1)

    async def work() -> None:
        one = exchange(ledger, rule(concurrent=1), call=asked(number=1))
        assert await one.admit(one.call) is None
        two = exchange(ledger, of, call=asked(number=2))
        assert isinstance(await two.admit(two.call), Deny)
        await two.finish("denied")
        await one.finish("denied")
        three = exchange(ledger, of, call=asked(number=3))
        assert await three.admit(three.call) is None, "the refused one took no request"

    run(work())


def test_expensive_operations_have_a_limit_of_their_own(ledger: SqliteLedger) -> None:
    rules = rule(requests="9/minute"), rule(requests="1/minute", operations="expensive")
    image: dict[str, Any] = {"operation": "images", "path": "/v1/images/generations"}
    let = []
    for number in range(3):
        for more in ({}, image):
            one = exchange(ledger, *rules, call=asked(number=number * 2 + bool(more), **more))
            let.append(run(one.admit(one.call)) is None)
    assert let == [True, True, True, False, True, False]


def test_tiers(ledger: SqliteLedger) -> None:
    tiers = {"low": Tier(requests=parse_rate("1/minute")), "standard": Tier()}
    of = rule(requests="tier", tiers=tiers)
    for tier, let in (("low", [True, False]), ("standard", [True, True])):
        who = replace(house.BOT, tier=tier, name=tier)
        ones = [exchange(ledger, of, call=asked(number=number, principal=who)) for number in range(2)]
        assert [run(one.admit(one.call)) is None for one in ones] == let


def test_without_a_ledger_the_entry_decides() -> None:
    class Down:
        async def take(self, *given: Any) -> None:
            raise LedgerUnavailableError("down")

    one = exchange(Down(), rule(requests="1/minute"))
    denial = run(one.admit(one.call))
    assert denial is not None
    assert denial.code == "ledger_unavailable"
    open_one = exchange(Down(), rule(requests="1/minute"), on_error="allow")
    assert run(open_one.admit(open_one.call)) is None
    assert open_one.gate.observer.passed == ["rate_limit"]  # type: ignore[attr-defined]


def test_observe_says_what_it_would_refuse(ledger: SqliteLedger) -> None:
    of = rule(requests="1/minute")
    for number in range(2):
        one = exchange(ledger, of, call=asked(number=number), observe=True)
        assert run(one.admit(one.call)) is None
        (intent,) = one.gate.log.records  # type: ignore[union-attr]
        assert [found["type"] for found in intent["findings"]] == ["would_deny:rate_limited"] * number


# -- in YAML and in headers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "said"), [
    ("{per: team}", "name at least one of requests, tokens, concurrent"),
    ("{per: team, requests: 60}", "rate_limit.requests"), ("{per: team, requests: 0/minute}", "rate_limit.requests"),
    ("{per: team, tokens: 1k/month}", "a rate is a count and a period"),
    ("{per: team, tokens: 1k/minute, burst: 5}", "burst: of requests"), ("{per: team, concurrent: 0}", "1 or more"),
    ("{per: team, requests: tier}", "no file has `tiers`"),
    ("{per: team, requests: 1/minute, operations: [imges]}", "there is no operation `imges`; did you mean `images`?")])
def test_mistakes_are_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.yaml").write_text(f"version: 1\nchain:\n  - authenticate: {{}}\n  - rate_limit: {text}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:4") as caught:
        load(tmp_path, environ={})
    assert said in str(caught.value)


def test_headers_are_spelled_as_the_provider_spells_them() -> None:
    room = Room("tokens", 1000, 12, 363.0004)
    assert openai_room(room, AT) == ((b"x-ratelimit-limit-tokens", b"1000"), (b"x-ratelimit-remaining-tokens", b"12"),
                                     (b"x-ratelimit-reset-tokens", b"6m3.001s"))
    assert anthropic_room(room, AT) == (
        (b"anthropic-ratelimit-tokens-limit", b"1000"), (b"anthropic-ratelimit-tokens-remaining", b"12"),
        (b"anthropic-ratelimit-tokens-reset", b"2026-01-02T03:10:09Z"))
    for seconds, said in ((0.0001, b"1ms"), (1, b"1s"), (59.5, b"59.5s"), (360, b"6m0s"), (3603, b"1h0m3s")):
        assert openai_room(Room("requests", 1, 0, seconds), AT)[2][1] == said


# -- in a gateway --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as one:
        yield one


@pytest.fixture
def gateway(tmp_path: Path, provider: LocalProvider) -> Iterator[Gateway]:
    chain = ("  - authenticate: {unknown: deny}\n  - rate_limit: {per: provider, requests: 2/second, burst: 1}\n"
             "  - rate_limit: {per: team, concurrent: 2}\n  - swap_key: {missing: keep}")
    with running_gateway(tmp_path, policy(provider, chain=chain)) as one:
        yield one


def test_the_sdks_wait_as_long_as_they_are_told(gateway: Gateway) -> None:
    asked: Any = [{"role": "user", "content": "hi"}]
    root = "http://{}:{}".format(*gateway.http)
    with openai.OpenAI(api_key="k", base_url=f"{root}/openai/v1", max_retries=0) as client:
        client.chat.completions.create(model="gpt-4o", messages=asked)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="gpt-4o", messages=asked)
        said = refused.value.response.headers
        assert (said["x-douane-code"], said["retry-after"]) == ("rate_limited", "1")
        assert (said["x-ratelimit-limit-requests"], said["x-ratelimit-remaining-requests"]) == ("2", "0")
        assert "x-should-retry" not in said
        assert refused.value.code == "rate_limited"
        began = time.monotonic()
        client.with_options(max_retries=2).chat.completions.create(model="gpt-4o", messages=asked)
        assert time.monotonic() - began < 4
    with anthropic.Anthropic(api_key="k", base_url=f"{root}/anthropic", max_retries=0) as other:
        other.messages.create(model="claude-test", max_tokens=9, messages=asked)
        with pytest.raises(anthropic.RateLimitError) as late:
            other.messages.create(model="claude-test", max_tokens=9, messages=asked)
        assert late.value.response.headers["anthropic-ratelimit-requests-limit"] == "2"


def test_a_slot_is_free_when_the_call_has_ended_however_it_does(gateway: Gateway, provider: LocalProvider) -> None:
    go, before = threading.Event(), provider.script
    provider.script = lambda seen: (go.wait(5), before(seen))[1]
    wires = []
    try:
        for _ in range(2):
            wire = Wire.tls(gateway)
            wire.send(request(chat()))
            wires.append(wire)
            time.sleep(0.6)
        with Wire.tls(gateway) as third:
            third.send(request(chat()))
            assert (got := third.answer()).status == 429
            assert got.code == "rate_limited"
        wires.pop().close()
        assert wait_for(lambda: [one["ended"] for one in gateway.records() if one["kind"] == "outcome"][-1:]
                        == ["client_disconnected"])
        time.sleep(0.6)
        go.set()
        with Wire.tls(gateway) as fourth:
            fourth.send(request(chat()))
            assert fourth.answer().status == 200
    finally:
        go.set()
        provider.script = before
        for wire in wires:
            wire.close()


def test_a_flood_lets_on_no_more_than_the_bucket_holds(ledger: SqliteLedger) -> None:
    of = rule(requests="20/hour")

    async def work() -> int:
        ones = [exchange(ledger, of, call=asked(number=number)) for number in range(200)]
        return sum(one is None for one in await asyncio.gather(*(one.admit(one.call) for one in ones)))

    assert run(work(), 20) == 20


