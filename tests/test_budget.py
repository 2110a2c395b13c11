"""The budget policy: what is held, what is charged, what is refused; and that a bound which is put in moves no other byte."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from douane.audit import record
from douane.call import Call, Outcome, Principal, Usage
from douane.errors import ConfigError
from douane.exchange import Exchange
from douane.hosts import house as house_of
from douane.hosts.house import open_office
from douane.ledger.base import NANO, Account, Balance, Demand
from douane.ledger.charge import charge
from douane.ledger.sqlite import SqliteLedger, read_balances
from douane.ledger.till import Till
from douane.ledger.windows import window
from douane.loader import load
from douane.policies.budget import Budget, Unbounded, output_bound, parse_unbounded, parse_unpriced
from douane.policy import Setting, traits
from douane.pricerules import Rules
from douane.prices import Bill, Prices
from douane.providers.base import Wire
from douane.rates import Rates
from douane.units import Limit, parse_limit, parse_usd
from douane.verdict import ALLOW, Allow, Deny, Rewrite
from tests import house
from tests.house import AT, run

USD = NANO
RATES = {"gpt-4o": Rates(1.0, 10.0), "gpt-cached": Rates(1.0, 10.0, cache_write=2.0, cache_write_1h=4.0, reasoning=20.0),
         "gpt-free": Rates(0.0, 0.0)}
WIRES = {(one.name, row.name): row.wire for one in house.PROVIDERS.values() for row in one.operations if row.wire}


def wire_of(call: Call) -> Wire | None:
    return WIRES.get((call.provider, call.operation))


class Counter:
    """A till with an open ledger, and policies bound to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = SqliteLedger.open(folder)
        self.till = Till()
        self.till.ledger, self.till.prices = self.ledger, Prices(Rules.of(RATES))

    def policy(self, limit: Any = "1 USD/day", per: Any = "team", **more: Any) -> Any:
        limits = tuple(map(parse_limit, limit)) if isinstance(limit, list) else parse_limit(limit)
        nobody: Any = None
        return Budget(per, limits, **more).bind(Setting(nobody, nobody, {}, self.till, wire_of))

    def settle(self, policy: Any, call: Call, outcome: Outcome) -> None:
        async def work() -> None:
            await policy.settle(call, outcome)
            await self.booked()

        run(work())

    async def booked(self) -> None:
        """What was settled before is in the books."""
        await self.ledger.capture("what comes behind it", 0, [])

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


def held(verdict: Any) -> int:
    assert isinstance(verdict, (Allow, Rewrite)), verdict
    assert verdict.reserved_usd is not None
    return round(verdict.reserved_usd * NANO)


# -- what is held --------------------------------------------------------------------------------------------------


def test_the_most_a_call_can_cost_is_held(counter: Counter) -> None:
    bare = held(run(counter.policy().admit(asked(say(max_tokens=0), 1))))
    assert 0 < bare < 200_000  # some tokens at 1 USD a million
    cases: list[tuple[dict[str, Any], int]] = [
            ({"max_tokens": 1000}, 1000), ({"max_completion_tokens": 1000}, 1000), ({"max_output_tokens": 10}, 4096),
            ({"max_tokens": 10, "max_completion_tokens": 1000}, 1000), ({"max_tokens": 1000, "n": 3}, 3000),
            ({}, 4096), ({"max_tokens": None, "n": 2}, 8192)]
    for number, (members, output) in enumerate(cases, 2):
        amount = held(run(counter.policy("9 USD/day").admit(asked(say(**members), number))))
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
        assert run(counter.policy().admit(call)) == ALLOW
    assert counter.balances() == []


def test_an_unknown_price_is_held_at_the_ceiling_or_refused(counter: Counter) -> None:
    amount = held(run(counter.policy().admit(asked(model="unheard-of"))))
    assert 1000 * 75_000 < amount < 1200 * 75_000  # 75 USD a million tokens
    verdict = run(counter.policy(unpriced="deny").admit(asked(model="unheard-of", number=1)))
    assert isinstance(verdict, Deny)
    assert verdict.code == "budget_exceeded"
    assert isinstance(run(counter.policy(unpriced="deny").admit(asked(number=2))), Allow)


def test_what_says_nothing_of_its_tokens_is_held_at_a_set_number_of_them(counter: Counter) -> None:
    call = asked(operation="images", path="/v1/images/generations")
    assert held(run(counter.policy().admit(call))) == 4096 * 1_000 + 4096 * 10_000
    assert isinstance(run(counter.policy(unpriced="deny").admit(call)), Deny)


@pytest.mark.parametrize(("provider", "document"), [
    ("openai", {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}),
    ("anthropic", {"requests": [{"custom_id": "a", "params": {"model": "claude-x", "max_tokens": 10, "messages": []}}]})])
def test_where_only_known_sizes_may_pass_no_batch_is_made(counter: Counter, provider: str, document: Any) -> None:
    call = asked(json.dumps(document).encode(), provider=provider, operation="batches", model="")
    assert isinstance(run(counter.policy(unpriced="deny").admit(call)), Deny)
    assert run(counter.policy(unpriced="deny").admit(asked(provider=provider, operation="batches", method="GET"))) == Allow()


def test_an_unknown_price_costs_the_sum_that_is_set(counter: Counter) -> None:
    call = asked(model="unheard-of")
    assert held(run(counter.policy(unpriced=parse_unpriced("0.25 USD")).admit(call))) == USD // 4
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
    assert isinstance(run(policy.admit(asked(number=1))), Allow)
    verdict = run(policy.admit(asked(number=2)))
    assert isinstance(verdict, Deny)
    assert "this hour" in verdict.reason
    assert verdict.retry_after == pytest.approx(3600 - AT % 3600)
    assert {one.account.period: one.reserved for one in counter.balances()}.keys() == {"day", "hour", "total"}
    assert len({one.reserved for one in counter.balances()}) == 1


def test_the_next_window_is_a_new_one(counter: Counter) -> None:
    policy = counter.policy("0.015 USD/minute")
    assert isinstance(run(policy.admit(asked(number=1))), Allow)
    assert isinstance(run(policy.admit(asked(number=2))), Deny)
    assert isinstance(run(policy.admit(asked(number=3, at=AT + 60))), Allow)


def test_books_are_apart(counter: Counter) -> None:
    for number, book in enumerate(("", "cheap")):
        run(counter.policy(book=book).admit(asked(number=number)))
    assert sorted(one.account.book for one in counter.balances()) == ["", "cheap"]


# -- without a bound -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operation", "provider", "name"), [
    ("chat", "openai", "max_completion_tokens"), ("responses", "openai", "max_output_tokens"),
    ("messages", "anthropic", "max_tokens")])
def test_a_bound_is_put_in_and_no_other_byte_moves(counter: Counter, operation: str, provider: str, name: str) -> None:
    body = b' {  "model" : "gpt-4o",\n "x":1.50e3, "messages":[{"content":"\\u00e9\xc3\xa9"}]}\n'
    policy = counter.policy(unbounded=parse_unbounded("insert 77"))
    verdict = run(policy.admit(asked(body, operation=operation, provider=provider)))
    assert isinstance(verdict, Rewrite)
    assert verdict.call.body == b' {"%b":77,' % name.encode() + body[2:]
    assert json.loads(verdict.call.body) == verdict.call.document
    wire = wire_of(verdict.call)
    assert wire is not None
    assert output_bound(wire.bound, verdict.call.document) == 77
    assert held(verdict) < 77 * 10_000 + 300_000


def test_a_bound_is_not_put_in_where_it_cannot_be(counter: Counter) -> None:
    policy = counter.policy(unbounded=parse_unbounded("insert"))
    for call, code in ((asked(say(max_tokens=None)), "bad_request"),
                       (asked(say(), headers=((b"content-encoding", b"gzip"),)), "budget_exceeded")):
        verdict = run(policy.admit(call))
        assert isinstance(verdict, Deny)
        assert verdict.code == code
    empty = run(policy.admit(asked(b"{}", number=5)))
    assert isinstance(empty, Rewrite)
    assert empty.call.body == b'{"max_completion_tokens":4096}'


def test_without_a_bound_it_may_be_refused(counter: Counter) -> None:
    verdict = run(counter.policy(unbounded=parse_unbounded("deny")).admit(asked(say())))
    assert isinstance(verdict, Deny)
    assert "max_completion_tokens" in verdict.reason


# -- what is charged -----------------------------------------------------------------------------------------------

HELD = 1000


@pytest.mark.parametrize(("outcome", "spent"), [
    (Outcome("complete", 200, Usage(1, 1), cost_usd=3e-7), 300),
    (Outcome("complete", 200, Usage(1, 1), cost_usd=3e-6), 3000),  # more than was held
    (Outcome("complete", 200, cost_usd=0.0), 0),
    (Outcome("complete", 200), None),  # no usage
    (Outcome("complete", 200, Usage(1, 1)), None),  # no price
    (Outcome("denied", 0), 0),
    (Outcome("client_disconnected", 0, cost_usd=0.0), 0),  # before it was forwarded
    (Outcome("client_disconnected", 0), None),  # after
    (Outcome("client_disconnected", 200, Usage(1, 1), True, 3e-7), None),  # a floor is not the sum
    (Outcome("client_disconnected", 200, Usage(1, 1), True, 3e-6), 3000),
    (Outcome("cut", 200), None),
    (Outcome("stopped", 200), None),
    (Outcome("complete", 500), 0),
    (Outcome("complete", 429), 0),
    (Outcome("complete", 400, Usage(1, 1), cost_usd=3e-7), 300),
    (Outcome("upstream_error", 0), 0),
    (Outcome("upstream_error", 200), None),
    (Outcome("upstream_timeout", 0), None),
])
def test_charge(outcome: Outcome, spent: int | None) -> None:
    assert charge(outcome, HELD) == spent


@pytest.mark.parametrize("outcome", [Outcome("complete", 200, Usage(9, 9), cost_usd=0.001), Outcome("denied"),
                                     Outcome("cut", 200)])
def test_settle_resolves(counter: Counter, outcome: Outcome) -> None:
    policy = counter.policy()
    amount = held(run(policy.admit(asked())))
    spent = charge(outcome, amount)
    for _ in range(2):
        counter.settle(policy, asked(), outcome)
        assert counter.sums() == (amount if spent is None else spent, 0)
    assert not policy.open


def exchange(counter: Counter, *entries: Any, call: Call | None = None) -> tuple[Exchange, house.Book]:
    book = house.Book()
    return Exchange(house.gate(house.chain(*entries), book), house.OPENAI, house.OPENAI.operations[0], call or asked()), book


def test_a_call_that_a_later_policy_refuses_costs_nothing(counter: Counter) -> None:
    async def no(call: Call) -> Deny:
        return Deny("pii_found", "no")

    budget = counter.policy()
    one, book = exchange(counter, house.entry(budget, "budget", traits=traits(Budget)), house.entry(house.Policy(no)))

    async def work() -> None:
        assert await one.admit(one.call) == Deny("pii_found", "no")
        assert counter.sums()[1] > 0
        await one.finish("denied")
        await counter.booked()

    run(work())
    assert counter.sums() == (0, 0)
    assert book.outcome["reserved_usd"] > 0


def test_the_record_says_what_is_held(counter: Counter) -> None:
    one, book = exchange(counter, house.entry(counter.policy(), "budget"))
    run(one.admit(one.call))
    assert book.records[0]["reserved_usd"] == counter.sums()[1] / NANO


def test_observe_refuses_nothing_and_counts_all(counter: Counter) -> None:
    budget = counter.policy("0.015 USD/day")
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
        assert counter.sums() == (17 * NANO * number, 0)  # by the tariff of tests/house.py: a USD a token


def test_a_ledger_that_fails_refuses(counter: Counter) -> None:
    counter.ledger.close()
    verdict = run(counter.policy().admit(asked()))
    assert isinstance(verdict, Deny)
    assert verdict.code == "ledger_unavailable"


def test_200_at_once_on_a_budget_for_20(counter: Counter) -> None:
    before = counter.policy()
    one_call = held(run(before.admit(asked())))
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
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome is durable before the booking is: the audit log tells what came of the calls that still hold money."""
    data = tmp_path / "data"
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "one.yaml").write_text("version: 1\nchain:\n  - authenticate: {}\n")
    office = open_office(policies, data)
    assert office.audit is not None
    assert office.ledger is not None
    account = Account("", "principal", "bot", "day", *window("day", AT))
    ends = {"paid": Outcome("complete", 200, cost_usd=0.25), "denied": Outcome("denied"), "cut": Outcome("cut", 200),
            "cheap": Outcome("cut", 200, cost_usd=0.01, estimated=True), "refused": Outcome("complete", 429)}
    for number, (name, outcome) in enumerate([*ends.items(), ("no outcome", None), ("elsewhere", None), ("odd", None)]):
        call = asked(number=number)
        run(office.ledger.reserve(call.id, AT, [Demand(account, None)], NANO))
        said = record.about(call, "r")
        if name != "elsewhere":
            office.audit.append_blocking(record.intent(said, (), reserved_usd=1.0))
        if outcome is not None:
            office.audit.append_blocking(record.outcome(said, (), outcome, denial=None, latency_ms={}, reserved_usd=1.0))
    odd = {"kind": "outcome", **record.about(asked(number=7), "r"), "verdict": {"action": "allow"}, "ended": "complete"}
    office.audit.append_blocking(odd)  # of another version, say
    office.close()
    open_office(policies, data).close()
    (found,) = [one for one in read_balances(data, AT) if one.account == account]
    assert (found.captured, found.reserved) == (NANO // 4 + 2 * NANO + NANO, 2 * NANO)
    with contextlib.closing(sqlite3.connect(data / "ledger.sqlite")) as books, books:
        books.execute("UPDATE hold SET at = at - 7200 WHERE call = ?", (asked(number=6).id,))
    open_office(policies, data).close()
    assert [one for one in read_balances(data, AT) if one.account == account] == [found], "no log reaches back so far"
    with contextlib.closing(sqlite3.connect(data / "ledger.sqlite")) as books, books:
        books.execute("UPDATE hold SET at = ? WHERE call = ?", (int(time.time()) + 1, asked(number=6).id))
    monkeypatch.setattr(house_of, "_JUDGED_SECONDS", -5.0)
    open_office(policies, data).close()
    (found,) = [one for one in read_balances(data, AT) if one.account == account]
    assert found.reserved == NANO, "what never left is void"


# -- in YAML -------------------------------------------------------------------------------------------------------


def test_spellings() -> None:
    assert parse_limit("50 USD/day") == Limit(50 * NANO, "day")
    assert parse_limit("0.1USD / minute") == Limit(NANO // 10, "minute")
    assert parse_limit("1000 USD total") == parse_limit("1000 USD/total") == Limit(1000 * NANO, "total")
    assert parse_usd("0.000000001 USD") == 1
    assert parse_unbounded("assume 12") == Unbounded("assume", 12)
    assert parse_unbounded("insert") == Unbounded("insert", 4096)
    assert (parse_unpriced("deny"), parse_unpriced("ceiling"), parse_unpriced("2 USD")) == ("deny", "ceiling", 2 * NANO)
    for parse, wrong in ((parse_limit, "50"), (parse_limit, "50 EUR/day"), (parse_limit, "-1 USD/day"),
                         (parse_limit, "1e3 USD/day"), (parse_limit, "1 USD/year"), (parse_limit, "1 USD/day extra"),
                         (parse_usd, "0.0000000001 USD"),
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
    return {"limits": chain.entries[1].policy.limits, "rules": chain.entries[1].policy.rules}


def test_from_a_file(tmp_path: Path) -> None:
    got = loaded(tmp_path, "{per: team, limit: [50 USD/day, 1000 USD/month], unbounded: insert 100, unpriced: 0.5 USD}")
    assert got["limits"] == (Limit(50 * NANO, "day"), Limit(1000 * NANO, "month"))
    assert (got["rules"].unbounded, got["rules"].unpriced) == (Unbounded("insert", 100), NANO // 2)
    assert loaded(tmp_path, "{per: org, limit: 5 USD/week}")["limits"] == (Limit(5 * NANO, "week"),)
    assert not list(tmp_path.rglob("*.sqlite*")), "nothing is opened by reading"


@pytest.mark.parametrize(("text", "said"), [
    ("{per: team, limit: 50}", "budget.limit"), ("{per: team}", "`limit` is missing"),
    ("{limit: 5 USD/day}", "`per` is missing"),
    ("{per: user, limit: 5 USD/day}", "budget.per"), ("{per: team, limit: []}", "name at least one"),
    ("{per: team, limit: [5 USD/day, 6 USD/day]}", "two stand for the same"),
    ("{per: team, limit: 5 USD/day, unbounded: guess}", "budget.unbounded"),
    ("{per: team, limit: 5 USD/day, alert_at: [0.8]}", "there is no key `alert_at`")])
def test_mistakes_are_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml:6") as caught:
        loaded(tmp_path, text)
    assert said in str(caught.value)
