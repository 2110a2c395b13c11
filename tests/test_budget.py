"""The budget policy: what is held, what is charged, what is refused; and that a bound which is put in moves no other byte."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from douane.audit import record
from douane.call import Call, Outcome, Principal, Usage
from douane.errors import ConfigError
from douane.exchange import Exchange
from douane.hosts.house import open_office
from douane.ledger.base import LARGEST, NANO, NOTHING_SPENT, Account, Balance, Demand
from douane.ledger.charge import UNKNOWN, charge, recorded
from douane.ledger.claim import Unbounded
from douane.ledger.sqlite import SqliteLedger, read_balances
from douane.ledger.windows import window
from douane.loader import load
from douane.policies.budget import Budget, Downgrade, parse_unbounded, parse_unpriced
from douane.policy import Setting, traits
from douane.pricerules import Rules
from douane.prices import Bill, Prices
from douane.providers.base import Operation, Wire
from douane.purse import Purse, with_model
from douane.rates import Rates
from douane.scopes import parse_scope
from douane.size import output_bound
from douane.tiers import Tier
from douane.units import Limit, parse_limit, parse_usd
from douane.verdict import Deny, Rewrite
from tests import house
from tests.house import AT, run

USD = NANO
RATES = {"gpt-4o": Rates(1.0, 10.0), "gpt-cached": Rates(1.0, 10.0, cache_write=2.0, cache_write_1h=4.0, reasoning=20.0),
         "gpt-free": Rates(0.0, 0.0)}
ROWS = {(one.name, row.name): row for one in house.PROVIDERS.values() for row in one.operations if row.wire}


def row_of(call: Call) -> Operation | None:
    return ROWS.get((call.provider, call.operation))


def wire_of(call: Call) -> Wire | None:
    row = row_of(call)
    return None if row is None else row.wire


class Teller:
    """A budget, and what an exchange makes of its claims: ``admit`` holds, ``settle`` books."""

    def __init__(self, counter: "Counter", policy: Any, row: Operation | None = None) -> None:
        self._counter, self.policy, self._row = counter, policy, row
        self.purses: dict[str, Purse] = {}

    async def admit(self, call: Call) -> Any:
        """The call as it goes on, or the denial."""
        verdict = await self.policy.admit(call)
        if isinstance(verdict, Deny):
            return verdict
        purse = self.purses[call.id] = Purse(self._counter.ledger, self._counter.prices)
        purse.claim("budget", verdict.claims, hard=True)
        return await purse.hold(verdict.call if isinstance(verdict, Rewrite) else call, self._row or row_of(call))

    async def settle(self, call: Call, outcome: Outcome) -> None:
        self.purses[call.id].settle(outcome, AT)
        self.purses[call.id].book()

    async def held(self, call: Call) -> int:
        """Nano-USD that are held for it once it is let on."""
        on = await self.admit(call)
        assert isinstance(on, Call), on
        usd = self.purses[call.id].reserved_usd
        assert usd is not None
        return round(usd * NANO)


class Counter:
    """An open ledger, and policies over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = SqliteLedger(folder)
        self.prices = Prices(Rules.of(RATES))

    def rule(self, limit: Any = "1 USD/day", per: str = "team", **more: Any) -> Any:
        limits = tuple(map(parse_limit, limit)) if isinstance(limit, list) else limit if limit == "tier" else parse_limit(limit)
        tiers = more.pop("tiers", {})
        nobody: Any = None
        return Budget(parse_scope(per), limits, **more).bind(Setting(nobody, nobody, {}, wire_of, tiers=tiers))

    def policy(self, limit: Any = "1 USD/day", per: str = "team", **more: Any) -> Teller:
        return Teller(self, self.rule(limit, per, **more))

    def settle(self, policy: Teller, call: Call, outcome: Outcome) -> None:
        async def work() -> None:
            await policy.settle(call, outcome)
            await self.booked()

        run(work())

    async def booked(self) -> None:
        """What was settled before is in the books."""
        await self.ledger.capture("what comes behind it", "", NOTHING_SPENT)

    def balances(self) -> list[Balance]:
        return read_balances(self.folder, AT)

    def sums(self) -> tuple[int, int]:
        """(captured, reserved) of the only account."""
        (one,) = self.balances()
        return one.captured, one.reserved


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    made = Counter(tmp_path)
    with contextlib.closing(made.ledger):
        yield made


def asked(body: bytes | None = None, number: int = 0, **more: Any) -> Call:
    document: dict[str, Any] = {"model": "gpt-4o", "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]}
    given = json.dumps(document).encode() if body is None else body
    return house.call(**{"id": f"{number:032}", "body": given, "document": json.loads(given), "principal": house.BOT, **more})


def say(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **members}).encode()


# -- what is held --------------------------------------------------------------------------------------------------


def test_the_most_a_call_can_cost_is_held(counter: Counter) -> None:
    bare = run(counter.policy().held(asked(say(max_tokens=0), 1)))
    assert 0 < bare < 200_000  # some tokens at 1 USD a million
    cases: list[tuple[dict[str, Any], int]] = [
            ({"max_tokens": 1000}, 1000), ({"max_completion_tokens": 1000}, 1000), ({"max_output_tokens": 10}, 4096),
            ({"max_tokens": 10, "max_completion_tokens": 1000}, 1000), ({"max_tokens": 1000, "n": 3}, 3000),
            ({}, 4096), ({"max_tokens": None, "n": 2}, 8192)]
    for number, (members, output) in enumerate(cases, 2):
        amount = run(counter.policy("9 USD/day").held(asked(say(**members), number)))
        assert output * 10_000 <= amount < output * 10_000 + 200_000, members


def test_the_dearest_of_every_kind_of_token_is_held() -> None:
    prices = Prices(Rules.of(RATES))
    assert prices.at_most("openai", "gpt-cached", (1_000_000, 1_000_000), AT) == Bill(24.0, ceiling=False)
    assert prices.at_most("openai", "gpt-4o", (1_000_000, 100_000), AT) == Bill(2.0, ceiling=False)
    assert prices.at_most("openai", "unheard-of", (1_000_000, 1_000_000), AT) == Bill(150.0, ceiling=True)
    half = Prices(Rules.of({"half": Rates(1.0)}))
    assert half.at_most("openai", "half", (1_000_000, 1_000_000), AT) == Bill(150.0, ceiling=True)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.data())
def test_no_usage_within_the_bounds_costs_more(given_tokens: int, made: int, data: st.DataObject) -> None:
    whole = data.draw(st.integers(0, given_tokens))
    cached = data.draw(st.integers(0, whole))
    written = data.draw(st.integers(0, whole - cached))
    out = data.draw(st.integers(0, made))
    usage = Usage(whole, out, cached, written, data.draw(st.integers(0, written)), data.draw(st.integers(0, out)))
    prices = Prices(Rules.of(RATES))
    most = prices.at_most("openai", "gpt-cached", (given_tokens, made), AT)
    cost = prices.cost("openai", "gpt-cached", usage, AT)
    assert not most.ceiling
    assert cost is not None
    assert cost <= most.usd + 1e-12


@pytest.mark.parametrize("members", [{"n": 2.5}, {"n": "3"}, {"n": True}, {"max_tokens": -1}, {"max_tokens": 1e3},
                                     {"max_tokens": 10**9}, {"n": 10**9}])
def test_a_bound_that_is_no_count_is_refused(counter: Counter, members: dict[str, Any]) -> None:
    verdict = run(counter.policy().admit(asked(say(**members))))
    assert isinstance(verdict, Deny)
    assert verdict.code == "bad_request"


def test_what_no_provider_bills_is_not_held(counter: Counter) -> None:
    for call in (asked(method="GET", operation="models"), asked(operation="count_tokens")):
        assert run(counter.policy().admit(call)) is call
    assert counter.balances() == []


def test_an_unknown_price_is_held_at_the_ceiling_or_refused(counter: Counter) -> None:
    amount = run(counter.policy().held(asked(model="unheard-of")))
    assert 1000 * 75_000 < amount < 1200 * 75_000  # 75 USD a million tokens
    verdict = run(counter.policy(unpriced="deny").admit(asked(model="unheard-of", number=1)))
    assert isinstance(verdict, Deny)
    assert verdict.code == "budget_exceeded"
    assert isinstance(run(counter.policy(unpriced="deny").admit(asked(number=2))), Call)


def test_what_says_nothing_of_its_tokens_is_held_at_a_set_number_of_them(counter: Counter) -> None:
    call = asked(operation="images", path="/v1/images/generations")
    assert run(counter.policy().held(call)) == 4096 * 1_000 + 4096 * 10_000
    assert isinstance(run(counter.policy(unpriced="deny").admit(call)), Deny)


@pytest.mark.parametrize(("provider", "document"), [
    ("openai", {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}),
    ("anthropic", {"requests": [{"custom_id": "a", "params": {"model": "claude-x", "max_tokens": 10, "messages": []}}]})])
def test_where_only_known_sizes_may_pass_no_batch_is_made(counter: Counter, provider: str, document: Any) -> None:
    call = asked(json.dumps(document).encode(), provider=provider, operation="batches", model="")
    assert isinstance(run(counter.policy(unpriced="deny").admit(call)), Deny)
    fetched = asked(provider=provider, operation="batches", method="GET")
    assert run(counter.policy(unpriced="deny").admit(fetched)) is fetched


def test_an_unknown_price_costs_the_sum_that_is_set(counter: Counter) -> None:
    call = asked(model="unheard-of")
    assert run(counter.policy(unpriced=parse_unpriced("0.25 USD")).held(call)) == USD // 4
    rule = counter.policy(unpriced=USD // 4)
    other = asked(model="unheard-of", number=2)
    run(rule.admit(other))
    counter.settle(rule, other, Outcome("complete", 200, Usage(5, 5)))
    assert counter.sums() == (USD // 4, USD // 4)


# -- whose, and how long -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("per", "name"), [("principal", "support-bot"), ("team", "support"), ("org", "acme")])
def test_scopes(counter: Counter, per: str, name: str) -> None:
    run(counter.policy(per=per).admit(asked()))
    (one,) = counter.balances()
    assert (one.account.scope, one.account.name) == (per, name)


def test_whoever_has_no_team_shares_one_account(counter: Counter) -> None:
    for number, who in enumerate((Principal("a"), Principal("b"))):
        run(counter.policy().admit(asked(number=number, principal=who)))
    (one,) = counter.balances()
    assert one.account.name == ""
    verdict = run(counter.policy("0.01 USD/day").admit(asked(number=3, principal=Principal("c"))))
    assert isinstance(verdict, Deny)
    assert "calls without team" in verdict.reason


def test_several_windows_hold_at_once(counter: Counter) -> None:
    policy = counter.policy(["1 USD/day", "0.015 USD/hour", "2 USD total"])
    assert isinstance(run(policy.admit(asked(number=1))), Call)
    verdict = run(policy.admit(asked(number=2)))
    assert isinstance(verdict, Deny)
    assert "this hour" in verdict.reason
    assert verdict.retry_after == pytest.approx(3600 - AT % 3600)
    assert {one.account.period: one.reserved for one in counter.balances()}.keys() == {"day", "hour", "total"}
    assert len({one.reserved for one in counter.balances()}) == 1


def test_the_next_window_is_a_new_one(counter: Counter) -> None:
    policy = counter.policy("0.015 USD/minute")
    assert isinstance(run(policy.admit(asked(number=1))), Call)
    assert isinstance(run(policy.admit(asked(number=2))), Deny)
    assert isinstance(run(policy.admit(asked(number=3, at=AT + 60))), Call)


def test_books_are_apart(counter: Counter) -> None:
    for number, book in enumerate(("", "cheap")):
        run(counter.policy(book=book).admit(asked(number=number)))
    assert sorted(one.account.book for one in counter.balances()) == ["", "cheap"]


@pytest.mark.parametrize(("per", "name"), [
    ("user", "ada"), ("agent", "crew"), ("model", "gpt-4o"), ("provider", "openai"), ("tag:project", "apollo"),
    ("tag:none", "")])
def test_whatever_is_said_of_a_call_may_be_counted(counter: Counter, per: str, name: str) -> None:
    caller = replace(house.BOT, user="ada", agent="crew", tags={"project": "apollo"})
    run(counter.policy(per=per).admit(asked(principal=caller)))
    (one,) = counter.balances()
    assert (one.account.org, one.account.scope, one.account.name) == ("acme", per, name)


def test_teams_of_one_name_in_two_orgs_are_two(counter: Counter) -> None:
    policy = counter.policy("0.015 USD/day")
    for number, org in enumerate(("acme", "globex")):
        assert isinstance(run(policy.admit(asked(number=number, principal=replace(house.BOT, org=org)))), Call)
    assert {one.account.org for one in counter.balances()} == {"acme", "globex"}


def test_tokens_and_calls_are_limits_too(counter: Counter) -> None:
    policy = counter.policy(["3000 tokens/day", "2 calls/hour"], unbounded=Unbounded("assume", 500))
    first = asked(number=1)
    assert isinstance(run(policy.admit(first)), Call)
    refused = run(policy.admit(asked(say(max_tokens=2000), number=2)))
    assert isinstance(refused, Deny)
    assert "tokens left this day; this call may come to 2" in refused.reason
    assert policy.purses[first.id].reserved_usd is None
    counter.settle(policy, first, Outcome("complete", 200, Usage(100, 20), cost_usd=0.001))
    by_unit = {one.account.unit: (one.captured, one.reserved) for one in counter.balances()}
    assert by_unit == {"tokens": (120, 0), "calls": (1, 0)}
    assert isinstance(run(policy.admit(asked(number=3))), Call)
    third = run(policy.admit(asked(number=4)))
    assert isinstance(third, Deny)
    assert "0 calls left this hour" in third.reason


def test_one_call_may_be_limited_by_itself(counter: Counter) -> None:
    policy = counter.policy(["0.02 USD/call", "1500 tokens/call"])
    assert isinstance(run(policy.admit(asked(number=1))), Call)
    assert counter.balances() == [], "nothing is counted"
    for number, tokens in ((2, 3000), (3, 1490)):
        refused = run(policy.admit(asked(say(max_tokens=tokens), number)))
        assert isinstance(refused, Deny)
        assert (refused.code, refused.retry_after) == ("budget_exceeded", None)
        assert "one call may come to" in refused.reason


def test_a_day_begins_at_midnight_where_the_budget_says(counter: Counter) -> None:
    at = datetime(2026, 3, 29, 22, 30, tzinfo=UTC).timestamp()  # half past midnight of the 30th in Paris, on summer time since
    run(counter.policy(zone="Europe/Paris").admit(asked(at=at)))
    (one,) = read_balances(counter.folder, at)
    assert (one.account.start, one.account.end) == (at - 1800, at - 1800 + 86400)
    run(counter.policy(zone="Europe/Paris", book="b").admit(asked(number=2, at=at - 3600)))
    (one,) = [one for one in read_balances(counter.folder, at - 3600) if one.account.book]
    assert (one.account.end or 0) - one.account.start == 23 * 3600, "the night in which the clocks went on"


def test_a_call_that_does_not_fit_may_go_to_a_cheaper_model(counter: Counter) -> None:
    policy = counter.policy("0.005 USD/day", downgrade=Downgrade("gpt-free"))
    on = run(policy.admit(asked()))
    assert isinstance(on, Call)
    assert (on.model, on.document["model"], json.loads(on.body)["model"]) == ("gpt-free", "gpt-free", "gpt-free")
    assert on.body == asked().body.replace(b"gpt-4o", b"gpt-free")
    assert [one.type for one in policy.purses[on.id].findings] == ["downgraded"]
    assert counter.sums() == (0, 0)
    stays = run(counter.policy("1 USD/day", book="b", downgrade=Downgrade("gpt-free")).admit(asked(number=2)))
    assert stays.model == "gpt-4o"
    dear = run(counter.policy("0.000001 USD/day", book="c", downgrade=Downgrade("gpt-cached")).admit(asked(number=3)))
    assert isinstance(dear, Deny), "too dear all the same"
    packed = asked(number=4, headers=((b"content-encoding", b"gzip"),))
    assert isinstance(run(counter.policy("0.000001 USD/day", book="d", downgrade=Downgrade("gpt-free")).admit(packed)), Deny)


def test_a_model_in_the_path_is_exchanged_there(counter: Counter) -> None:
    row = next(row for row in house.PROVIDERS["google"].operations if row.model_in_path and row.method == "POST")
    call = asked(b"{}", provider="google", path="/v1beta/models/gpt-4o:generateContent", operation=row.name)
    on = with_model(call, row, "gpt free/1")
    assert on is not None
    assert (on.path, on.model, on.body) == ("/v1beta/models/gpt%20free%2F1:generateContent", "gpt free/1", b"{}")


def test_tiers(counter: Counter) -> None:
    tiers = {"low": Tier(parse_limit("0.001 USD/day")), "standard": Tier(parse_limit("1 USD/day"))}
    policy = counter.policy("tier", per="principal", tiers=tiers)
    assert isinstance(run(policy.admit(asked(number=1, principal=replace(house.BOT, tier="low")))), Deny)
    assert isinstance(run(policy.admit(asked(number=2, principal=replace(house.BOT, tier="standard")))), Call)


def test_all_budgets_of_a_call_are_held_together_or_not_at_all(counter: Counter) -> None:
    wide, narrow = counter.rule(per="org"), counter.rule("0.001 USD/day", per="principal")
    for entries, soft in (((wide, narrow), False), ((wide, narrow), True)):
        one, book = exchange(counter, house.entry(entries[0], "budget", traits=traits(Budget)),
                             house.entry(entries[1], "budget", traits=traits(Budget), observe=soft), call=asked(number=soft))
        denial = run(one.admit(one.call))
        assert (denial is None) == soft
        assert {found.account.scope for found in counter.balances()} == ({"org", "principal"} if soft else set())
    assert [found["type"] for found in book.records[0]["findings"]] == ["would_deny:budget_exceeded"]


def test_two_budgets_of_one_account_hold_once_and_the_stricter_limits(counter: Counter) -> None:
    entries = [house.entry(counter.rule(limit), "budget", traits=traits(Budget)) for limit in ("1 USD/day", "0.012 USD/day")]
    for number in (1, 2):
        one, _ = exchange(counter, *entries, call=asked(number=number))
        assert (run(one.admit(one.call)) is None) == (number == 1)
    (found,) = counter.balances()
    assert found.limit == 12 * NANO // 1000
    assert found.reserved < 12 * NANO // 1000


def test_what_a_call_cost_beyond_is_recorded_and_counted(counter: Counter) -> None:
    one, book = exchange(counter, house.entry(counter.rule("9 USD/day"), "budget", traits=traits(Budget)), call=asked(say()))

    async def work() -> None:
        assert await one.admit(one.call) is None
        one.forward()
        one.start(200, ((b"content-type", b"application/json"),))
        one.feed(b'{"model": "gpt-4o", "usage": {"prompt_tokens": 1, "completion_tokens": 5000}}')
        one.close()
        await one.finish("complete")

    run(work())
    assert book.outcome["overshot_usd"] == pytest.approx(0.050001 - book.outcome["reserved_usd"])
    assert book.outcome["overshot_usd"] > 0


# -- without a bound -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operation", "provider", "name"), [
    ("chat", "openai", "max_completion_tokens"), ("responses", "openai", "max_output_tokens"),
    ("messages", "anthropic", "max_tokens")])
def test_a_bound_is_put_in_and_no_other_byte_moves(counter: Counter, operation: str, provider: str, name: str) -> None:
    body = b' {  "model" : "gpt-4o",\n "x":1.50e3, "messages":[{"content":"\\u00e9\xc3\xa9"}]}\n'
    policy = counter.policy(unbounded=parse_unbounded("insert 77"))
    call = asked(body, operation=operation, provider=provider)
    on = run(policy.admit(call))
    assert isinstance(on, Call)
    assert on.body == b' {"%b":77,' % name.encode() + body[2:]
    assert json.loads(on.body) == on.document
    wire = wire_of(on)
    assert wire is not None
    assert output_bound(wire.bound, on.document) == 77
    assert (policy.purses[call.id].reserved_usd or 1) < 0.00107


def test_a_bound_is_not_put_in_where_it_cannot_be(counter: Counter) -> None:
    policy = counter.policy(unbounded=parse_unbounded("insert"))
    for call, code in ((asked(say(max_tokens=None)), "bad_request"),
                       (asked(say(), headers=((b"content-encoding", b"gzip"),)), "budget_exceeded")):
        verdict = run(policy.admit(call))
        assert isinstance(verdict, Deny)
        assert verdict.code == code
    empty = run(policy.admit(asked(b"{}", number=5)))
    assert isinstance(empty, Call)
    assert empty.body == b'{"max_completion_tokens":4096}'


def test_without_a_bound_it_may_be_refused(counter: Counter) -> None:
    verdict = run(counter.policy(unbounded=parse_unbounded("deny")).admit(asked(say())))
    assert isinstance(verdict, Deny)
    assert "max_completion_tokens" in verdict.reason


# -- what is charged -----------------------------------------------------------------------------------------------

HELD = 1000


@pytest.mark.parametrize(("outcome", "usd", "tokens", "calls"), [
    (Outcome("complete", 200, Usage(1, 1), cost_usd=3e-7), 300, 2, 1),
    (Outcome("complete", 200, Usage(1, 1), cost_usd=3e-6), 3000, 2, 1),  # more than was held
    (Outcome("complete", 200, Usage(1, 1), cost_usd=0.0), 0, 2, 1),  # a model that is free
    (Outcome("complete", 200, cost_usd=0.0), 0, 0, 0),
    (Outcome("complete", 200), HELD, HELD, 1),  # no usage
    (Outcome("complete", 200, Usage(1, 1), told=True), HELD, 2, 1),  # no price
    (Outcome("complete", 200, Usage(1, 1), estimated=True, cost_usd=3e-7, told=True), HELD, 2, 1),  # price at the ceiling
    (Outcome("denied", 0), 0, 0, 0),
    (Outcome("client_disconnected", 0, cost_usd=0.0), 0, 0, 0),  # before it was forwarded
    (Outcome("client_disconnected", 0), HELD, HELD, 1),  # after
    (Outcome("client_disconnected", 200, Usage(1, 1), True, 3e-7), HELD, HELD, 1),  # a floor is not the sum
    (Outcome("client_disconnected", 200, Usage(1, 1), True, 3e-7, counted=True), 300, 2, 1),
    (Outcome("client_disconnected", 200, Usage(1, 2000), True, 3e-6), 3000, 2001, 1),
    (Outcome("cut", 200), HELD, HELD, 1),
    (Outcome("stopped", 200), HELD, HELD, 1),
    (Outcome("complete", 500), 0, 0, 0),
    (Outcome("complete", 429), 0, 0, 0),
    (Outcome("complete", 400, Usage(1, 1), cost_usd=3e-7), 300, 2, 1),
    (Outcome("upstream_error", 0), 0, 0, 0),
    (Outcome("upstream_error", 200), HELD, HELD, 1),
    (Outcome("upstream_timeout", 0), HELD, HELD, 1),
])
def test_charge(outcome: Outcome, usd: int, tokens: int, calls: int) -> None:
    spent = charge(outcome)
    assert (spent.of("usd", HELD), spent.of("tokens", HELD), spent.of("calls", 1)) == (usd, tokens, calls)
    said = record.outcome(record.about(asked(), "r"), (), outcome, denial=None, latency_ms={})
    assert recorded(said) == spent, "the record tells as much"
    assert UNKNOWN.of("usd", HELD) == UNKNOWN.of("tokens", HELD) == HELD


@pytest.mark.parametrize("outcome", [Outcome("complete", 200, Usage(9, 9), cost_usd=0.001), Outcome("denied"),
                                     Outcome("cut", 200)])
def test_settle_resolves(counter: Counter, outcome: Outcome) -> None:
    policy = counter.policy()
    amount = run(policy.held(asked()))
    for _ in range(2):
        counter.settle(policy, asked(), outcome)
        assert counter.sums() == (charge(outcome).of("usd", amount), 0)


def exchange(counter: Counter, *entries: Any, call: Call | None = None) -> tuple[Exchange, house.Book]:
    book = house.Book()
    gate = house.gate(house.chain(*entries), book)
    gate.ledger, gate.prices = counter.ledger, counter.prices
    return Exchange(gate, house.OPENAI, house.OPENAI.operations[0], call or asked()), book


def test_a_call_that_a_later_policy_refuses_costs_nothing(counter: Counter) -> None:
    async def no(call: Call) -> Deny:
        return Deny("pii_found", "no")

    budget = counter.rule()
    one, book = exchange(counter, house.entry(budget, "budget", traits=traits(Budget)), house.entry(house.Policy(no)))

    async def work() -> None:
        assert await one.admit(one.call) == Deny("pii_found", "no")
        await one.finish("denied")
        await counter.booked()

    run(work())
    assert counter.balances() == [], "it was not held to begin with"
    assert book.outcome["reserved_usd"] is None


def test_the_record_says_what_is_held(counter: Counter) -> None:
    one, book = exchange(counter, house.entry(counter.rule(), "budget"))
    run(one.admit(one.call))
    assert book.records[0]["reserved_usd"] == counter.sums()[1] / NANO


def test_observe_refuses_nothing_and_counts_all(counter: Counter) -> None:
    budget = counter.rule("0.0101 USD/day")
    for number in (1, 2):
        one, book = exchange(counter, house.entry(budget, "budget", observe=True), call=asked(number=number))

        async def work(one: Exchange = one) -> None:
            assert await one.admit(one.call) is None
            one.forward()
            one.start(200, ((b"content-type", b"application/json"),))
            one.feed(b'{"model": "other", "usage": {"prompt_tokens": 12, "completion_tokens": 5}}')
            one.close()
            await one.finish("complete")
            await counter.booked()

        run(work())
        assert [found["type"] for found in book.outcome["findings"]] == ["would_deny:budget_exceeded"] * (number - 1)
        assert counter.sums() == ((12 * 1000 + 5 * 10_000) * number, 0)


def test_a_ledger_that_fails_refuses(counter: Counter) -> None:
    counter.ledger.close()
    verdict = run(counter.policy().admit(asked()))
    assert isinstance(verdict, Deny)
    assert verdict.code == "ledger_unavailable"


def test_200_at_once_on_a_budget_for_20(counter: Counter) -> None:
    before = counter.policy()
    one_call = run(before.held(asked()))
    counter.settle(before, asked(), Outcome("denied"))
    policy = counter.policy(f"{20 * one_call / NANO:.9f} USD/day")

    async def one(number: int) -> bool:
        call = asked(number=number + 1000)
        verdict = await policy.admit(call)
        assert sum(counter.sums()) <= 20 * one_call
        denied = isinstance(verdict, Deny)
        await policy.settle(call, Outcome("denied") if denied else Outcome("complete", 200, cost_usd=one_call / NANO))
        return not denied

    async def work() -> list[bool]:
        admitted = await asyncio.gather(*(one(number) for number in range(200)))
        await counter.booked()
        return admitted

    assert sum(run(work(), 20)) == 20
    assert counter.sums() == (20 * one_call, 0)


def test_what_was_not_booked_before_the_end_is_booked_at_the_next_start(
        tmp_path: Path) -> None:
    """The outcome is durable before the booking is: the audit log tells what came of the calls that still hold money."""
    data = tmp_path / "data"
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "one.yaml").write_text("version: 1\nchain:\n  - authenticate: {}\n")
    office = open_office(policies, data)
    assert office.audit is not None
    assert office.ledger is not None
    account = Account("", "", "principal", "bot", "usd", "day", *window("day", AT))
    ends = {"paid": Outcome("complete", 200, cost_usd=0.25), "denied": Outcome("denied"), "cut": Outcome("cut", 200),
            "cheap": Outcome("cut", 200, cost_usd=0.01, estimated=True), "refused": Outcome("complete", 429)}
    for number, (name, outcome) in enumerate([*ends.items(), ("no outcome", None), ("elsewhere", None), ("odd", None)]):
        call = asked(number=number)
        run(office.ledger.reserve(call.id, "", AT, [Demand(account, NANO, LARGEST)]))
        said = record.about(call, "r")
        if name != "elsewhere":
            office.audit.append_blocking(record.intent(said, (), reserved_usd=1.0))
        if outcome is not None:
            office.audit.append_blocking(record.outcome(said, (), outcome, denial=None, latency_ms={}, reserved_usd=1.0))
    odd = {"kind": "outcome", **record.about(asked(number=7), "r"), "verdict": {"action": "allow"}, "ended": "complete"}
    office.audit.append_blocking(odd)  # of another version, say
    office.close()

    def held_at(at: int) -> None:
        with contextlib.closing(sqlite3.connect(data / "ledger.sqlite")) as books, books:
            books.execute("UPDATE hold SET at = ? WHERE call = ?", (at, asked(number=6).id))

    held_at(1)  # before any log begins
    open_office(policies, data).close()
    (found,) = [one for one in read_balances(data, AT) if one.account == account]
    assert (found.captured, found.reserved) == (NANO // 4 + 2 * NANO + NANO, 2 * NANO)
    held_at(int(time.time()) + 1)
    open_office(policies, data).close()
    (found,) = [one for one in read_balances(data, AT) if one.account == account]
    assert found.reserved == NANO, "what never left is void"


# -- in YAML -------------------------------------------------------------------------------------------------------


def test_spellings() -> None:
    assert parse_limit("50 USD/day") == Limit(50 * NANO, "usd", "day")
    assert parse_limit("0.1USD / minute") == Limit(NANO // 10, "usd", "minute")
    assert parse_limit("1000 USD total") == parse_limit("1000 USD/total") == Limit(1000 * NANO, "usd", "total")
    assert parse_limit("1.5M tokens/hour") == Limit(1_500_000, "tokens", "hour")
    assert parse_limit("500 calls/month") == Limit(500, "calls", "month")
    assert parse_limit("0.50 USD/call") == Limit(NANO // 2, "usd", None)
    assert parse_limit("8k tokens/call") == Limit(8000, "tokens", None)
    assert parse_usd("0.000000001 USD") == 1
    assert parse_unbounded("assume 12") == Unbounded("assume", 12)
    assert parse_unbounded("insert") == Unbounded("insert", 4096)
    assert (parse_unpriced("deny"), parse_unpriced("ceiling"), parse_unpriced("2 USD")) == ("deny", "ceiling", 2 * NANO)
    for parse, wrong in ((parse_limit, "50"), (parse_limit, "50 EUR/day"), (parse_limit, "-1 USD/day"),
                         (parse_limit, "1e3 USD/day"), (parse_limit, "1 USD/year"), (parse_limit, "1 USD/day extra"),
                         (parse_usd, "0.0000000001 USD"), (parse_limit, "1.5 tokens/day"), (parse_limit, "9999999 USD/day"),
                         (parse_limit, "5 calls/call"), (parse_limit, "5 tokens"), (parse_limit, "k tokens/day"),
                         (parse_unbounded, "assume"), (parse_unbounded, "insert 0"), (parse_unbounded, "deny 5"),
                         (parse_unpriced, "allow")):
        with pytest.raises(ValueError):  # noqa: PT011 - what matters is that it is refused
            parse(wrong)


LEAST = "version: 1\nprincipals: [{name: a, cidr: 127.0.0.0/8}]\nledger: sqlite\nchain:\n  - authenticate: {}\n  - budget: "


def loaded(folder: Path, text: str) -> Mapping[str, Any]:
    policies = folder / "policies"
    policies.mkdir(exist_ok=True)
    (policies / "a.yaml").write_text(LEAST + text + "\n")
    chain = load(policies, environ={}).chain
    bound = chain.entries[1].policy
    caps = bound.claim(0, "", "", "a").caps
    return {"limits": tuple(Limit(one.limit, one.unit, one.account.period) for one in caps), "rules": bound.rules}


def test_from_a_file(tmp_path: Path) -> None:
    got = loaded(tmp_path, "{per: team, limit: [50 USD/day, 1000 USD/month], unbounded: insert 100, unpriced: 0.5 USD}")
    assert got["limits"] == (Limit(50 * NANO, "usd", "day"), Limit(1000 * NANO, "usd", "month"))
    assert (got["rules"].unbounded, got["rules"].unpriced) == (Unbounded("insert", 100), NANO // 2)
    assert loaded(tmp_path, "{per: org, limit: 5 USD/week}")["limits"] == (Limit(5 * NANO, "usd", "week"),)
    assert not list(tmp_path.rglob("*.sqlite*")), "nothing is opened by reading"


@pytest.mark.parametrize(("text", "said"), [
    ("{per: team, limit: 50}", "budget.limit"), ("{per: team}", "`limit` is missing"),
    ("{limit: 5 USD/day}", "`per` is missing"),
    ("{per: family, limit: 5 USD/day}", "budget.per"), ("{per: 'tag:', limit: 5 USD/day}", "budget.per"),
    ("{per: team, limit: []}", "name at least one"),
    ("{per: team, limit: [5 USD/day, 6 USD/day]}", "two stand for the same"),
    ("{per: team, limit: 5 USD/day, unbounded: guess}", "budget.unbounded"),
    ("{per: team, limit: 5 USD/day, alert_at: [0]}", "alert_at: shares of the limit"),
    ("{per: team, limit: 5 USD/day, zone: Mars/Olympus}", "`Mars/Olympus` is no time zone"),
    ("{per: team, limit: 5 USD/day, downgrade: {to: ''}}", "name a model"),
    ("{per: team, limit: tier}", "no file has `tiers`")])
def test_mistakes_are_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml:6") as caught:
        loaded(tmp_path, text)
    assert said in str(caught.value)
