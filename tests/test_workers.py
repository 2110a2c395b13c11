"""``serve --workers N``: real processes on one port. What is spread, what all have in common, and what a death costs."""

import base64
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from douane.audit import record
from douane.audit.log import AuditLog
from douane.audit.read import records
from douane.control import Client
from douane.demo.answers import default_script
from douane.demo.provider import LocalProvider, running_provider
from douane.errors import DouaneError, EnvironmentFailedError
from douane.hosts.house import close_abandoned
from douane.hosts.slots import open_slots
from douane.ledger.sqlite import read_balances
from douane.places import Listen, chain_names
from tests.gateway import (
    Gateway,
    Got,
    Wire,
    chat,
    command,
    environ,
    lend_prices,
    policy,
    ran,
    request,
    running_gateway,
    wait_for,
)

CHAIN = ("  - authenticate: {unknown: deny}\n"
         "  - allow_models: {models: [gpt-4*, claude-*]}\n"
         "  - budget: {per: team, limit: 1000 USD/day, unbounded: insert 100}\n"
         "  - swap_key: {missing: keep}")
PRICED = "prices: {gpt-4o-mini: {input: 0.0, output: 1000.0}}"
LONG = "one two three four five six seven eight nine ten " * 3
"""A stream of it takes about a second and a half, of its first 60 characters half a second."""


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider"), script=default_script(pause=0.04)) as one:
        yield one


@pytest.fixture(scope="module")
def policy_text(provider: LocalProvider) -> str:
    return policy(provider, chain=CHAIN, more=PRICED)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, policy_text: str) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), policy_text, workers=2) as one:
        yield one


def call(gateway: Gateway, text: str = "hello", *, head: bytes = b"", name: str = "", stream: bool = False) -> Got:
    """One call on a connection of its own."""
    with Wire.tls(gateway, head=head) as wire:
        wire.send(request(chat(text, stream=stream), headers=[("x-client-request-id", name)] if name else ()))
        return wire.answer()


def status(gateway: Gateway) -> dict[str, Any]:
    with Client(gateway.data / "control.sock") as client:
        return client.ask("status")


def pids(gateway: Gateway) -> dict[int, int]:
    return {int(number): pid for number, pid in status(gateway)["workers"].items()}


def worker_of(node: str) -> int:
    return 2 if node in chain_names("test", 2) else 1


def workers_of(records: list[dict[str, Any]]) -> set[int]:
    return {worker_of(one["node"]) for one in records}


def until_both(gateway: Gateway, make: Callable[[], Got], status: int = 200) -> list[dict[str, Any]]:
    """Outcomes of calls, repeated until both workers have had some (the kernel spreads by chance)."""
    ids = set()
    for _ in range(60):
        got = make()
        assert got.status == status, got
        ids.add(got.id)
        if len(ids) >= 4:
            found = [one for one in gateway.records() if one["kind"] == "outcome" and one["id"] in ids]
            if workers_of(found) == {1, 2}:
                return found
    raise AssertionError("one worker got nothing")


def metric(gateway: Gateway) -> float:
    return gateway.metric("douane_calls_total")


# -- on one gateway, in this order --------------------------------------------------------------------------------------


def test_calls_are_spread_and_counted_together(gateway: Gateway) -> None:
    before = metric(gateway)
    found = until_both(gateway, lambda: call(gateway))
    assert len({one["node"] for one in found}) == 2, "each worker has a chain of its own"
    outcomes = [one for one in gateway.records() if one["kind"] == "outcome"]
    assert metric(gateway) - before == len(outcomes)
    assert gateway.metric("douane_exchanges_running") == 0
    assert status(gateway)["problems"] == []
    assert "  workers     2" in gateway.log()
    assert gateway.log().count("  listening ") == 1


def test_a_token_is_good_at_every_worker_and_dies_at_every_worker(gateway: Gateway) -> None:
    with Client(gateway.data / "control.sock") as client:
        issued = client.ask("issue", principal="bot", tags={"job": "j1"})
        head = b"Proxy-Authorization: Basic %b\r\n" % base64.b64encode(f"bot:{issued['token']}".encode())
        found = until_both(gateway, lambda: call(gateway, head=head))
        assert {one["principal"]["name"] for one in found} == {"bot"}
        killed = pids(gateway)[1]
        os.kill(killed, signal.SIGKILL)
        assert wait_for(lambda: pids(gateway)[1] != killed, 5)
        assert workers_of(until_both(gateway, lambda: call(gateway, head=head))) == {1, 2}, "a successor knows it too"

    def refused() -> bool:
        wires = [Wire.tunnel(gateway, "api.openai.com:443", head) for _ in range(12)]
        for wire, _ in wires:
            wire.close()
        return {got.status for _, got in wires} == {407}

    assert wait_for(refused)
    assert issued["token"] not in gateway.log()


def test_a_reload_reaches_all_or_none(gateway: Gateway, policy_text: str) -> None:
    before = status(gateway)["revision"]
    gateway.policy_file.write_text(policy_text.replace("gpt-4*", "gpt-5*"))
    with Client(gateway.data / "control.sock") as client:
        revision = client.ask("reload")["revision"]
    assert revision != before
    found = until_both(gateway, lambda: call(gateway), 403)
    assert {one["revision"] for one in found} == {revision}

    gateway.policy_file.write_text(policy_text + "  - nonsense: {}\n")
    with Client(gateway.data / "control.sock") as client, pytest.raises(DouaneError, match=r"p\.yaml:\d+: .*nonsense"):
        client.ask("reload")
    assert status(gateway)["revision"] == revision
    found = until_both(gateway, lambda: call(gateway), 403)
    assert {one["revision"] for one in found} == {revision}
    killed = pids(gateway)[2]
    os.kill(killed, signal.SIGKILL)
    assert wait_for(lambda: pids(gateway)[2] != killed, 5)
    found = until_both(gateway, lambda: call(gateway), 403)
    assert {one["revision"] for one in found} == {revision}, "a successor comes up with what is in force"

    gateway.policy_file.write_text(policy_text)
    gateway.process.send_signal(signal.SIGHUP)
    assert wait_for(lambda: status(gateway)["revision"] == before, 5)
    events = [(worker_of(one["node"]), one["event"]) for one in gateway.records() if one.get("event", "").startswith("reload")]
    assert sorted(events) == [(1, "reload"), (1, "reload"), (1, "reload_refused"),
                              (2, "reload"), (2, "reload"), (2, "reload_refused")]


def test_a_stop_holds_at_every_worker_when_it_is_answered(gateway: Gateway) -> None:
    with Client(gateway.data / "control.sock") as client:
        assert client.ask("stops") == {"stops": []}
        client.ask("stop_calls", scope="team", name="dev", running=False)
        assert {call(gateway).code for _ in range(12)} == {"stopped"}
        assert [one["name"] for one in client.ask("stops")["stops"]] == ["dev"]
        assert client.ask("resume_calls", scope="team", name="dev") == {"found": True}
        assert {call(gateway).status for _ in range(12)} == {200}
        assert "dev" in {one["account"]["name"] for one in client.ask("balances")["balances"]}


def test_a_killed_worker_loses_what_it_carried_and_nothing_else(gateway: Gateway) -> None:
    before, serving = metric(gateway), pids(gateway)
    with ThreadPoolExecutor(12) as pool:
        streams = {f"k{number}": pool.submit(call, gateway, LONG, name=f"k{number}", stream=True) for number in range(12)}

        def carried() -> dict[str, int]:
            found = {one["client_request_id"]: worker_of(one["node"]) for one in gateway.records()
                     if one["kind"] == "intent" and one["client_request_id"] in streams}
            return found if len(found) == len(streams) else {}

        by = wait_for(carried, 5)
        assert set(by.values()) == {1, 2}, by
        assert gateway.metric("douane_exchanges_running") == len(streams)
        os.kill(serving[1], signal.SIGKILL)
        meanwhile = [call(gateway) for _ in range(6)]
        got = {name: stream.result() for name, stream in streams.items()}
    assert [one.status for one in meanwhile] == [200] * 6, "the next ones wait for the successor at most"
    assert {name for name, one in got.items() if one.whole} == {name for name, worker in by.items() if worker == 2}

    ids = {one["id"]: one["client_request_id"] for one in gateway.records() if one.get("client_request_id") in streams}

    def ended() -> dict[str, str]:
        found = {ids[one["id"]]: one["ended"] for one in gateway.records() if one["kind"] == "outcome" and one["id"] in ids}
        return found if len(found) == len(streams) else {}

    assert wait_for(ended, 5) == {name: "complete" if worker == 2 else "unknown" for name, worker in by.items()}
    died = max((one for one in gateway.records() if one.get("event") == "worker_died"), key=lambda one: str(one["at"]))
    assert (worker_of(died["node"]), died["worker"], died["how"]) == (1, 1, "SIGKILL")
    assert wait_for(lambda: sum(one.reserved for one in read_balances(gateway.data, time.time())) == 0, 5)
    complete = sum(one.whole for one in got.values()) + len(meanwhile)
    assert metric(gateway) == before + complete, "what the dead one had told is kept"
    assert gateway.metric("douane_exchanges_running") == 0, "what ran there runs no longer"
    assert "a worker died and is replaced" in gateway.log()


class Load:
    """Clients that call until told to stop: short calls on connections that are kept, and streams. *failed*: what they were
    told instead of an answer."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.failed: list[str] = []
        self.done = {"short": 0, "stream": 0}
        self._over = threading.Event()

    def __enter__(self) -> "Load":
        self._threads = [threading.Thread(target=self._run, args=(kind,)) for kind in ("short", "stream") * 3]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, kind: str) -> None:
        while not self._over.is_set():
            try:
                with Wire.tls(self.gateway) as wire:
                    while not self._over.is_set():
                        wire.send(request(chat("hi" if kind == "short" else LONG[:60], stream=kind == "stream")))
                        got = wire.answer()
                        if got.status != 200 or not got.whole:
                            self.failed.append(f"{kind}: {got}")
                            break
                        self.done[kind] += 1
                        if got.header("connection") == "close":
                            break
                        time.sleep(0.01)
            except (OSError, AssertionError) as error:
                self.failed.append(f"{kind}: {error!r}")


def test_a_rolling_restart_drops_no_call(gateway: Gateway) -> None:
    before = pids(gateway)
    with Load(gateway) as load:
        time.sleep(0.2)
        gateway.process.send_signal(signal.SIGUSR2)
        assert wait_for(lambda: "workers were replaced" in gateway.log(), 15)
    assert load.failed == []
    assert min(load.done.values()) > 4
    after = pids(gateway)
    assert not set(before.values()) & set(after.values())
    assert status(gateway)["problems"] == []
    for number in before:  # the last start in one log of each, the last stop in the other
        began, left = (max(str(one["at"]) for one in gateway.records()
                           if one.get("event") == event and worker_of(one["node"]) == number) for event in ("start", "stop"))
        assert began < left, "the successor serves before its predecessor leaves"


def test_at_the_end_all_finish_what_runs(gateway: Gateway) -> None:
    def named(start: str) -> list[dict[str, Any]]:
        return [one for one in gateway.records() if (one.get("client_request_id") or "").startswith(start)]

    with ThreadPoolExecutor(6) as pool:
        streams = [pool.submit(call, gateway, LONG[:70], name=f"last{number}", stream=True) for number in range(6)]
        assert wait_for(lambda: len(named("last")) == 6, 5)
        serving = set(pids(gateway).values())
        assert gateway.stop() == 0
        assert all(stream.result().whole for stream in streams)
    assert [one["ended"] for one in named("last") if one["kind"] == "outcome"] == ["complete"] * 6
    assert not any(map(alive, serving))
    assert not (gateway.data / "control.sock").exists()
    verify = ran(command(gateway.base, "audit", "verify"), gateway.environ)
    assert verify.returncode == 0, verify.stdout
    assert "0 calls without an outcome" in verify.stdout


# -- each with a gateway of its own --------------------------------------------------------------------------------------


def key_of(issued: Path) -> bytes:
    certificate = x509.load_pem_x509_certificate(issued.read_bytes()[issued.read_bytes().index(b"-----BEGIN CERT"):])
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def signers(gateway: Gateway, times: int) -> set[bytes | None]:
    """The keys that have signed the leaves we are shown."""
    found = set()
    for _ in range(times):
        with Wire.tls(gateway) as wire:
            shown = wire.sock.getpeercert(True)  # type: ignore[attr-defined]
        leaf = x509.load_der_x509_certificate(shown)
        found.add(leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier)
    return found


def alive(pid: int) -> bool:
    """One that has ended and that nobody has waited for yet is not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


def test_the_ca_is_the_parents_and_no_worker_outlives_its_parent(tmp_path: Path, provider: LocalProvider) -> None:
    gateway = Gateway(tmp_path, policy(provider), workers=2, patch="import douane.hosts.parent as m\nm._CA_SECONDS = 0.2")
    serving = pids(gateway).values()
    issued = tmp_path / "certs" / "intermediate.key"
    before = issued.read_bytes()
    issued.unlink()
    assert wait_for(lambda: issued.exists() and issued.read_bytes() != before)
    assert wait_for(lambda: signers(gateway, 12) == {key_of(issued)}), "both serve what the parent has made"
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(call, gateway, LONG[:60], stream=True)
        assert wait_for(lambda: any(one["kind"] == "intent" for one in gateway.records()))
        gateway.stop(signal.SIGKILL)
        assert stream.result().whole, "what runs is finished all the same"
    try:
        assert wait_for(lambda: not any(map(alive, serving)), 8)
    finally:
        for pid in filter(alive, serving):
            os.kill(pid, signal.SIGKILL)
    assert {one["ended"] for one in gateway.records() if one["kind"] == "outcome"} == {"complete"}


def test_a_worker_that_cannot_start_ends_the_start_with_its_reason(tmp_path: Path, provider: LocalProvider) -> None:
    (tmp_path / "data" / "audit").mkdir(parents=True)
    (tmp_path / "data" / "audit" / "test.worker-2").write_text("no folder")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(policy(provider))
    lend_prices(tmp_path / "data")
    words = [*command(tmp_path, "serve"), "--workers=2", "--proxy=127.0.0.1:0", "--http=127.0.0.1:0", "--admin=127.0.0.1:0"]
    done = subprocess.run(words, env=environ(), capture_output=True, text=True, timeout=20)
    assert done.returncode == 3, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("douane: audit log: ")
    assert "test.worker-2" in last
    # and nobody is left who holds our end of its output: else this would have waited


def test_a_policy_file_that_is_wrong_ends_the_start_as_with_one_process(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text("version: 1\nchain: 7\n")
    words = [*command(tmp_path, "serve"), "--workers=2", "--proxy=127.0.0.1:0", "--http=127.0.0.1:0", "--admin=127.0.0.1:0"]
    done = subprocess.run(words, env=environ(), capture_output=True, text=True, timeout=20)
    assert done.returncode == 2, done.stderr
    assert "p.yaml:2: chain: a number is not allowed here" in done.stderr
    assert done.stderr.count("p.yaml:2") == 1


@pytest.mark.parametrize("given", ["0", "65", "-1", "two", "²"])
def test_a_number_of_workers_that_is_none(tmp_path: Path, given: str) -> None:
    done = subprocess.run([*command(tmp_path, "serve"), f"--workers={given}"], env=environ(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "--workers: " in done.stderr


def test_what_a_gateway_with_more_workers_left_open_is_closed(tmp_path: Path) -> None:
    for name, ends in (("n.worker-2b", ()), ("n.worker-3", ("stop",)), ("n", ()), ("m.worker-2", ())):
        log = AuditLog.open(tmp_path / "audit", name)
        log.append_blocking({"kind": "intent", "id": name.ljust(32, "0"), "at": record.timestamp(time.time())})
        for event in ends:
            log.append_blocking(record.event(event, time.time()))
        if name != "n":
            log.close()
        else:
            held = log
    assert close_abandoned(tmp_path, "n", None) == 1, "neither what somebody holds, nor another node's, nor what ended well"
    assert close_abandoned(tmp_path, "n", None) == 0
    last = [one for one in records(tmp_path / "audit") if one["node"] == "n.worker-2b"][-2:]
    assert [(one["kind"], one.get("ended"), one.get("event")) for one in last] == [
        ("outcome", "unknown", None), ("event", None, "stop")]
    held.close()
    assert close_abandoned(tmp_path, "n", None) == 1


# -- without a gateway ---------------------------------------------------------------------------------------------------


def test_places_share_one_port_that_nobody_else_has() -> None:
    slots = open_slots(Listen("127.0.0.1", 0), Listen("localhost", 0), 3)
    ports = [{one.getsockname()[1] for slot in slots for one in getattr(slot, name)} for name in ("proxy", "http")]
    assert [len(found) for found in ports] == [1, 1]
    assert len({one.fileno() for slot in slots for one in slot.sockets}) == sum(len(slot.sockets) for slot in slots)
    (port,) = ports[0]
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0, "nothing is accepted before a worker listens"
    for slot in slots:
        slot.proxy[0].listen()
    with pytest.raises(EnvironmentFailedError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use; .*--proxy"):
        open_slots(Listen("127.0.0.1", port), Listen("127.0.0.1", 0), 2)
    for slot in slots:
        for one in slot.sockets:
            one.close()


def test_an_accept_queue_outlives_who_listens() -> None:
    (slot,) = open_slots(Listen("127.0.0.1", 0), Listen("127.0.0.1", 0), 1)
    first = slot.proxy[0].dup()
    first.listen()
    with closing(socket.create_connection(slot.proxy[0].getsockname(), 2)) as client:
        first.close()
        slot.proxy[0].setblocking(True)
        accepted, _ = slot.proxy[0].accept()
        accepted.sendall(b"x")
        assert client.recv(1) == b"x"
        accepted.close()
    for one in slot.sockets:
        one.close()
