"""The Redis ledger where Redis is down, slow, frozen, full, a replica, elsewhere: refused in time, nothing lost, no restart."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from douane.errors import ConfigError, EnvironmentFailedError
from douane.ledger import redis as module
from douane.ledger.base import NOTHING_SPENT, Demand, Held, LedgerUnavailableError, Rate, Slots, Take
from douane.ledger.redis import RedisLedger, read_balances
from douane.ledger.redis_keys import RESERVE, give_back
from douane.ledger.redis_where import read_url
from douane.secrets import Secret
from tests.house import run
from tests.ledgers import AT, DAY, ORG, TOTAL, demands, usd
from tests.redis_server import Road, Server, running

WORD = "p%40ss-w0rd"


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


def balance(server: Server) -> tuple[int, int]:
    found = {one.account: one for one in read_balances(Secret(server.url), AT)}
    return (found[DAY].captured, found[DAY].reserved) if DAY in found else (0, 0)


async def refused_in_time(ask: Callable[[], Awaitable[Any]]) -> str:
    began = time.monotonic()
    with pytest.raises(LedgerUnavailableError) as caught:
        await ask()
    assert time.monotonic() - began < 0.4  # 0.25, and what a busy machine adds
    return caught.value.reason


async def until(true: Callable[[], Any], seconds: float = 4.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it does not come back"
        await asyncio.sleep(0.02)


async def works(ledger: RedisLedger, seconds: float = 4.0) -> None:
    """Calls are let through again."""
    end = time.monotonic() + seconds
    for number in range(10_000):
        try:
            assert await ledger.reserve(f"again{number}", ORG, AT, [Demand(TOTAL, 1, 10**6)]) == Held()
        except LedgerUnavailableError:
            assert time.monotonic() < end, "it does not come back"
            await asyncio.sleep(0.02)
            continue
        return


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
        await refused_in_time(lambda: far.reserve(f"b{number}", ORG, AT, demands(1, 1000)))
        far.capture(f"b{number}", ORG, NOTHING_SPENT)
        await refused_in_time(lambda: far.take(f"b{number}", ORG, AT, [Take(Slots(("x",), 99))]))

    async def work() -> None:
        await far.reserve("ran", ORG, AT, demands(60, 1000))
        fail(server, road)
        opened = road.connections
        async with asyncio.timeout(20):
            running = far.capture("ran", ORG, usd(10))
            for turn in range(4):
                await asyncio.gather(*(ask(10 * turn + number) for number in range(10)))
                await asyncio.sleep(0.1)
            await refused_in_time(far.stops)
            await refused_in_time(lambda: running)
            assert far.failure
            assert road.connections - opened <= 10, "no storm"
            mend(server, road)
            await works(far)
            await until(lambda: not far._owed)
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
        assert not far._owed, "what never left is not owed"

    run(work())


def test_a_reset_is_ridden_out(far: RedisLedger, server: Server, road: Road) -> None:
    """A reservation and a booking may be asked for twice."""
    async def work() -> None:
        road.delay = 0.03
        for number in range(5):
            asked = asyncio.ensure_future(far.reserve(f"a{number}", ORG, AT, demands(10, 1000)))
            await asyncio.sleep(0.05 if not number else 0.02)
            road.reset_once()
            assert await asked == Held()
            booked = asyncio.ensure_future(far.capture(f"a{number}", ORG, usd(10)))
            await asyncio.sleep(0.02)
            road.reset_once()
            assert await booked, "whoever booked it first was this one"
            road.delay = 0.0
            await works(far)
            await asyncio.sleep(1.1)
            road.delay = 0.03
            if number == 1:
                break

    run(work(), 20)
    assert balance(server) == (20, 0)


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
        await until(lambda: not one._owed)
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
            finally:
                client.execute_command(*mend.split())
        await until(lambda: not ledger._owed)
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


# -- owed, and the end ---------------------------------------------------------------------------------------------------


def test_what_is_owed_is_bounded(far: RedisLedger, server: Server, road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OWED", 3)

    async def work() -> None:
        for number in range(5):
            await far.reserve(str(number), ORG, AT, demands(10))
        road.set("down")
        await until(lambda: far.failure)
        asked = [far.capture(str(number), ORG, usd(1)) for number in range(5)]
        assert len(far._owed) == 3
        for one in asked:
            await refused_in_time(lambda one=one: one)  # type: ignore[misc]
        road.set("open")
        await until(lambda: not far._owed)

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
        found = {key.split(":")[2]: client.ttl(key) for key in client.keys("douane:{org:acme}:*") if ":account:" not in key and not key.endswith(":b")}
        accounts = {key.split(":")[5]: client.ttl(key) for key in client.keys("*:account:*")}
    day = (DAY.end or 0) - AT + 35 * 86400
    assert abs(accounts["day"] - day) < 5
    assert accounts["total"] == -1
    assert 3590 < found.pop("hold") <= 3600
    assert 300 < found.pop("rate") <= 361
    assert 3590 < found.pop("slots") <= 3600
    assert 3590 < found.pop("lives") <= 3600
    assert found == {"open": -1, "accounts": -1}


# -- the start -----------------------------------------------------------------------------------------------------------


def refused_at_the_start(url: str) -> str:
    with pytest.raises(EnvironmentFailedError) as caught:
        RedisLedger(Secret(url), "one")
    said = str(caught.value)
    assert "\n" not in said
    assert "w0rd" not in said
    return said


def test_a_server_that_budgets_cannot_rest_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be reached" in refused_at_the_start(f"redis://u:{WORD}@127.0.0.1:1")
    assert "cannot be reached" in refused_at_the_start(f"redis://u:{WORD}@127.0.0.1:{server.port}")
    assert "cannot be reached" in refused_at_the_start(f"unix://u:{WORD}@/nowhere")
    with server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert "maxmemory-policy allkeys-lru" in refused_at_the_start(server.url)
        client.config_set("maxmemory-policy", "noeviction")
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert "is a replica" in refused_at_the_start(server.url)
        client.execute_command("REPLICAOF", "NO", "ONE")
    monkeypatch.setattr("redis.Redis.info", lambda self: {"redis_version": "6.2.14", "maxmemory_policy": "noeviction"})
    assert "is Redis 6.2.14" in refused_at_the_start(server.url)


@pytest.mark.parametrize("url", [
    "", "redis://", "http://u:w0rd@h", "redis://u:w0rd@h/x", "redis://u:w0rd@h:99999", "redis://u:w0rd@h/1/2",
    "redis://u:w0rd@h?nonsense=1", "redis://u:w0rd@h?ca=/x", "rediss://u:w0rd@h?ssl_cert_reqs=none", "unix://u:w0rd@",
    "redis+sentinel://u:w0rd@h:1", "redis+sentinel:///m", "redis+other://u:w0rd@h/m"])
def test_a_wrong_url_is_told_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="redis") as caught:
        RedisLedger(Secret(url), "one")
    assert "w0rd" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_what_a_url_says() -> None:
    place = read_url(Secret(f"rediss+sentinel://me:{WORD}@a:1,[::1]:2,c/prime/3?sentinel_password=x&ca=/ca.pem"))
    assert (place.nodes, place.master, place.db, place.tls) == ((("a", 1), ("::1", 2), ("c", 26379)), "prime", 3, True)
    assert place.login == {"username": "me", "password": "p@ss-w0rd"}
    assert str(place) == "prime of a:1,[::1]:2,c:26379"
    assert "w0rd" not in repr(place)
    assert read_url(Secret("redis://h")).nodes == (("h", 6379),)


def test_no_password_is_shown(server: Server) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "me", "on", ">p@ss-w0rd", "~douane:*", "+@all", "-@admin",
                               "-script", "-config")
    ledger = RedisLedger(Secret(f"redis://me:{WORD}@127.0.0.1:{server.port}"), "one")
    assert "w0rd" not in repr(ledger)
    assert isinstance(run(ledger.reserve("a", ORG, AT, demands(1))), Held), "who may not load scripts may run them"
    ledger.close()
    with server.client() as client:
        client.execute_command("ACL", "DELUSER", "me")


def test_a_unix_socket_and_a_database(server: Server) -> None:
    with contextlib.closing(RedisLedger(Secret(f"unix://{server.socket}?db=3"), "one")) as ledger:
        assert run(ledger.reserve("a", ORG, AT, demands(1))) == Held()
        assert len(ledger.balances(AT)) == 1
    with server.client(db="3") as client:
        assert client.exists("douane:orgs")
    assert balance(server) == (0, 0)


def test_tls(tmp_path: Path) -> None:
    from douane.demo.certificate import Authority
    from tests.redis_server import free_port
    authority, port = Authority(tmp_path / "ca"), free_port()
    pem = authority.issue(["localhost"])
    with running(tmp_path / "redis", "--tls-port", str(port), "--tls-cert-file", str(pem), "--tls-key-file", str(pem),
                 "--tls-ca-cert-file", str(authority.certificate), "--tls-auth-clients", "no"):
        with contextlib.closing(RedisLedger(Secret(f"rediss://localhost:{port}?ca={authority.certificate}"), "one")) as ledger:
            assert run(ledger.reserve("a", ORG, AT, demands(1))) == Held()
        assert "certificate verify failed" in refused_at_the_start(f"rediss://localhost:{port}")
        assert "IP address mismatch" in refused_at_the_start(f"rediss://127.0.0.1:{port}?ca={authority.certificate}")


# -- elsewhere -----------------------------------------------------------------------------------------------------------


def test_a_failover_is_followed(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(running(tmp_path / "first"))
        second = stack.enter_context(running(tmp_path / "second", "--replicaof", "127.0.0.1", str(first.port)))
        with second.client() as client:
            end = time.monotonic() + 10
            while client.info("replication")["master_link_status"] != "up":
                assert time.monotonic() < end
                time.sleep(0.05)
        guide = stack.enter_context(running(tmp_path / "sentinel", sentinel=(
            f"sentinel monitor prime 127.0.0.1 {first.port} 1\nsentinel down-after-milliseconds prime 300\n"
            "sentinel failover-timeout prime 2000\n")))
        with guide.client() as client:
            end = time.monotonic() + 15
            while not client.sentinel_slaves("prime"):
                assert time.monotonic() < end
                time.sleep(0.1)
        ledger = RedisLedger(Secret(f"redis+sentinel://127.0.0.1:{guide.port}/prime"), "one")
        stack.callback(ledger.close)

        async def work() -> None:
            assert await ledger.reserve("a", ORG, AT, demands(60)) == Held()
            await asyncio.sleep(0.2)
            first.kill()
            running = ledger.capture("a", ORG, usd(10))
            await works(ledger, 15)
            await until(lambda: not ledger._owed)
            with contextlib.suppress(LedgerUnavailableError):
                await running

        run(work(), 30)
        assert balance(second) == (10, 0)
        assert [one.captured for one in ledger.balances(AT) if one.account == DAY] == [10]


def test_a_cluster(tmp_path: Path) -> None:
    """Two nodes, of which one has every slot at first."""
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(running(tmp_path / name, "--cluster-enabled", "yes")) for name in "ab"]
        clients = [stack.enter_context(one.client()) for one in nodes]
        run_on = [one.execute_command for one in clients]
        run_on[0]("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        end = time.monotonic() + 10
        while "cluster_state:ok" not in str(clients[0].execute_command("CLUSTER INFO")) and time.monotonic() < end:
            time.sleep(0.05)
        ledger = RedisLedger(Secret(nodes[0].url), "one")
        stack.callback(ledger.close)
        orgs = ["", "acme", "rival", "}{"]

        def wanted(org: str, amount: int) -> list[Demand]:
            from tests.ledgers import account
            return [Demand(account(org=org), amount, 100, alerts=(500,)), Demand(account(org=org, period="total"), amount, 100)]

        async def use(name: str) -> None:
            for org in orgs:
                assert await ledger.reserve(f"{name}{org}", org, AT, wanted(org, 10)) == Held()
                assert await ledger.reserve(f"open{name}{org}", org, AT, wanted(org, 5)) == Held()
                assert await ledger.capture(f"{name}{org}", org, usd(9))
                assert await ledger.take(name, org, AT, [Take(Slots(("x",), 9)), Take(Rate(("y",), "tokens", 1, 1, 9))]) is None
            await ledger.beat()
            assert await ledger.due(AT, 1) == []
            assert await ledger.stops() == frozenset()

        async def work() -> None:
            await use("a")
            ids = [run("CLUSTER", "MYID") for run in run_on]
            run_on[0]("CLUSTER", "MEET", "127.0.0.1", nodes[1].port)
            await until(lambda: str(run_on[1]("CLUSTER", "NODES")).count("connected") >= 2, 10)
            slot = run_on[0]("CLUSTER", "KEYSLOT", "douane:{org:acme}:x")
            run_on[1]("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            run_on[0]("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            keys = run_on[0]("CLUSTER", "GETKEYSINSLOT", slot, 1000)
            run_on[0]("MIGRATE", "127.0.0.1", nodes[1].port, "", 0, 5000, "KEYS", *keys)
            for one in reversed(run_on):
                one("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
            await works(ledger)
            await use("b")
            assert clients[1].exists("douane:{org:acme}:open")

        run(work(), 20)
        assert len(ledger.held("one")) == 9  # the other is that of works
        assert {(one.captured, one.reserved) for one in ledger.balances(AT) if one.account.period == "day"} == {(18, 10)}
        assert ledger.recover("one", dict.fromkeys(ledger.held("one"), NOTHING_SPENT)) == 9
        assert ledger.owners() == []
