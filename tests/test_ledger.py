"""The SQLite ledger: nothing is overspent, each reservation resolves once, and what cannot be written is refused in time."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from douane.errors import EnvironmentFailedError
from douane.ledger.base import LARGEST, Account, Balance, ClosedLedger, Demand, Held, LedgerUnavailableError, Refused, nano
from douane.ledger.sqlite import FILE, SqliteLedger, read_balances
from douane.ledger.windows import window
from tests.house import AT, run

ADDONS = Path(__file__).parents[1] / "addons"


def account(name: str = "support", period: str = "day", scope: str = "team") -> Account:
    start, end = window(period, AT)  # type: ignore[arg-type]
    return Account("", scope, name, period, start, end)  # type: ignore[arg-type]


DAY, TOTAL = account(), account(period="total")
ACCOUNTS = (DAY, TOTAL)


def demands(day: int | None = 100, total: int | None = None) -> tuple[Demand, ...]:
    return (Demand(DAY, day),) if total is None else (Demand(DAY, day), Demand(TOTAL, total))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    with contextlib.closing(SqliteLedger.open(tmp_path)) as opened:
        yield opened


def balance(folder: Path, of: Account = DAY) -> tuple[int, int]:
    """(captured, reserved)."""
    found = {one.account: one for one in read_balances(folder, AT)}
    return (found[of].captured, found[of].reserved) if of in found else (0, 0)


async def booked(ledger: SqliteLedger, call: str, amount: int | None) -> bool:
    return await ledger.capture(call, amount, ACCOUNTS)


def test_each_budget_resolves_its_own_holds(ledger: SqliteLedger, tmp_path: Path) -> None:
    """Two budgets of one call: what the one says the call cost is not what the other says."""
    other = account(scope="org")

    async def work() -> None:
        await ledger.reserve("a", AT, demands(), 60)
        await ledger.reserve("a", AT, [Demand(other, 100)], 60)
        assert await ledger.capture("a", 5, [other])
        assert (balance(tmp_path), balance(tmp_path, other)) == ((0, 60), (5, 0))
        assert await ledger.capture("a", None, [DAY])
        assert not await ledger.capture("a", 1, [DAY, other])
        assert (balance(tmp_path), balance(tmp_path, other)) == ((60, 0), (5, 0))

    run(work())


def test_a_reserve_that_comes_too_late_takes_back_its_own_part_alone(ledger: SqliteLedger, tmp_path: Path) -> None:
    other = account(scope="org")

    async def work() -> None:
        await ledger.reserve("a", AT, demands(), 60)
        for demanded, amount in (([Demand(other, 100)], 60), ([Demand(DAY, 100), Demand(other, 100)], 80)):
            late = asyncio.ensure_future(ledger.reserve("a", AT, demanded, amount))
            await asyncio.sleep(0)
            late.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await late
            await ledger.capture("behind it", 0, ACCOUNTS)
        await asyncio.sleep(0.05)
        assert (balance(tmp_path), balance(tmp_path, other)) == ((0, 60), (0, 0))

    run(work())


def test_no_sum_is_too_large_to_be_kept(ledger: SqliteLedger, tmp_path: Path) -> None:
    async def work() -> None:
        for number in range(9):
            await ledger.reserve(str(number), AT, demands(None), LARGEST)
            assert await ledger.capture(str(number), LARGEST, ACCOUNTS)
        assert isinstance(await ledger.reserve("z", AT, [Demand(TOTAL, 9)], 9), Held), "others are charged as before"

    run(work())
    assert balance(tmp_path)[0] == 2**62


def test_what_is_owed_is_paid_without_anybody_asking(ledger: SqliteLedger, tmp_path: Path) -> None:
    run(ledger.reserve("a", AT, demands(), 60))
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)

    async def work() -> None:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerUnavailableError):
            await ledger.capture("a", 10, ACCOUNTS)
        other.execute("ROLLBACK")
        for _ in range(40):
            await asyncio.sleep(0.1)
            if balance(tmp_path) == (10, 0):
                return

    run(work())
    other.close()
    assert balance(tmp_path) == (10, 0)


def test_reserve_capture_void(ledger: SqliteLedger, tmp_path: Path) -> None:
    async def work() -> None:
        assert await ledger.reserve("a", AT, demands(), 60) == Held(60)
        assert balance(tmp_path) == (0, 60)
        assert await ledger.reserve("b", AT, demands(), 41) == Refused(DAY, 40, DAY.end - AT if DAY.end else None)
        assert balance(tmp_path) == (0, 60)
        assert await ledger.reserve("b", AT, demands(), 40) == Held(40)
        assert await ledger.capture("a", 25, ACCOUNTS)
        assert balance(tmp_path) == (25, 40)
        assert await ledger.capture("b", 0, ACCOUNTS)
        assert balance(tmp_path) == (25, 0)

    run(work())
    (one,) = read_balances(tmp_path, AT)
    assert one == Balance(DAY, 25, 0, 100)
    assert one.left == 75


def test_calls_of_one_transaction_see_each_other(ledger: SqliteLedger, tmp_path: Path) -> None:
    async def work() -> None:
        held = await asyncio.gather(*(ledger.reserve(str(n), AT, demands(100, 250), 30) for n in range(5)))
        assert [type(one) for one in held] == [Held, Held, Held, Refused, Refused]
        assert balance(tmp_path) == balance(tmp_path, TOTAL) == (0, 90)
        done = await asyncio.gather(ledger.capture("0", 20, ACCOUNTS), ledger.reserve("5", AT, demands(100, 250), 20),
                                    ledger.capture("1", 0, ACCOUNTS),
                                    ledger.capture("2", None, ACCOUNTS), ledger.reserve("6", AT, demands(100, 250), 31))
        assert list(done[:4]) == [True, Held(20), True, True]
        assert isinstance(done[4], Refused)
        assert balance(tmp_path) == balance(tmp_path, TOTAL) == (50, 20)

    run(work())


def test_a_reservation_resolves_once(ledger: SqliteLedger, tmp_path: Path) -> None:
    async def work() -> None:
        for _ in range(2):
            await ledger.reserve("a", AT, demands(), 60)
        assert balance(tmp_path) == (0, 60)
        assert [await ledger.capture("a", amount, ACCOUNTS) for amount in (30, 30, 0)] == [True, False, False]
        await ledger.reserve("a", AT, demands(), 60)  # a resolved one is not opened anew
        assert not await ledger.capture("a", 99, ACCOUNTS)
        assert not await ledger.capture("never", 0, ACCOUNTS)

    run(work())
    assert balance(tmp_path) == (30, 0)


def test_windows_are_stacked_all_or_none(ledger: SqliteLedger, tmp_path: Path) -> None:
    async def work() -> None:
        assert isinstance(await ledger.reserve("a", AT, demands(100, 70), 60), Held)
        refused = await ledger.reserve("b", AT, demands(100, 70), 20)
        assert refused == Refused(TOTAL, 10, None)

    run(work())
    assert balance(tmp_path) == balance(tmp_path, TOTAL) == (0, 60)


def test_two_budgets_share_an_account(ledger: SqliteLedger, tmp_path: Path) -> None:
    """What a call holds counts once, under the larger of the two amounts; the second limit is looked at all the same."""
    async def work() -> None:
        assert isinstance(await ledger.reserve("a", AT, demands(100), 60), Held)
        assert isinstance(await ledger.reserve("a", AT, demands(70), 50), Held)
        assert isinstance(await ledger.reserve("a", AT, demands(70), 75), Refused)
        assert isinstance(await ledger.reserve("a", AT, demands(100), 75), Held)
        assert balance(tmp_path) == (0, 75)
        assert isinstance(await ledger.reserve("a", AT, demands(74), 75), Refused)
        await ledger.capture("a", None, ACCOUNTS)

    run(work())
    assert balance(tmp_path) == (75, 0)


def test_more_may_be_captured_than_was_held(ledger: SqliteLedger, tmp_path: Path) -> None:
    async def work() -> None:
        await ledger.reserve("a", AT, demands(), 60)
        await ledger.capture("a", 150, ACCOUNTS)
        assert await ledger.reserve("b", AT, demands(), 1) == Refused(DAY, -50, (DAY.end or 0) - AT)
        assert isinstance(await ledger.reserve("c", AT, demands(None), 1), Held)  # None counts only

    run(work())
    assert balance(tmp_path) == (150, 1)


def test_nano() -> None:
    assert [nano(value) for value in (0, 1e-9, 0.1, 0.30000000000000004, 1.5e-10)] == [0, 1, 100_000_000, 300_000_000, 1]
    assert nano(1e300) == nano(float("inf"))
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="0 or more"):
            nano(wrong)


def test_200_at_once_on_a_budget_for_20(ledger: SqliteLedger, tmp_path: Path) -> None:
    dice = random.Random(3)
    seen: list[int] = []

    async def one(call: str) -> bool:
        answer = await ledger.reserve(call, AT, demands(20 * 50), 50)
        seen.append(sum(balance(tmp_path)))
        if isinstance(answer, Refused):
            return False
        await asyncio.sleep(dice.random() / 50)
        await ledger.capture(call, 50, ACCOUNTS)
        seen.append(sum(balance(tmp_path)))
        return True

    async def work() -> list[bool]:
        return await asyncio.gather(*(one(str(n)) for n in range(200)))

    assert sum(run(work(), 20)) == 20
    assert max(seen) == 20 * 50
    assert balance(tmp_path) == (1000, 0)


# -- what fails ----------------------------------------------------------------------------------------------------


def refused_in_time(ledger: SqliteLedger) -> str:
    async def work() -> str:
        began = time.monotonic()
        with pytest.raises(LedgerUnavailableError) as caught:
            await ledger.reserve("late", AT, demands(), 1)
        assert time.monotonic() - began < 0.4  # 0.25, and what a busy machine adds
        assert caught.value.code == "ledger_unavailable"
        return caught.value.reason

    return run(work())


def test_locked(ledger: SqliteLedger, tmp_path: Path) -> None:
    run(ledger.reserve("a", AT, demands(), 60))
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    refused_in_time(ledger)

    async def owed() -> None:
        with pytest.raises(LedgerUnavailableError):
            await ledger.capture("a", 10, ACCOUNTS)
        await asyncio.sleep(0.3)
        assert ledger.failure

    run(owed())
    ledger._serve([])  # nobody waits any more: what is owed is still owed
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(run(ledger.reserve("b", AT, demands(), 30)), Held)  # no restart
    assert not ledger.failure
    assert balance(tmp_path) == (10, 30)  # what could not be written was owed; what was refused holds nothing


def test_a_late_hold_is_undone(ledger: SqliteLedger, tmp_path: Path) -> None:
    """The caller has left, or was refused, while the disk was slow: nothing stays held for it."""
    async def work() -> None:
        asked = asyncio.ensure_future(ledger.reserve("a", AT, demands(), 60))
        await asyncio.sleep(0)
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asked
        await ledger.capture("a", 0, ACCOUNTS)

    run(work())
    assert balance(tmp_path)[1] == 0


@pytest.mark.parametrize("break_it", [
    lambda path: path.unlink(),
    lambda path: path.write_bytes(b"nonsense" * 4096),
    lambda path: os.replace(path, path.with_suffix(".moved")),
], ids=["deleted", "corrupt", "moved"])
def test_broken(ledger: SqliteLedger, tmp_path: Path, break_it: Callable[[Path], object]) -> None:
    run(ledger.reserve("a", AT, demands(), 60))
    ledger._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    break_it(tmp_path / FILE)
    ledger._connection.execute("PRAGMA shrink_memory")  # what it remembers of the file
    refused_in_time(ledger)
    assert ledger.failure


def test_full(ledger: SqliteLedger, tmp_path: Path) -> None:
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count={pages}")

    async def fill() -> int:
        for number in range(2000):
            try:
                await ledger.reserve(f"{number:0200d}", AT, demands(None), 1)
            except LedgerUnavailableError:
                return number
        return -1

    held = run(fill())
    assert held > 0
    assert balance(tmp_path) == (0, held)
    assert ledger.failure
    ledger._connection.execute("PRAGMA max_page_count=100000")

    async def again() -> None:
        ledger.look_again()
        await asyncio.sleep(0.1)

    run(again())
    assert not ledger.failure


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"nonsense" * 4096)
    with pytest.raises(EnvironmentFailedError, match="cannot be opened"):
        SqliteLedger.open(tmp_path)
    with pytest.raises(EnvironmentFailedError, match="cannot be read"):
        read_balances(tmp_path, AT)
    (tmp_path / FILE).unlink()
    assert read_balances(tmp_path, AT) == []
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("PRAGMA user_version=99")
    with pytest.raises(EnvironmentFailedError, match="version 99"):
        SqliteLedger.open(tmp_path)


def test_closed(tmp_path: Path) -> None:
    ledger = SqliteLedger.open(tmp_path)
    ledger.close()
    ledger.close()
    for one in (ledger, ClosedLedger()):
        with pytest.raises(LedgerUnavailableError):
            run(one.reserve("a", AT, demands(), 1))


# -- several processes ---------------------------------------------------------------------------------------------

WORKER = """
import asyncio, sys
from pathlib import Path
from douane.ledger.base import Held
from douane.ledger.sqlite import SqliteLedger
from tests.test_ledger import ACCOUNTS, AT, demands
ledger = SqliteLedger.open(Path(sys.argv[1]))
async def one(call):
    held = isinstance(await ledger.reserve(call, AT, demands(20 * 50), 50), Held)
    if held and sys.argv[3] == "capture":
        await ledger.capture(call, 50, ACCOUNTS)
    return held
async def work():
    return sum(await asyncio.gather(*(one(f"{sys.argv[2]}-{n}") for n in range(100))))
print(asyncio.run(work()), flush=True)
sys.stdin.read()
ledger.close()
"""


def worker(folder: Path, name: str, then: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), name, then], text=True, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, env={"PYTHONPATH": f"{ADDONS}:{ADDONS.parent}"})


def test_two_processes_share_one_budget(tmp_path: Path) -> None:
    workers = [worker(tmp_path, name, "capture") for name in "ab"]
    held = [int(one.communicate("")[0]) for one in workers]
    assert sum(held) == 20
    assert balance(tmp_path) == (1000, 0)


def test_kill_leaves_reservations_charged(tmp_path: Path) -> None:
    process = worker(tmp_path, "a", "leave")
    assert process.stdout is not None
    assert int(process.stdout.readline()) == 20
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with contextlib.closing(SqliteLedger.open(tmp_path)) as ledger:
        assert balance(tmp_path) == (0, 1000)
        assert isinstance(run(ledger.reserve("b", AT, demands(1000), 1)), Refused)
    with contextlib.closing(SqliteLedger.open(tmp_path)) as ledger:
        held = [row[0] for row in ledger._connection.execute("SELECT call FROM hold")]
        assert ledger.recover(dict.fromkeys([*held[:5], "not ours"])) == 5
        assert balance(tmp_path) == (250, 750)
        assert ledger.recover(dict.fromkeys(held[:5])) == 0


# -- any order of anything -----------------------------------------------------------------------------------------

CALLS = st.sampled_from([f"call{n}" for n in range(6)])
AMOUNTS = st.integers(0, 60)


class Machine(RuleBasedStateMachine):
    """Against a model: call → (state, amount)."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.ledger = SqliteLedger.open(self.path)
        self.model: dict[str, tuple[str, int]] = {}

    def sums(self) -> tuple[int, int]:
        spent = sum(amount for state, amount in self.model.values() if state == "captured")
        return spent, sum(amount for state, amount in self.model.values() if state == "held")

    @rule(call=CALLS, amount=AMOUNTS)
    def reserve(self, call: str, amount: int) -> None:
        state, before = self.model.get(call, ("held", 0))
        more = max(0, amount - before) if state == "held" else 0
        fits = more <= 100 - sum(self.sums())
        answer = run(self.ledger.reserve(call, AT, demands(100, 100), amount))
        assert isinstance(answer, Held) == fits
        if fits and state == "held":
            self.model[call] = ("held", before + more)

    @rule(call=CALLS, amount=st.none() | AMOUNTS)
    def resolve(self, call: str, amount: int | None) -> None:
        state, held = self.model.get(call, ("", 0))
        assert run(booked(self.ledger, call, amount)) == (state == "held")
        if state == "held":
            self.model[call] = ("captured", held if amount is None else amount)

    @rule(call=CALLS)
    def void(self, call: str) -> None:
        open_now = self.model.get(call, ("", 0))[0] == "held"
        assert run(booked(self.ledger, call, 0)) == open_now
        if open_now:
            self.model[call] = ("void", 0)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = SqliteLedger.open(self.path)

    @rule(call=CALLS)
    def die(self, call: str) -> None:
        self.ledger.close()
        self.ledger = SqliteLedger.open(self.path)
        state, held = self.model.get(call, ("", 0))
        assert self.ledger.recover({call: None}) == (state == "held")
        if state == "held":
            self.model[call] = ("captured", held)

    @invariant()
    def books_agree(self) -> None:
        assert balance(self.path) == balance(self.path, TOTAL) == self.sums()

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


Machine.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None, derandomize=True)
test_state_machine = Machine.TestCase
