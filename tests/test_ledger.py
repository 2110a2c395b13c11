"""Both ledgers: nothing is overspent, each reservation resolves once, and what is limited stays so."""

import asyncio
import contextlib
import dataclasses
import random
import signal
from collections.abc import Iterator, Sequence

import pytest

from douane.ledger.base import (
    LARGEST,
    MOST,
    NOTHING_SPENT,
    Account,
    Balance,
    ClosedLedger,
    Demand,
    Held,
    LedgerUnavailableError,
    Limited,
    Rate,
    Refused,
    Slots,
    Spent,
    Stop,
    Store,
    Take,
    nano,
)
from douane.ledger.charge import UNKNOWN
from tests.house import run
from tests.ledgers import AT, DAY, KINDS, ORG, TOTAL, Shop, account, demands, shop, usd


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Shop]:
    with shop(request.param) as one:
        yield one


@pytest.fixture
def ledger(place: Shop) -> Store:
    return place.open()


TOKENS, CALLS = account(unit="tokens"), account(unit="calls")


def test_nano() -> None:
    assert [nano(value) for value in (0, 1e-9, 0.1, 0.30000000000000004, 1.5e-10)] == [0, 1, 100_000_000, 300_000_000, 1]
    assert nano(1e300) == nano(float("inf")) == LARGEST
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="0 or more"):
            nano(wrong)


def test_reserve_capture_void(ledger: Store, place: Shop) -> None:
    async def work() -> None:
        assert await ledger.reserve("a", ORG, AT, demands(60)) == Held()
        assert place.balance() == (0, 60)
        assert await ledger.reserve("b", ORG, AT, demands(41)) == Refused(DAY, 40, (DAY.end or 0) - AT)
        assert place.balance() == (0, 60)
        assert await ledger.reserve("b", ORG, AT, demands(40)) == Held()
        assert await ledger.capture("a", ORG, usd(25))
        assert place.balance() == (25, 40)
        assert await ledger.capture("b", ORG, NOTHING_SPENT)
        assert place.balance() == (25, 0)

    run(work())
    (one,) = ledger.balances(AT)
    assert one == Balance(DAY, 25, 0, 100)
    assert one.left == 75


def test_each_account_has_its_own_amount_and_unit(ledger: Store, place: Shop) -> None:
    wanted = [Demand(DAY, 60, 100), Demand(TOKENS, 7, 10), Demand(CALLS, 1, 1)]

    async def work() -> None:
        assert await ledger.reserve("a", ORG, AT, wanted) == Held()
        assert [place.balance(one) for one in (DAY, TOKENS, CALLS)] == [(0, 60), (0, 7), (0, 1)]
        assert await ledger.reserve("b", ORG, AT, [Demand(DAY, 1, 100), Demand(CALLS, 1, 1)]) == Refused(
            CALLS, 0, (CALLS.end or 0) - AT)
        assert await ledger.capture("a", ORG, Spent(5, 3, 1))
        assert [place.balance(one) for one in (DAY, TOKENS, CALLS)] == [(5, 0), (3, 0), (1, 0)]

    run(work())


@pytest.mark.parametrize(("spent", "left"), [
    (Spent(5, 3, 1, usd_floor=True), [60, 3, 1]), (Spent(70, 3, 1, usd_floor=True), [70, 3, 1]),
    (Spent(5, 3, 1, tokens_floor=True), [5, 7, 1]), (Spent(5, 30, 1, tokens_floor=True), [5, 30, 1]), (UNKNOWN, [60, 7, 1]),
    (NOTHING_SPENT, [0, 0, 0])])
def test_what_nobody_knows_stays_charged(ledger: Store, place: Shop, spent: Spent, left: list[int]) -> None:
    run(ledger.reserve("a", ORG, AT, [Demand(DAY, 60, 100), Demand(TOKENS, 7, 10), Demand(CALLS, 1, 1)]))

    async def work() -> None:
        assert await ledger.capture("a", ORG, spent)

    run(work())
    assert [place.balance(one) for one in (DAY, TOKENS, CALLS)] == [(one, 0) for one in left]


def test_a_demand_that_is_not_hard_counts_and_refuses_nothing(ledger: Store, place: Shop) -> None:
    async def work() -> None:
        soft = [Demand(DAY, 60, 100, hard=False), Demand(TOTAL, 60, 500)]
        assert await ledger.reserve("a", ORG, AT, soft) == Held()
        assert await ledger.reserve("b", ORG, AT, soft) == Held((DAY,))
        assert place.balance() == place.balance(TOTAL) == (0, 120)

    run(work())


def test_calls_of_one_turn_see_each_other(ledger: Store, place: Shop) -> None:
    async def work() -> None:
        held = await asyncio.gather(*(ledger.reserve(str(n), ORG, AT, demands(30, 100, 250)) for n in range(5)))
        assert [type(one) for one in held] == [Held, Held, Held, Refused, Refused]
        assert place.balance() == place.balance(TOTAL) == (0, 90)
        done = await asyncio.gather(
            ledger.capture("0", ORG, usd(20)), ledger.reserve("5", ORG, AT, demands(20, 100, 250)),
            ledger.capture("1", ORG, NOTHING_SPENT), ledger.capture("2", ORG, UNKNOWN),
            ledger.reserve("6", ORG, AT, demands(31, 100, 250)))
        assert [type(one) for one in done] == [bool, Held, bool, bool, Refused]
        assert place.balance() == place.balance(TOTAL) == (50, 20)

    run(work())


def test_a_capture_is_in_line_before_whoever_comes_next(ledger: Store) -> None:
    async def work() -> None:
        await ledger.reserve("a", ORG, AT, demands(100))
        ledger.capture("a", ORG, NOTHING_SPENT)
        assert await ledger.reserve("b", ORG, AT, demands(100)) == Held()

    run(work())


def test_a_reservation_resolves_once(ledger: Store, place: Shop) -> None:
    async def work() -> None:
        for _ in range(2):
            await ledger.reserve("a", ORG, AT, demands(60))
        assert place.balance() == (0, 60)
        assert await ledger.capture("a", ORG, usd(30))
        for amount in (60, 70):
            assert await ledger.reserve("a", ORG, AT, demands(amount)) == Held()  # a resolved one is not opened anew
            assert place.balance() == (30, 0)
        assert [await ledger.capture("a", ORG, usd(amount)) for amount in (30, 0)] == [False, False]
        assert not await ledger.capture("a", ORG, usd(99))
        assert not await ledger.capture("never", ORG, NOTHING_SPENT)

    run(work())
    assert place.balance() == (30, 0)


def test_windows_are_stacked_all_or_none(ledger: Store, place: Shop) -> None:
    async def work() -> None:
        assert isinstance(await ledger.reserve("a", ORG, AT, demands(60, 100, 70)), Held)
        assert await ledger.reserve("b", ORG, AT, demands(20, 100, 70)) == Refused(TOTAL, 10, None)

    run(work())
    assert place.balance() == place.balance(TOTAL) == (0, 60)


def test_a_call_that_asks_again_is_raised(ledger: Store, place: Shop) -> None:
    """What a call holds counts once; an account that it did not hold before is added; a refusal leaves what is held."""
    async def work() -> None:
        for amount, limit, kind, holds in ((60, 100, Held, 60), (50, 70, Held, 60), (75, 70, Refused, 60), (75, 100, Held, 75),
                                           (75, 74, Refused, 75)):
            assert isinstance(await ledger.reserve("a", ORG, AT, demands(amount, limit)), kind)
            assert place.balance() == (0, holds)
        assert isinstance(await ledger.reserve("a", ORG, AT, [Demand(TOTAL, 9, 10), Demand(DAY, 76, 100)]), Held)
        assert (place.balance(), place.balance(TOTAL)) == ((0, 76), (0, 9))
        await ledger.capture("a", ORG, UNKNOWN)

    run(work())
    assert (place.balance(), place.balance(TOTAL)) == ((76, 0), (9, 0))


def test_more_may_be_captured_than_was_held(ledger: Store, place: Shop) -> None:
    async def work() -> None:
        await ledger.reserve("a", ORG, AT, demands(60))
        await ledger.capture("a", ORG, usd(150))
        assert await ledger.reserve("b", ORG, AT, demands(1)) == Refused(DAY, -50, (DAY.end or 0) - AT)
        assert await ledger.reserve("c", ORG, AT, demands(0)) == Refused(DAY, -50, (DAY.end or 0) - AT)

    run(work())
    assert place.balance() == (150, 0)


def test_the_terms_of_the_last_reservation_are_kept(ledger: Store) -> None:
    async def work() -> None:
        await ledger.reserve("a", ORG, AT, demands(1, 100))
        await ledger.reserve("b", ORG, AT, demands(1, 50))

    run(work())
    assert [one.limit for one in ledger.balances(AT)] == [50]


def test_no_sum_is_too_large_to_be_kept(ledger: Store, place: Shop) -> None:
    """And none is rounded: Redis' scripts count in doubles."""
    odd = LARGEST - 1

    async def work() -> None:
        await ledger.reserve("odd", ORG, AT, [Demand(TOTAL, odd, LARGEST)])
        assert await ledger.reserve("two", ORG, AT, [Demand(TOTAL, 2, LARGEST)]) == Refused(TOTAL, 1, None)
        assert await ledger.reserve("one", ORG, AT, [Demand(TOTAL, 1, LARGEST)]) == Held()
        assert place.balance(TOTAL) == (0, LARGEST)
        await ledger.capture("odd", ORG, usd(odd))
        assert place.balance(TOTAL) == (odd, 1)
        for number in range(3):
            await ledger.reserve(str(number), ORG, AT, [Demand(DAY, LARGEST, LARGEST, hard=False)])
            assert await ledger.capture(str(number), ORG, usd(LARGEST))
        assert isinstance(await ledger.reserve("z", ORG, AT, [Demand(DAY, 9, LARGEST)]), Refused)
        assert await ledger.reserve("z", ORG, AT, [Demand(CALLS, 9, 9)]) == Held(), "others are charged as before"

    run(work())
    assert place.balance() == (MOST, 0)


def test_nobody_is_paid_for_a_call(ledger: Store, place: Shop) -> None:
    async def work() -> None:
        await ledger.reserve("a", ORG, AT, [Demand(DAY, 60, 100), Demand(TOKENS, 7, 10), Demand(CALLS, 1, 1)])
        assert await ledger.capture("a", ORG, Spent(-5, -3, -1))

    run(work())
    assert [place.balance(one) for one in (DAY, TOKENS, CALLS)] == [(0, 0), (0, 0), (0, 0)]


NAMES = ["", "a:b", "}{x", "%7B", "ü/\x1f\n", "org", "-", " ", "a b 1"]


def test_no_name_breaks_out_of_its_place(ledger: Store, place: Shop) -> None:
    accounts = [Account(name, other, f"tag:{name}", other, "usd", "total", 0, None) for name in NAMES for other in NAMES[:3]]

    async def work() -> None:
        for number, one in enumerate(accounts):
            assert await ledger.reserve(f"c{number}", one.org, AT, [Demand(one, 10, 10)]) == Held()
        for number, one in enumerate(accounts):
            assert await ledger.capture(f"c{number}", one.org, usd(number))

    run(work())
    assert {one.account: one.captured for one in ledger.balances(AT)} == {one: n for n, one in enumerate(accounts)}


def test_orgs_are_kept_apart(ledger: Store, place: Shop) -> None:
    other = dataclasses.replace(DAY, org="rival")

    async def work() -> None:
        assert await ledger.reserve("a", ORG, AT, demands(100)) == Held()
        assert await ledger.reserve("b", "rival", AT, [Demand(other, 100, 100)]) == Held()
        assert await ledger.capture("b", "rival", usd(1))

    run(work())
    assert (place.balance(), place.balance(other)) == ((0, 100), (1, 0))


def test_a_late_hold_is_undone(ledger: Store, place: Shop) -> None:
    """The caller has left while the store was slow: nothing stays held for it."""
    async def work() -> None:
        for turns in range(4):
            asked = asyncio.ensure_future(ledger.reserve(f"a{turns}", ORG, AT, demands(60)))
            for _ in range(turns):
                await asyncio.sleep(0)
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asked
            await ledger.capture(f"a{turns}", ORG, NOTHING_SPENT)
            await ledger.reserve(f"a{turns}", ORG, AT, demands(60))

    run(work())
    assert place.balance() in ((0, 0), (0, 60)), "one whose first request was never looked at may ask again"


def test_200_at_once_on_a_budget_for_20(ledger: Store, place: Shop) -> None:
    dice = random.Random(3)
    seen: list[int] = []

    async def one(call: str) -> bool:
        answer = await ledger.reserve(call, ORG, AT, demands(50, 20 * 50))
        seen.append(sum(place.balance()))
        if isinstance(answer, Refused):
            return False
        await asyncio.sleep(dice.random() / 50)
        await ledger.capture(call, ORG, usd(50))
        seen.append(sum(place.balance()))
        return True

    async def work() -> list[bool]:
        return await asyncio.gather(*(one(str(n)) for n in range(200)))

    assert sum(run(work(), 20)) == 20
    assert max(seen) == 20 * 50
    assert place.balance() == (1000, 0)


def test_closed(place: Shop) -> None:
    ledger = place.open()
    ledger.close()
    ledger.close()

    async def work() -> None:
        for one in (ledger, ClosedLedger()):
            with pytest.raises(LedgerUnavailableError):
                await one.reserve("a", ORG, AT, demands(1))
            with pytest.raises(LedgerUnavailableError):
                await one.take("a", ORG, AT, [Take(Slots(("x",), 1))])
            with pytest.raises(LedgerUnavailableError):
                await one.capture("a", ORG, NOTHING_SPENT)
            with pytest.raises(LedgerUnavailableError):
                await one.give_back("a", ORG, AT, [])

    run(work())


def test_what_is_in_line_is_done_before_the_end(place: Shop) -> None:
    ledger = place.open()

    async def work() -> None:
        await ledger.reserve("a", ORG, AT, demands(60))
        ledger.capture("a", ORG, usd(7))
        ledger.close()

    run(work())
    place.open("two")
    assert place.balance() == (7, 0)


# -- alerts --------------------------------------------------------------------------------------------------------------

SHARES = (500, 800, 1000, 1200)


def alerted(amount: int, limit: int = 100, of: Account = DAY, shares: tuple[int, ...] = SHARES) -> list[Demand]:
    return [Demand(of, amount, limit, alerts=shares)]


def test_a_share_is_told_once_a_window(ledger: Store) -> None:
    async def spend(call: str, amount: int, held: int = 0) -> list[tuple[int, int]]:
        await ledger.reserve(call, ORG, AT, alerted(held))
        await ledger.capture(call, ORG, usd(amount))
        found = await ledger.due(AT, 1)
        for one in found:
            assert (one.account, one.limit) == (DAY, 100)
            await ledger.sent(one)
        return [(one.share, one.captured) for one in found]

    async def work() -> None:
        assert await spend("a", 49) == []
        assert await spend("b", 1) == [(500, 50)]
        assert await spend("c", 0) == []
        assert sorted(await spend("d", 50)) == [(800, 100), (1000, 100)]
        assert await spend("e", 19) == []
        assert isinstance(await ledger.reserve("f", ORG, AT, alerted(1)), Refused)
        assert await ledger.due(AT, 1) == [], "the limit was told of"

    run(work())


def test_a_refusal_is_told_as_if_the_limit_were_reached(ledger: Store, place: Shop) -> None:
    async def work() -> None:
        for call in "ab":
            assert isinstance(await ledger.reserve(call, ORG, AT, alerted(101)), Refused)
        assert sorted(one.share for one in await ledger.due(AT, 1)) == [500, 800, 1000]

    run(work())
    assert place.balance() == (0, 0)


def test_a_soft_limit_is_told_when_it_is_crossed(ledger: Store) -> None:
    async def work() -> None:
        soft = [Demand(DAY, 60, 100, hard=False, alerts=(1000,))]
        for call in "ab":
            await ledger.reserve(call, ORG, AT, soft)
            assert await ledger.due(AT, 1) == [], "reserved is not captured"
            await ledger.capture(call, ORG, usd(60))
        assert [one.share for one in await ledger.due(AT, 1)] == [1000]

    run(work())


def test_shares_are_exact_however_large_the_limit(ledger: Store) -> None:
    limit = LARGEST - 3
    just = (limit * 999 + 999) // 1000

    async def work() -> None:
        await ledger.reserve("a", ORG, AT, alerted(1, limit, shares=(999,)))
        await ledger.capture("a", ORG, usd(just - 1))
        assert await ledger.due(AT, 1) == []
        await ledger.reserve("b", ORG, AT, alerted(1, limit, shares=(999,)))
        await ledger.capture("b", ORG, usd(1))
        assert [one.captured for one in await ledger.due(AT, 1)] == [just]

    run(work())


def test_an_alert_is_one_senders_for_a_while(place: Shop) -> None:
    one, two = place.open(), place.open("two")

    async def work() -> None:
        await one.reserve("a", ORG, AT, alerted(60))
        await one.capture("a", ORG, usd(60))
        (alert,) = await one.due(AT, 30)
        assert await two.due(AT + 29, 30) == []
        (again,) = await two.due(AT + 30, 30)
        assert again == alert
        assert again.id == alert.id
        await two.sent(again)
        assert await one.due(AT + 999, 30) == []

    run(work())


def test_more_alerts_than_one_batch_are_all_sent(ledger: Store) -> None:
    """Whoever asks gets some, and the rest are still there for whoever asks next."""
    async def work() -> None:
        shares = tuple(range(1, 1002))
        await ledger.reserve("a", ORG, AT, [Demand(DAY, 1, 1, alerts=shares)])
        await ledger.capture("a", ORG, usd(2))
        assert len(await ledger.due(AT, 60)) == 1000
        assert len(await ledger.due(AT, 60)) == 1

    run(work())


# -- stops ---------------------------------------------------------------------------------------------------------------


def test_stops(place: Shop) -> None:
    one, two = place.open(), place.open("two")

    async def work() -> None:
        assert await one.stops() == frozenset()
        everything, odd = Stop("all", "", AT), Stop("tag:x", "a:b {c} ü", AT + 0.1, running=True)
        for stop in (everything, Stop(odd.scope, odd.name, AT), odd):
            await one.stop(stop)
        assert await two.stops() == {everything, odd}
        assert await two.resume("all", "")
        assert not await two.resume("all", "")
        assert await one.stops() == {odd}

    run(work())


# -- rates and slots -----------------------------------------------------------------------------------------------------


def rate(limit: int = 60, burst: int = 2, period: int = 60, unit: str = "requests") -> Rate:
    return Rate((unit, "bot"), unit, limit, period, burst)  # type: ignore[arg-type]


def test_a_bucket_fills_as_time_goes_by(ledger: Store) -> None:
    one = [Take(rate())]

    async def work() -> None:
        assert [await ledger.take("a", ORG, AT, one) for _ in range(2)] == [None, None]
        assert await ledger.take("a", ORG, AT, one) == Limited(rate(), 0, 1.0, 2.0)
        assert await ledger.take("a", ORG, AT + 0.5, one) == Limited(rate(), 0, 0.5, 1.5)
        assert await ledger.take("a", ORG, AT + 1, one) is None
        assert await ledger.take("a", ORG, AT - 60, one) == Limited(rate(), 0, 62.0, 63.0), "clocks differ"

    run(work())


def test_a_request_takes_from_all_its_rules_or_from_none(ledger: Store) -> None:
    few, many, slot = rate(60, 1), rate(60, 10, unit="tokens"), Slots(("x",), 5)

    async def work() -> None:
        takes = [Take(many, 2), Take(slot), Take(few)]
        assert await ledger.take("a", ORG, AT, takes) is None
        refused = await ledger.take("b", ORG, AT, takes)
        assert refused is not None
        assert refused.rule == few
        assert await ledger.take("c", ORG, AT, [Take(many, 8)]) is None
        for number in range(4):
            assert await ledger.take(f"s{number}", ORG, AT, [Take(slot)]) is None
        assert await ledger.take("s9", ORG, AT, [Take(slot)]) == Limited(slot, 0, 1.0, 1.0)

    run(work())


def test_a_cost_above_the_burst_is_taken_from_a_full_bucket(ledger: Store) -> None:
    """Also where burst and rate do not divide."""
    for number, rule in enumerate((rate(60, 2), rate(7, 10, 60, "tokens"))):
        async def work(rule: Rate = rule, org: str = str(number)) -> None:
            assert await ledger.take("a", org, AT, [Take(rule, 100)]) is None
            refused = await ledger.take("a", org, AT, [Take(rule)])
            assert refused is not None
            assert refused.remaining == 0
            assert await ledger.take("a", org, AT + refused.retry_after + 0.01, [Take(rule)]) is None

        run(work())


def test_what_was_taken_too_much_comes_back(ledger: Store) -> None:
    rule = rate(60, 10, unit="tokens")

    async def work() -> None:
        assert await ledger.take("a", ORG, AT, [Take(rule, 10)]) is None
        await ledger.give_back("a", ORG, AT, [Take(rule, 4)])
        assert await ledger.take("b", ORG, AT, [Take(rule, 4)]) is None
        assert await ledger.take("c", ORG, AT, [Take(rule, 1)]) is not None
        await ledger.give_back("b", ORG, AT + 600, [Take(rule, -5)])  # an hour's rest pays for nothing but the burst
        assert await ledger.take("d", ORG, AT + 600, [Take(rule, 6)]) is not None
        assert await ledger.take("d", ORG, AT + 600, [Take(rule, 5)]) is None
        await ledger.give_back("d", ORG, AT + 600, [Take(rule, 500)])
        assert await ledger.take("e", ORG, AT + 600, [Take(rule, 11)]) is None, "never more than the burst"
        assert await ledger.take("f", ORG, AT + 600, [Take(rule, 1)]) is not None

    run(work())


def test_no_cost_is_too_large(ledger: Store) -> None:
    rule = Rate(("slow",), "tokens", 1, 86400, 1)

    async def work() -> None:
        assert await ledger.take("a", ORG, AT, [Take(rule, 10**12)]) is None
        assert await ledger.take("a", ORG, AT, [Take(rule, 1)]) is not None
        for cost in (-10**12, 10**12, -10**12):
            await ledger.give_back("a", ORG, AT, [Take(rule, cost)])
        assert not ledger.failure

    run(work())


def test_slots(place: Shop) -> None:
    one, two, slot = place.open(), place.open("two"), [Take(Slots(("x",), 2))]

    async def work() -> None:
        assert await one.take("a", ORG, AT, slot) is None
        assert await two.take("b", ORG, AT, slot) is None
        for ledger in (one, two):
            assert await ledger.take("c", ORG, AT, slot) == Limited(slot[0].rule, 0, 1.0, 1.0)
        await one.give_back("a", ORG, AT, slot)
        assert await two.take("c", ORG, AT, slot) is None
        assert await one.take("d", ORG, AT, slot) is not None

    run(work())


def test_a_slot_that_nobody_waited_for_is_free(ledger: Store) -> None:
    slot = [Take(Slots(("x",), 1))]

    async def work() -> None:
        for turns in range(6):
            asked = asyncio.ensure_future(ledger.take(f"a{turns}", ORG, AT, slot))
            for _ in range(turns):
                await asyncio.sleep(0.0002)
            asked.cancel()
            (answer,) = await asyncio.gather(asked, return_exceptions=True)
            if answer is None:
                await ledger.give_back(f"a{turns}", ORG, AT, slot)
        assert await ledger.take("b", ORG, AT, slot) is None

    run(work())


def test_who_begins_anew_holds_no_slot(place: Shop) -> None:
    slot = [Take(Slots(("x",), 1))]
    assert run(place.open().take("a", ORG, AT, slot)) is None
    place.close()
    assert run(place.open().take("b", ORG, AT, slot)) is None


# -- several processes ---------------------------------------------------------------------------------------------------

HUNDRED = """
async def one(call):
    held = isinstance(await store.reserve(call, ORG, AT, demands(50, 20 * 50)), Held)
    if held and arguments[1] == "capture":
        await store.capture(call, ORG, usd(50))
    return held
async def work():
    await store.take("slot", ORG, AT, [Take(Slots(("x",), 1))])
    return sum(await asyncio.gather(*(one(f"{arguments[0]}-{n}") for n in range(100))))
print(asyncio.run(work()), flush=True)
sys.stdin.read()
store.close()
"""


def test_two_processes_share_one_budget(place: Shop) -> None:
    workers = [place.worker(HUNDRED, name, "capture") for name in "ab"]
    held = [int(one.communicate("")[0]) for one in workers]
    assert sum(held) == 20
    place.open()
    assert place.balance() == (1000, 0)


def test_kill_leaves_reservations_charged(place: Shop) -> None:
    process = place.worker(HUNDRED, "a", "leave")
    assert process.stdout is not None
    assert int(process.stdout.readline()) == 20
    ledger, slot = place.open("b"), [Take(Slots(("x",), 1))]
    assert ledger.is_alive("a")
    assert not ledger.is_alive("nobody")
    assert run(ledger.take("mine", ORG, AT, slot)) is not None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if place.kind == "redis":
        expire(place, "a")
    assert not ledger.is_alive("a")
    assert run(ledger.take("mine", ORG, AT, slot)) is None, "the dead hold no slots"
    assert place.balance() == (0, 1000)
    assert isinstance(run(ledger.reserve("b", ORG, AT, demands(1, 1000))), Refused)
    assert ledger.owners() == ["a"]
    held = ledger.held("a")
    assert set(held) == {f"a-{n}" for n in range(100)} & set(held)
    assert len(held) == 20
    five = list(held)[:5]
    assert ledger.recover("a", {**dict.fromkeys(five[1:], UNKNOWN), five[0]: usd(7), "not ours": UNKNOWN}) == 5
    assert place.balance() == (207, 750)
    assert ledger.recover("a", dict.fromkeys(five, UNKNOWN)) == 0
    assert set(ledger.held("a")) == set(held) - set(five)

    async def late() -> None:
        assert not await ledger.capture(five[0], ORG, usd(99))
        assert await ledger.reserve(five[0], ORG, AT, demands(1, 10_000)) == Held()

    run(late())
    assert place.balance() == (207, 750)


def expire(place: Shop, owner: str) -> None:
    """As if 30 s had gone by."""
    from tests.redis_server import shared
    with shared().client() as client:
        client.delete(f"douane:owner:{owner}")
        for key in client.scan_iter("douane:*:lives"):
            client.hset(key, mapping=dict.fromkeys([life for life in client.hkeys(key) if life.startswith(f"{owner} ")], 1))


def test_nobody_is_forgotten(place: Shop) -> None:
    """Calls of several orgs, of one that was refused and of one that is resolved: owners and held name what is open."""
    ledger = place.open("me")

    async def work() -> None:
        await ledger.reserve("a", ORG, AT, demands(1))
        await ledger.reserve("b", "", AT, [Demand(account(org=""), 1, 1)])
        await ledger.reserve("c", ORG, AT, demands(100))
        await ledger.reserve("d", ORG, AT, demands(1))
        await ledger.capture("d", ORG, usd(1))

    run(work())
    assert ledger.owners() == ["me"]
    assert set(ledger.held("me")) == {"a", "b"}
    assert ledger.held("you") == {}
    assert ledger.is_alive("me")
    assert ledger.recover("me", dict.fromkeys("abcd", NOTHING_SPENT)) == 2
    assert ledger.owners() == []


def test_balances_are_of_now_or_open(ledger: Store) -> None:
    async def work() -> None:
        for name, period in (("a", "minute"), ("b", "day"), ("c", "minute"), ("d", "total")):
            await ledger.reserve(name, ORG, AT, [Demand(account(name, period), 1, 1)])  # type: ignore[arg-type]
        for name in "abd":
            await ledger.capture(name, ORG, usd(1))

    run(work())
    assert [one.account.name for one in ledger.balances(AT)] == ["a", "b", "c", "d"]
    assert [one.account.name for one in ledger.balances(AT + 3600)] == ["b", "c", "d"]
    assert [one.account.name for one in ledger.balances(AT - 86400)] == ["c", "d"]


def test_it_beats(ledger: Store) -> None:
    async def work() -> Sequence[object]:
        await ledger.take("a", ORG, AT, [Take(Slots(("x",), 1))])
        await ledger.beat()
        ledger.look_again()
        return []

    run(work())
    assert not ledger.failure
