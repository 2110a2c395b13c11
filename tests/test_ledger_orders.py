"""Both ledgers, any order of anything: against models, from several processes, with calls that die, come twice or too late.

``DOUANE_EXAMPLES`` (``./run.sh test --full``): twenty promises and 10⁴ sequences, in place of one and 200.
"""

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from douane.ledger.base import (
    NOTHING_SPENT,
    Account,
    Demand,
    Held,
    Rate,
    Slots,
    Spent,
    Store,
    Take,
)
from douane.ledger.charge import UNKNOWN
from tests.house import run
from tests.ledgers import AT, KINDS, ORG, TOTAL, Shop, account, demands, shop, usd

FULL = "DOUANE_EXAMPLES" in os.environ


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Shop]:
    with shop(request.param) as one:
        yield one


# -- the promise ---------------------------------------------------------------------------------------------------------

AFFORDED, EACH = 200, 100

MANY = """
import random
dice = random.Random(int(arguments[1]))
async def one(call):
    await asyncio.sleep(dice.random() / 2)
    try:
        held = isinstance(await store.reserve(call, ORG, AT, demands(100, 200 * 100, 200 * 100)), Held)
        if held:
            await asyncio.sleep(dice.random() / 20)
            await store.capture(call, ORG, usd(100))
    except LedgerUnavailableError:
        held = False
        store.capture(call, ORG, NOTHING_SPENT)
    return held
async def work():
    return sum(await asyncio.gather(*(one(f"{arguments[0]}-{n}") for n in range(250))))
print("ready", flush=True)
sys.stdin.readline()
print(asyncio.run(work()), flush=True)
store.close()
"""


@pytest.mark.parametrize("seed", range(20 if FULL else 1))
def test_a_limit_that_affords_k_calls_admits_no_more(place: Shop, seed: int) -> None:
    """1,000 calls from four processes, of which none has seen the principal before."""
    place.open("looks")
    workers = [place.worker(MANY, name, 4 * seed + number) for number, name in enumerate("abcd")]
    for one in workers:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    seen: list[tuple[int, int]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            seen.extend((place.balance(), place.balance(TOTAL)))

    looker = threading.Thread(target=look)
    looker.start()
    for one in workers:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    admitted = sum(int(one.communicate(timeout=60)[0]) for one in workers)
    ended.set()
    looker.join()
    assert admitted <= AFFORDED
    assert max(captured + reserved for captured, reserved in seen) <= AFFORDED * EACH
    assert len({sum(one) for one in seen}) > 3, "it was looked at while it went on"
    assert place.balance() == place.balance(TOTAL)
    assert sum(place.balance()) == AFFORDED * EACH
    assert admitted > AFFORDED * 0.8, "but for those whom a busy machine made wait too long"


# -- conservation --------------------------------------------------------------------------------------------------------


class Story:
    """Some calls on accounts of their own, by two gateways of which one dies now and then. Every step says what it booked."""

    def __init__(self, number: int, gateways: Sequence[Store]) -> None:
        self.dice = random.Random(number)
        self.gateways = gateways
        self.accounts = [account(f"s{number}", "day"), account(f"s{number}", "total", unit="tokens"),
                         account(f"s{number}", "week", unit="calls")]
        self.names = [f"{number}-{n}" for n in range(4)]
        self.held: dict[str, dict[Account, int]] = {}
        self.resolved: dict[str, int] = dict.fromkeys(self.names, 0)
        self.sums: dict[Account, int] = dict.fromkeys(self.accounts, 0)

    async def go(self) -> None:
        for _ in range(self.dice.randint(6, 14)):
            await self.dice.choice([self.reserve, self.reserve, self.capture, self.capture, self.leave, self.die, self.twice])()
        for call in list(self.names):
            await self.book(call, self.spent())
            assert self.resolved[call] <= 1

    def spent(self) -> Spent:
        usd, tokens, *floors = (self.dice.randint(0, most) for most in (300, 300, 1, 1))
        return self.dice.choice([NOTHING_SPENT, UNKNOWN, Spent(usd, tokens, 1, *map(bool, floors))])

    async def reserve(self) -> None:
        call = self.dice.choice(self.names)
        some = self.dice.sample(self.accounts, self.dice.randint(1, 3))
        wanted = [Demand(one, self.dice.randint(0, 120), 400) for one in some]
        answer = await self.dice.choice(self.gateways).reserve(call, ORG, AT, wanted)
        if isinstance(answer, Held) and not self.resolved[call]:
            mine = self.held.setdefault(call, {})
            for one in wanted:
                mine[one.account] = max(mine.get(one.account, 0), one.amount)

    async def capture(self) -> None:
        await self.book(self.dice.choice(self.names), self.spent())

    async def book(self, call: str, spent: Spent, by: Callable[..., Any] | None = None) -> None:
        """In a retry, at once and by another gateway, what it comes to is another."""
        done = by(spent) if by else await self.dice.choice(self.gateways).capture(call, ORG, spent)
        self.note(call, spent, done)

    def note(self, call: str, spent: Spent, done: bool) -> None:
        assert done == (call in self.held), "it resolves where it holds something, and then alone"
        if done:
            self.resolved[call] += 1
            for one, amount in self.held.pop(call).items():
                self.sums[one] += spent.of(one.unit, amount)
        elif not self.resolved[call]:
            self.retire(call)

    async def twice(self) -> None:
        call, first, second = self.dice.choice(self.names), self.spent(), self.spent()
        one, two = (self.dice.choice(self.gateways).capture(call, ORG, spent) for spent in (first, second))
        done = await asyncio.gather(one, two)
        assert sum(done) == (call in self.held)
        self.note(call, *((first, True) if done[0] else (second, bool(done[1]))))

    async def leave(self) -> None:
        """The caller leaves while it is asked for; and then is settled as who never was let through."""
        call = self.dice.choice(self.names)
        if call in self.held or self.resolved[call]:
            return
        gateway = self.dice.choice(self.gateways)
        asked = asyncio.ensure_future(gateway.reserve(call, ORG, AT, [Demand(self.accounts[0], 1, 400)]))
        for _ in range(self.dice.randint(0, 3)):
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        self.resolved[call] += await gateway.capture(call, ORG, NOTHING_SPENT)
        self.retire(call)

    def retire(self, call: str) -> None:
        """Whether one that was resolved before it was reserved can be reserved is each store's own affair."""
        self.names[self.names.index(call)] = f"{call}'"
        self.resolved[f"{call}'"] = 0

    async def die(self) -> None:
        """Another gateway books for it."""
        call = self.dice.choice(self.names)
        await self.book(call, self.spent(), lambda spent: self.gateways[1].recover("one", {call: spent}) == 1)


def test_each_reservation_resolves_once_and_nothing_is_lost(place: Shop) -> None:
    gateways = place.open(), place.open("two")
    sequences = [Story(number, gateways) for number in range(10_000 if FULL else 200)]

    async def work() -> None:
        for one in sequences:
            await one.go()

    run(work(), 3600)
    stands = {one.account: (one.captured, one.reserved) for one in gateways[0].balances(AT)}
    for one in sequences:
        assert {of: stands.get(of, (0, 0)) for of in one.accounts} == {of: (total, 0) for of, total in one.sums.items()}


# -- rates, against a model ----------------------------------------------------------------------------------------------

RATES = [Rate(("r", str(n)), "tokens", limit, period, burst)
         for n, (limit, period, burst) in enumerate([(60, 60, 2), (7, 60, 10), (1000, 1, 100), (3, 86400, 1), (1, 7, 5)])]
SLOTS = [Slots(("s", str(limit)), limit) for limit in (1, 2)]


class Model:
    """In whole microseconds: how far from full each bucket is, and when that was; and who has a slot."""

    def __init__(self) -> None:
        self.full: dict[Rate | Slots, int] = {}
        self.slots: dict[Slots, set[str]] = {}

    def take(self, call: str, now: int, takes: Sequence[Take]) -> int | None:
        """The number of the rule that it does not fit."""
        full, slots = dict(self.full), {rule: set(calls) for rule, calls in self.slots.items()}
        for number, one in enumerate(takes):
            rule = one.rule
            if isinstance(rule, Slots):
                if len(self.slots.get(rule, ())) >= rule.limit:
                    return number
                slots.setdefault(rule, set()).add(call)
                continue
            empty = max(0, full.get(rule, 0) - now)
            room = max(0, self.time(rule, rule.burst) - -self.time(rule, -min(one.cost, rule.burst)))
            if empty > room:
                return number
            full[rule] = now + empty - self.time(rule, -one.cost)
        self.full, self.slots = full, slots
        return None

    def give_back(self, call: str, now: int, takes: Sequence[Take]) -> None:
        for one in takes:
            if isinstance(one.rule, Slots):
                self.slots.get(one.rule, set()).discard(call)
            else:
                self.full[one.rule] = max(self.full.get(one.rule, 0), now) - self.time(one.rule, one.cost)

    @staticmethod
    def time(rule: Rate, cost: int) -> int:
        return cost * rule.period * 1_000_000 // rule.limit


TAKES = st.lists(st.builds(Take, st.sampled_from(RATES), st.integers(0, 120)) | st.builds(Take, st.sampled_from(SLOTS)),
                 min_size=1, max_size=3, unique_by=lambda one: one.rule)
STEPS = st.lists(st.tuples(st.sampled_from(["take", "take", "take", "back"]), st.sampled_from("abcd"),
                           st.integers(0, 4_000_000), TAKES, st.integers(-40, 40)), max_size=25)
_org = iter(range(10**9))


@pytest.mark.parametrize("kind", KINDS)
def test_rates_and_slots_are_what_the_model_says(kind: str) -> None:
    with shop(kind) as place:
        ledger = place.open()

        @settings(max_examples=1000 if FULL else 40, deadline=None, derandomize=True, database=None)
        @given(STEPS)
        def differ(steps: Sequence[tuple[str, str, int, list[Take], int]]) -> None:
            org, model = f"o{next(_org)}", Model()

            def mine(one: Take) -> Take:
                return replace(one, rule=replace(one.rule, key=(*one.rule.key, org)))

            async def work() -> None:
                now = int(AT) * 1_000_000
                for what, call, later, takes, over in steps:
                    now += later
                    at = (now + 0.5) / 1_000_000
                    if what == "take":
                        number = model.take(call, now, takes)
                        found = await ledger.take(call, org, at, [mine(one) for one in takes])
                        assert (found and found.rule) == (None if number is None else mine(takes[number]).rule)
                        if found is not None and number is not None and isinstance(takes[number].rule, Rate):
                            assert round(found.reset_after * 1_000_000) == model.full[takes[number].rule] - now
                    else:
                        given = [Take(one.rule, over) for one in takes]
                        model.give_back(call, now, given)
                        await ledger.give_back(call, org, at, [mine(one) for one in given])

            run(work(), 60)

        differ()


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_is_admitted_than_burst_and_flow(kind: str) -> None:
    """Whatever the algorithm: over any time, at most the burst and what flows in."""
    with shop(kind) as place:
        ledger, dice = place.open(), random.Random(5)

        async def work() -> None:
            for number, rule in enumerate(RATES):
                at, admitted = AT, 0
                for _ in range(60):
                    at += dice.random() * 2 * rule.period / rule.limit
                    cost = dice.randint(1, rule.burst)
                    if await ledger.take("a", f"o{number}", at, [Take(rule, cost)]) is None:
                        admitted += cost
                    assert admitted <= rule.burst + (at - AT) * rule.limit / rule.period + 1e-6
                assert admitted >= rule.burst

        run(work(), 30)


# -- budgets, against a model --------------------------------------------------------------------------------------------

NAMES = st.sampled_from([f"call{n}" for n in range(6)])
AMOUNTS = st.integers(0, 60)


class Machine(RuleBasedStateMachine):
    """Against a model: call → (state, amount). *kind* is its subclasses'."""

    kind = ""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.place = self.stack.enter_context(shop(self.kind))
        self.ledger = self.place.open()
        self.runner = self.stack.enter_context(asyncio.Runner())
        self.model: dict[str, tuple[str, int]] = {}

    def run(self, work: Any) -> Any:
        return self.runner.run(asyncio.wait_for(work, 5))

    async def book(self, call: str, spent: Spent) -> bool:
        return await self.ledger.capture(call, ORG, spent)

    def sums(self) -> tuple[int, int]:
        spent = sum(amount for state, amount in self.model.values() if state == "captured")
        return spent, sum(amount for state, amount in self.model.values() if state == "held")

    @rule(call=NAMES, amount=AMOUNTS)
    def reserve(self, call: str, amount: int) -> None:
        state, before = self.model.get(call, ("held", 0))
        more = max(0, amount - before) if state == "held" else 0
        fits = state != "held" or more <= 100 - sum(self.sums())
        answer = self.run(self.ledger.reserve(call, ORG, AT, demands(amount, 100, 100)))
        assert isinstance(answer, Held) == fits
        if fits and state == "held":
            self.model[call] = ("held", before + more)

    @rule(call=NAMES, spent=st.sampled_from([UNKNOWN, NOTHING_SPENT]) | AMOUNTS.map(usd))
    def resolve(self, call: str, spent: Spent) -> None:
        state, held = self.model.get(call, ("", 0))
        if not state and self.kind == "redis":
            self.model[call] = ("void", 0)  # a tombstone
        assert self.run(self.book(call, spent)) == (state == "held")
        if state == "held":
            self.model[call] = ("captured", spent.of("usd", held))

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self.place.open()

    @rule(call=NAMES)
    def die(self, call: str) -> None:
        self.ledger.close()
        self.ledger = self.place.open()
        state, held = self.model.get(call, ("", 0))
        assert self.ledger.recover("one", {call: UNKNOWN}) == (state == "held")
        if state == "held":
            self.model[call] = ("captured", held)

    @invariant()
    def books_agree(self) -> None:
        assert self.place.balance() == self.place.balance(TOTAL) == self.sums()

    def teardown(self) -> None:
        self.stack.close()


for _kind in KINDS:
    class _Machine(Machine):
        kind = _kind

    _Machine.__name__ = _Machine.__qualname__ = f"Machine_{_kind}"
    case = _Machine.TestCase
    case.settings = settings(max_examples=100 if FULL else 10, stateful_step_count=15, deadline=None, derandomize=True,
                             database=None)
    globals()[f"test_state_machine_{_kind}"] = case
del case
