"""The SQLite ledger, where its file is locked, deleted, damaged or full: refused in time, nothing lost, no restart needed."""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from douane.audit import record
from douane.audit.log import AuditLog
from douane.errors import EnvironmentFailedError
from douane.gate import new_id
from douane.hosts.duties import recover
from douane.ledger.base import Demand, Held, LedgerUnavailableError
from douane.ledger.sqlite import FILE, LIMITS_FILE, SqliteLedger, read_balances
from tests.house import run
from tests.ledgers import AT, DAY, ORG, TOTAL, demands, usd


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    with contextlib.closing(SqliteLedger(tmp_path)) as opened:
        yield opened


def balance(folder: Path) -> tuple[int, int]:
    found = {one.account: one for one in read_balances(folder, AT)}
    return (found[DAY].captured, found[DAY].reserved) if DAY in found else (0, 0)


def refused_in_time(ledger: SqliteLedger) -> None:
    async def work() -> None:
        began = time.monotonic()
        with pytest.raises(LedgerUnavailableError) as caught:
            await ledger.reserve("late", ORG, AT, demands(1))
        assert time.monotonic() - began < 0.4  # 0.25, and what a busy machine adds
        assert caught.value.code == "ledger_unavailable"

    run(work())


def test_locked(ledger: SqliteLedger, tmp_path: Path) -> None:
    run(ledger.reserve("a", ORG, AT, demands(60)))
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    refused_in_time(ledger)

    async def owed() -> None:
        with pytest.raises(LedgerUnavailableError):
            await ledger.capture("a", ORG, usd(10))
        await asyncio.sleep(0.3)
        assert ledger.failure

    run(owed())
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(run(ledger.reserve("b", ORG, AT, demands(30))), Held)  # no restart
    assert not ledger.failure
    assert balance(tmp_path) == (10, 30)  # what could not be written was owed; what was refused holds nothing


def test_what_is_owed_is_paid_without_anybody_asking(ledger: SqliteLedger, tmp_path: Path) -> None:
    run(ledger.reserve("a", ORG, AT, demands(60)))
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)

    async def work() -> None:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerUnavailableError):
            await ledger.capture("a", ORG, usd(10))
        other.execute("ROLLBACK")
        for _ in range(40):
            await asyncio.sleep(0.1)
            if balance(tmp_path) == (10, 0):
                return

    run(work())
    other.close()
    assert balance(tmp_path) == (10, 0)


@pytest.mark.parametrize("break_it", [
    lambda path: path.unlink(),
    lambda path: path.write_bytes(b"nonsense" * 4096),
    lambda path: os.replace(path, path.with_suffix(".moved")),
], ids=["deleted", "damaged", "moved"])
def test_broken(ledger: SqliteLedger, tmp_path: Path, break_it: Callable[[Path], object]) -> None:
    run(ledger.reserve("a", ORG, AT, demands(60)))
    ledger._books.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    break_it(tmp_path / FILE)
    ledger._books.connection.execute("PRAGMA shrink_memory")  # what it remembers of the file
    refused_in_time(ledger)
    assert ledger.failure


def test_full(ledger: SqliteLedger) -> None:
    connection = ledger._books.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")

    async def fill() -> int:
        for number in range(2000):
            try:
                await ledger.reserve(f"{number:0200d}", ORG, AT, [Demand(TOTAL, 1, 10_000)])
            except LedgerUnavailableError:
                return number
        return -1

    held = run(fill())
    assert held > 0
    assert [(one.captured, one.reserved) for one in ledger.balances(AT)] == [(0, held)]
    assert ledger.failure
    connection.execute("PRAGMA max_page_count=100000")

    async def again() -> None:
        ledger.look_again()
        await asyncio.sleep(0.1)

    run(again())
    assert not ledger.failure


@pytest.mark.parametrize("name", [FILE, LIMITS_FILE])
def test_what_cannot_be_opened_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nonsense" * 4096)
    with pytest.raises(EnvironmentFailedError, match=f"{name}: cannot be opened"):
        SqliteLedger(tmp_path)
    (tmp_path / name).unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / name)) as other:
        other.execute("PRAGMA user_version=99")
    with pytest.raises(EnvironmentFailedError, match="version 99"):
        SqliteLedger(tmp_path)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert read_balances(tmp_path, AT) == []
    (tmp_path / FILE).write_bytes(b"nonsense" * 4096)
    with pytest.raises(EnvironmentFailedError, match="cannot be read"):
        read_balances(tmp_path, AT)


def test_what_can_never_be_written_fails_alone(ledger: SqliteLedger, tmp_path: Path) -> None:
    """And is not tried again: what others ask for in the same turn is done."""
    async def work() -> None:
        await ledger.reserve("a", ORG, AT, demands(60))
        impossible = asyncio.ensure_future(ledger.reserve("b", ORG, AT, [Demand(TOTAL, 2**70, 2**71)]))
        booked = ledger.capture("a", ORG, usd(10))
        poison = ledger._books.owe(lambda books: books.connection.execute("INSERT INTO stop VALUES (?, '', 0, 0)", (2**70,)))
        assert await ledger.reserve("c", ORG, AT, demands(1)) == Held()
        assert await booked
        for one in (impossible, poison):
            with pytest.raises(LedgerUnavailableError, match="OverflowError"):
                await one
        assert not ledger.failure
        assert await ledger.reserve("d", ORG, AT, demands(1)) == Held()

    run(work())
    assert balance(tmp_path) == (10, 2)


def test_what_a_call_held_that_never_left_is_void_from_the_first_second_of_the_log_on(tmp_path: Path) -> None:
    """The gateway died between the reservation and the intent; the ledger has the second, the call's id the millisecond."""
    audit = AuditLog.open(tmp_path / "audit", "one")
    audit.append_blocking(record.event("opened", time.time()))
    audit.close()
    time.sleep(0.01)
    at = time.time()
    earlier, later = new_id(at - 60), new_id(at)
    with contextlib.closing(SqliteLedger(tmp_path, "one")) as ledger:
        run(ledger.reserve(later, ORG, at, demands(7)))
        run(ledger.reserve(earlier, ORG, at - 60, demands(5)))
    with contextlib.closing(SqliteLedger(tmp_path, "one")) as ledger:
        recover(ledger, tmp_path / "audit", starting=True)
        assert set(ledger.held("one")) == {earlier}  # a log may have been moved away since
