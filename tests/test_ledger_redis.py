"""The Redis ledger where Redis is down, slow, frozen, full, a replica, elsewhere: refused in time, nothing lost, no restart."""

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from douane.ledger import redis_desk
from douane.ledger.base import NOTHING_SPENT, Held, LedgerUnavailableError, Rate, Slots, Take
from douane.ledger.redis import RedisLedger
from douane.ledger.redis_keys import RESERVE, give_back
from douane.ledger.redis_line import Line
from douane.secrets import Secret
from tests.house import run
from tests.ledgers import AT, DAY, ORG, demands, usd
from tests.redis_server import Road, Server, balance, running, until, works

FULL = "DOUANE_EXAMPLES" in os.environ


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that is broken by a test, and mended."""
    with running(tmp_path_factory.mktemp("redis"), "--busy-reply-threshold", "30") as server:
        yield server


@pytest.fixture
def server(own: Server) -> Server:
    with own.client() as client:
        client.flushall()
    return own


@pytest.fixture
def ledger(server: Server) -> Iterator[RedisLedger]:
    with contextlib.closing(RedisLedger(Secret(server.url), "one")) as opened:
        yield opened


@pytest.fixture
def road(server: Server) -> Iterator[Road]:
    with Road(server.port) as one:
        yield one


@pytest.fixture
def far(road: Road) -> Iterator[RedisLedger]:
    """By the road."""
    with contextlib.closing(RedisLedger(Secret(road.url), "one")) as opened:
        yield opened


async def refused_in_time(ask: Callable[[], Awaitable[Any]]) -> str:
    began = time.monotonic()
    with pytest.raises(LedgerUnavailableError) as caught:
        await ask()
    assert time.monotonic() - began < 0.4  # 0.25, and what a busy machine adds
    return caught.value.reason


# -- what breaks ---------------------------------------------------------------------------------------------------------

BREAKS: dict[str, tuple[Callable[[Server, Road], object], Callable[[Server, Road], object]]] = {
    "down": (lambda server, road: road.set("down"), lambda server, road: road.set("open")),
    "slow": (lambda server, road: road.set("open", 2.0), lambda server, road: road.set("open")),
    "hole": (lambda server, road: road.set("hole"), lambda server, road: road.set("open")),
    "frozen": (lambda server, road: server.freeze(), lambda server, road: server.thaw()),
    "resets": (lambda server, road: road.set("reset"), lambda server, road: road.set("open")),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_server_that_is_away(far: RedisLedger, server: Server, road: Road, how: str,
                               caplog: pytest.LogCaptureFixture) -> None:
    """Calls are refused in time, those that ran are booked when it is back, nothing stays held for those that were refused."""
    fail, mend = BREAKS[how]

    async def ask(number: int) -> None:
        await asyncio.gather(refused_in_time(lambda: far.take(f"b{number}", ORG, AT, [Take(Slots(("x",), 99))])),
                             refused_in_time(lambda: far.reserve(f"b{number}", ORG, AT, demands(1, 1000))))
        far.capture(f"b{number}", ORG, NOTHING_SPENT)

    async def work() -> None:
        await far.reserve("ran", ORG, AT, demands(60, 1000))
        fail(server, road)
        opened = road.connections
        async with asyncio.timeout(20):
            running = far.capture("ran", ORG, usd(10))
            for turn in range(3):
                await asyncio.gather(*(ask(10 * turn + number) for number in range(10)))
                await asyncio.sleep(0.1)
            await refused_in_time(far.stops)
            await refused_in_time(lambda: running)
            assert far.failure
            assert road.connections - opened <= 10, "no storm"
            assert road.connections > opened or how != "hole", "what is lost on the road comes late, if ever"
            mend(server, road)
            await works(far)
            await until(lambda: not far._desk.owed)
        assert not far.failure
        for number in range(99):
            assert await far.take(f"s{number}", ORG, AT, [Take(Slots(("x",), 99))]) is None, "no slot is lost"
        await asyncio.sleep(0.1)
        far.close()
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == {asyncio.current_task()} | {one for one in asyncio.all_tasks() if "bounded" in repr(one)}

    with caplog.at_level(logging.WARNING):
        try:
            run(work(), 30)
        finally:
            mend(server, road)
    assert balance(server) == (10, 0)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("douane")]
    assert [("fails" in one, "again" in one) for one in said] == [(True, False), (False, True)], said


def test_requests_to_a_server_that_is_down_do_not_wait(far: RedisLedger, road: Road) -> None:
    async def work() -> None:
        await far.beat()
        road.set("down")
        await until(lambda: far.failure)
        began = time.monotonic()
        for _ in range(100):
            await refused_in_time(lambda: far.reserve("a", ORG, AT, demands(1)))
        assert time.monotonic() - began < 0.2
        assert not await far.capture("a", ORG, NOTHING_SPENT)
        assert not far._desk.owed, "what never left is not owed"

    run(work())


def test_a_reset_is_ridden_out(far: RedisLedger, server: Server, road: Road) -> None:
    """A reservation and a booking may be asked for twice."""
    async def work() -> None:
        await works(far)
        road.delay = 0.03
        asked = asyncio.ensure_future(far.reserve("a", ORG, AT, demands(10)))
        await asyncio.sleep(0.02)
        road.reset_once()
        assert await asked == Held()
        booked = asyncio.ensure_future(far.capture("a", ORG, usd(10)))
        await asyncio.sleep(0.02)
        road.reset_once()
        assert await booked, "whoever booked it first was this one"

    run(work(), 20)
    assert balance(server) == (10, 0)


def test_the_first_call_of_an_org_waits_no_longer(far: RedisLedger, road: Road) -> None:
    async def work() -> None:
        await far.beat()
        road.delay = 0.15  # a round trip fits, two do not
        await asyncio.gather(refused_in_time(lambda: far.reserve("a", "new", AT, demands(1))),
                             refused_in_time(lambda: far.take("a", "newer", AT, [Take(Slots(("x",), 1))])))

    run(work())


def test_a_rate_is_not_given_back_twice(far: RedisLedger, road: Road) -> None:
    rule, slot = Rate(("x",), "tokens", 1, 86400, 10), Slots(("y",), 1)

    async def work() -> None:
        assert await far.take("a", ORG, AT, [Take(rule, 10), Take(slot)]) is None
        road.delay = 0.03
        given = asyncio.ensure_future(far.give_back("a", ORG, AT, [Take(rule, 2), Take(slot)]))
        await asyncio.sleep(0.02)
        road.reset_once()
        await given
        road.delay = 0.0
        assert await far.take("b", ORG, AT, [Take(rule, 3)]) is not None
        assert await far.take("b", ORG, AT, [Take(rule, 2), Take(slot)]) is None

    run(work())


def test_a_frozen_server_runs_late_what_was_given_up(server: Server) -> None:
    """In whatever order: first what the second connection brought."""
    one, two = (RedisLedger(Secret(server.url), name) for name in ("one", "two"))
    slot = [Take(Slots(("x",), 1))]

    async def work() -> None:
        assert not await two.capture("a", ORG, NOTHING_SPENT)
        assert await one.reserve("a", ORG, AT, demands(60)) == Held()
        assert not await one.capture("a", ORG, usd(60))
        await asyncio.gather(one.beat(), two.beat())
        server.freeze()
        await refused_in_time(lambda: one.take("b", ORG, AT, slot))
        server.thaw()
        await until(lambda: not one._desk.owed)
        assert await two.take("c", ORG, AT, slot) is None

    try:
        run(work())
    finally:
        server.thaw()
        one.close()
        two.close()
    assert balance(server) == (0, 0)


def test_a_take_that_was_given_up_takes_nothing_late(ledger: RedisLedger) -> None:
    rule, slot = Rate(("x",), "tokens", 1, 86400, 10), Slots(("y",), 1)

    async def work() -> None:
        await ledger._return(give_back("a", ORG, AT, [Take(slot)], given_up=True), None)
        assert await ledger.take("a", ORG, AT, [Take(rule, 10), Take(slot)]) is None
        assert await ledger.take("b", ORG, AT, [Take(rule, 10), Take(slot)]) is None

    run(work())


@pytest.mark.parametrize(("fail", "mend", "code"), [
    ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY"),
    ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
    ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"),
])
def test_a_server_that_says_no(ledger: RedisLedger, server: Server, fail: str, mend: str, code: str) -> None:
    async def work() -> None:
        await ledger.reserve("a", ORG, AT, demands(60))
        with server.client() as client:
            client.execute_command(*fail.split())
            try:
                assert code in await refused_in_time(lambda: ledger.reserve("b", ORG, AT, demands(1)))
                await refused_in_time(lambda: ledger.capture("a", ORG, usd(10)))
                assert ledger.failure
                ledger.look_again()
                await asyncio.sleep(0.1)
                assert ledger.failure
                if code == "READONLY":  # another may be the one to ask: it is looked for
                    assert "cannot be reached" in await refused_in_time(lambda: ledger.reserve("c", ORG, AT, demands(1)))
            finally:
                client.execute_command(*mend.split())
        await until(lambda: not ledger._desk.owed)
        await until(lambda: not ledger.failure)

    run(work(), 10)
    assert balance(server) == (10, 0)


def test_a_busy_server(ledger: RedisLedger, server: Server) -> None:
    """Somebody's endless script."""
    async def work() -> None:
        await ledger.beat()
        endless: Any = redis.Redis(port=server.port).connection_pool.get_connection()
        endless.send_command("EVAL", "while true do end", 0)
        await asyncio.sleep(0.1)
        await refused_in_time(lambda: ledger.reserve("b", ORG, AT, demands(1)))
        with server.client() as client:
            client.script_kill()
        endless.disconnect()
        await works(ledger)

    run(work(), 10)


def test_a_password_that_is_changed(server: Server) -> None:
    with server.client() as client, client.client() as admin:
        admin.config_set("requirepass", "first")
        ledger = RedisLedger(Secret(f"redis://:first@127.0.0.1:{server.port}"), "one")

        async def work() -> None:
            await ledger.beat()
            admin.config_set("requirepass", "second")
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await until(lambda: "WRONGPASS" in ledger.failure)
            await refused_in_time(lambda: ledger.reserve("b", ORG, AT, demands(1)))
            assert "first" not in ledger.failure
            admin.config_set("requirepass", "first")
            await works(ledger)

        try:
            run(work(), 10)
            ledger.close()
        finally:
            admin.config_set("requirepass", "")


def test_scripts_that_were_flushed(ledger: RedisLedger, server: Server) -> None:
    async def work() -> None:
        await ledger.beat()
        with server.client() as client:
            client.script_flush()
            held = await asyncio.gather(*(ledger.reserve(str(n), ORG, AT, demands(10)) for n in range(20)))
            assert sum(isinstance(one, Held) for one in held) == 10
            assert client.script_exists(RESERVE.sha) == [True]

    run(work())
    assert balance(server) == (0, 100)


def test_a_server_that_was_emptied(ledger: RedisLedger, server: Server) -> None:
    async def work() -> None:
        await ledger.reserve("a", ORG, AT, demands(60))
        with server.client() as client:
            client.flushall()
        await ledger.beat()
        assert not await ledger.capture("a", ORG, usd(60))
        assert await ledger.reserve("b", ORG, AT, demands(60)) == Held()

    run(work())
    assert ledger.owners() == ["one"]


def test_what_is_no_redis(server: Server) -> None:
    """The line ends with the first byte that does not fit, and with an answer that nobody asked for."""
    async def work() -> None:
        for said in (b"HTTP/1.1 400 Bad Request\r\n", b"+OK\r\n"):
            line = Line(asyncio.get_running_loop())
            await asyncio.get_running_loop().create_connection(lambda line=line: line, "127.0.0.1", server.port)  # type: ignore[misc]
            line.data_received(said)
            await line.lost
            with pytest.raises(ConnectionResetError):
                line.send([])

    run(work())


@pytest.mark.parametrize("seed", range(20 if FULL else 1))
def test_whatever_happens_on_the_road_the_sums_are_right(far: RedisLedger, server: Server, road: Road, seed: int) -> None:
    """Resets, silence, delays, a server that freezes or forgets its scripts, callers that leave: in the end each call that was
    let through is booked once, each slot is free, and nothing else is held."""
    dice, limit, slot = random.Random(seed), 10**6, [Take(Slots(("x",), 10**6))]
    booked = admitted = 0

    async def one(call: str) -> None:
        nonlocal booked, admitted
        asked = asyncio.ensure_future(far.reserve(call, ORG, AT, demands(10, limit)))
        try:
            await far.take(call, ORG, AT, slot)
            if dice.random() < 0.1:
                asked.cancel()
            held = await asked
        except (LedgerUnavailableError, asyncio.CancelledError):
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            far.capture(call, ORG, NOTHING_SPENT)
            far.give_back(call, ORG, AT, slot)
            return
        assert held == Held()
        await asyncio.sleep(dice.random() / 10)
        spent = dice.randint(0, 20)
        booked, admitted = booked + spent, admitted + 1
        far.capture(call, ORG, usd(spent))
        far.give_back(call, ORG, AT, slot)

    async def break_it() -> None:
        with server.client() as client:
            for _ in range(10 if FULL else 5):
                await asyncio.sleep(dice.random() / 3)
                what = dice.choice(["reset", "hole", "delay", "freeze", "flush", "down", "once"])
                if what == "freeze":
                    server.freeze()
                elif what == "flush":
                    client.script_flush()
                elif what == "once":
                    road.reset_once()
                else:
                    road.set("open" if what == "delay" else what, 0.3 * dice.random())
                await asyncio.sleep(dice.choice([0.02, 0.3, 1.2 if FULL else 0.4]))
                server.thaw()
                road.set("open")

    async def work() -> None:
        breaking = asyncio.ensure_future(break_it())
        calls: list[asyncio.Task[None]] = []
        while not breaking.done():
            calls += [asyncio.ensure_future(one(f"c{len(calls) + n}")) for n in range(20)]
            await asyncio.sleep(0.02)
        await breaking
        await asyncio.gather(*calls)
        await works(far)
        await until(lambda: not far._desk.owed, 10)

    try:
        run(work(), 60)
    finally:
        server.thaw()
    assert admitted > 100
    assert balance(server) == (booked, 0)
    with server.client() as client:
        assert client.keys("douane:*:slots:*") == []
        assert client.hlen("douane:{org:acme}:open") == 1  # that of works


# -- owed, and the end ---------------------------------------------------------------------------------------------------


def test_what_is_owed_is_bounded(far: RedisLedger, server: Server, road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_desk, "OWED", 3)

    async def work() -> None:
        for number in range(5):
            await far.reserve(str(number), ORG, AT, demands(10))
        road.set("down")
        await until(lambda: far.failure)
        asked = [far.capture(str(number), ORG, usd(1)) for number in range(5)]
        assert len(far._desk.owed) == 3
        for one in asked:
            await refused_in_time(lambda one=one: one)  # type: ignore[misc]
        road.set("open")
        await until(lambda: not far._desk.owed)

    run(work())
    assert balance(server) == (3, 20)


def test_the_end_pays_what_is_owed(far: RedisLedger, server: Server, road: Road) -> None:
    async def work() -> None:
        await far.reserve("a", ORG, AT, demands(60))
        road.set("down")
        await until(lambda: far.failure)
        far.capture("a", ORG, usd(10))
        road.set("open")
        began = time.monotonic()
        far.close()
        assert time.monotonic() - began < 1

    run(work())
    assert balance(server) == (10, 0)


def test_the_end_of_a_ledger_whose_server_is_frozen(ledger: RedisLedger, server: Server) -> None:
    async def work() -> None:
        await ledger.reserve("a", ORG, AT, demands(60))
        server.freeze()
        try:
            owed, asked = ledger.capture("a", ORG, usd(10)), asyncio.ensure_future(ledger.reserve("b", ORG, AT, demands(1)))
            await asyncio.sleep(0.01)
            began = time.monotonic()
            ledger.close()
            assert time.monotonic() - began < 2
            for one in (owed, asked):
                with pytest.raises(LedgerUnavailableError):
                    await one
        finally:
            server.thaw()

    run(work())


def test_nothing_stays_open(server: Server) -> None:
    def ours() -> int:
        with server.client() as client:
            return len(client.client_list()) - 1

    before = ours()
    ledger = RedisLedger(Secret(server.url), "one")
    for number in range(3):  # loops
        assert run(ledger.reserve(str(number), ORG, AT, demands(1))) == Held()
        time.sleep(0.01)
        assert ours() == before

    async def work() -> None:
        await ledger.beat()
        ledger.balances(AT)
        assert ours() == before + 1, "one connection for all"

    run(work())
    ledger.close()


# -- what expires --------------------------------------------------------------------------------------------------------


def test_keys_are_gone_when_they_mean_nothing(ledger: RedisLedger, server: Server) -> None:
    async def work() -> None:
        await ledger.reserve("a", ORG, AT, demands(1, 100, 100))
        await ledger.reserve("b", ORG, AT, demands(1, 100, 100))
        await ledger.capture("a", ORG, usd(1))
        await ledger.take("a", ORG, AT, [Take(Rate(("x",), "tokens", 1, 60, 5), 5), Take(Slots(("y",), 5))])

    run(work())
    with server.client() as client:
        ours = [key.split(":") for key in client.keys("douane:{org:acme}:*")]
        found = {key[3]: client.ttl(":".join(key)) for key in ours if key[3] != "account" and key[-1] != "b"}
        accounts = {key[5]: client.ttl(":".join(key)) for key in ours if key[3] == "account"}
    day = (DAY.end or 0) - AT + 35 * 86400
    assert abs(accounts["day"] - day) < 5
    assert accounts["total"] == -1
    assert 3590 < found.pop("hold") <= 3600
    assert 300 < found.pop("rate") <= 361
    assert 3590 < found.pop("slots") <= 3600
    assert 3590 < found.pop("lives") <= 3600
    assert found == {"open": -1, "accounts": -1}
