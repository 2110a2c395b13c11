"""The Redis ledger where the server is not fit for it, or is elsewhere: TLS, Unix sockets, Sentinel, a cluster."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from douane.demo.certificate import Authority
from douane.errors import ConfigError, EnvironmentFailedError
from douane.ledger.base import NOTHING_SPENT, Demand, Held, LedgerUnavailableError, Rate, Slots, Take
from douane.ledger.redis import RedisLedger
from douane.ledger.redis_where import read_url
from douane.secrets import Secret
from tests.house import run
from tests.ledgers import AT, DAY, ORG, account, demands, usd
from tests.redis_server import Server, balance, free_port, running, until, works

WORD = "p%40ss-w0rd"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(own: Server) -> Server:
    with own.client() as client:
        client.flushall()
    return own


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
        first = stack.enter_context(running(tmp_path / "first", "--repl-diskless-sync-delay", "0"))
        second = stack.enter_context(running(tmp_path / "second", "--replicaof", "127.0.0.1", str(first.port)))
        with second.client() as client:
            end = time.monotonic() + 10
            while client.info("replication")["master_link_status"] != "up":
                assert time.monotonic() < end
                time.sleep(0.05)
        guide = stack.enter_context(running(tmp_path / "sentinel", sentinel=(
            f"sentinel monitor prime 127.0.0.1 {first.port} 1\nsentinel down-after-milliseconds prime 800\n"
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
            with first.client() as client:
                client.set("x", "")
                assert client.wait(1, 5000) == 1, "the replica has what came before"
            first.kill()
            running = ledger.capture("a", ORG, usd(10))
            await works(ledger, 15)
            await until(lambda: not ledger._desk.owed)
            with contextlib.suppress(LedgerUnavailableError):
                await running

        run(work(), 30)
        assert balance(second) == (10, 0)
        run(until(lambda: balance_by(ledger) == [10], 10), 12)


def balance_by(ledger: RedisLedger) -> list[int]:
    """On a busy machine Sentinel takes the primary for dead now and then."""
    with contextlib.suppress(EnvironmentFailedError):
        return [one.captured for one in ledger.balances(AT) if one.account == DAY]
    return []


def test_a_cluster(tmp_path: Path) -> None:
    """Two nodes, of which one has every slot at first."""
    with contextlib.ExitStack() as stack:
        buses = [free_port() for _ in "ab"]
        nodes = [stack.enter_context(running(tmp_path / name, "--cluster-enabled", "yes", "--cluster-port", str(bus),
                                             "--cluster-node-timeout", "1000"))
                 for name, bus in zip("ab", buses, strict=True)]
        clients = [stack.enter_context(one.client()) for one in nodes]
        run_on = [one.execute_command for one in clients]
        run_on[0]("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        end = time.monotonic() + 10
        while "cluster_state:ok" not in str(run_on[0]("CLUSTER", "INFO")):
            assert time.monotonic() < end
            time.sleep(0.02)
        ledger = RedisLedger(Secret(nodes[0].url), "one")
        stack.callback(ledger.close)
        orgs = ["", "acme", "rival", "}{"]

        def wanted(org: str, amount: int) -> list[Demand]:
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
            run_on[0]("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, buses[1])
            await until(lambda: all(ids[n] in str(run_on[1 - n]("CLUSTER", "NODES")) for n in (0, 1)), 10)
            await until(lambda: "cluster_state:ok" in str(run_on[1]("CLUSTER", "INFO")), 10)
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
