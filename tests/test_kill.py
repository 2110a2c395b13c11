"""kill -9 of a real gateway under load: what the log says afterwards is true.

Law 2 seen from outside: no call that the provider saw lacks its intent, no answer that a client has whole lacks its
outcome, and the restart closes what was left open as ``unknown``.
"""

import asyncio
import random
import signal
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from douane.demo.answers import default_script
from douane.demo.provider import LocalProvider, running_provider
from douane.ledger.base import nano
from douane.ledger.charge import recorded
from douane.ledger.sqlite import read_balances
from tests.gateway import CHAT, Gateway, chat, command, policy, ran

CLIENTS = 24
ROUNDS = 2


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[LocalProvider]:
    with running_provider(tmp_path / "provider", script=default_script(pause=0.005)) as one:
        yield one


async def load(gateway: Gateway, kill_after: float, tag: str) -> tuple[set[str], int]:
    """Clients that call until the gateway dies. Ids of the answers that came whole, and how many calls did not."""
    whole: set[str] = set()
    failed = 0
    trust = ssl.create_default_context(cafile=str(gateway.ca))

    async def client(number: int) -> None:
        nonlocal failed
        async with httpx.AsyncClient(proxy=gateway.url, verify=trust, trust_env=False, timeout=5) as http:
            for turn in range(10_000):
                try:
                    name = f"{tag}-{number}-{turn}"
                    answer = await http.post(f"https://api.openai.com{CHAT}", headers={"x-client-request-id": name},
                                             content=chat(f"call {name} with some words more", stream=number % 2 == 0))
                except httpx.HTTPError:
                    failed += 1
                    return
                assert answer.status_code == 200
                whole.add(answer.headers["x-douane-id"])

    clients = [asyncio.ensure_future(client(number)) for number in range(CLIENTS)]
    for _ in range(1000):  # until all are at it, however slow the machine
        if len(whole) >= CLIENTS or all(client.done() for client in clients):
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(kill_after)
    gateway.process.send_signal(signal.SIGKILL)
    await asyncio.gather(*clients)
    return whole, failed


def test_a_killed_gateway_has_told_the_truth(tmp_path: Path, provider: LocalProvider) -> None:
    chance = random.Random(1)
    chain = ("  - authenticate: {unknown: deny}\n  - budget: {per: team, limit: [9000 USD/month, 900M tokens total]}\n"
             "  - swap_key: {missing: keep}")
    gateway = Gateway(tmp_path / "gateway", policy(provider, chain=chain))
    complete: set[str] = set()
    lost = unknown = 0
    try:
        for turn in range(ROUNDS):
            whole, failed = asyncio.run(load(gateway, 0.3 + chance.random() / 3, str(turn)))
            gateway.process.wait()
            assert whole
            complete |= whole
            lost += failed
            if turn:
                _tear(gateway, turn)
            _check(gateway, provider, complete)
            assert (gateway.data / "control.sock").exists(), "a killed process leaves it; the next one takes its place"
            gateway.start()
            unknown = _check_restarted(gateway, complete, unknown)
            _check_ledger(gateway)
        verify = ran(command(gateway.base, "audit", "verify"), gateway.environ)
        assert verify.returncode == 0, verify.stdout + verify.stderr
        assert "0 calls without an outcome" in verify.stdout
    finally:
        gateway.stop()
    assert not (gateway.data / "control.sock").exists()
    assert unknown, "nothing was under way when it was killed"
    assert lost >= CLIENTS


def _tear(gateway: Gateway, turn: int) -> None:
    """As a crash may: a last line that is not whole."""
    last = max((gateway.data / "audit").glob("*/*.jsonl"))
    with last.open("ab") as file:
        file.write(b'{"kind":"outcome","id":"torn' + b"x" * turn)


def _check(gateway: Gateway, provider: LocalProvider, complete: set[str]) -> None:
    """Before the restart: the log as the dead process left it."""
    records = gateway.records()
    kinds = Counter((one["kind"], one["id"]) for one in records if "id" in one)
    assert max(kinds.values()) == 1
    asked = {one["client_request_id"] for one in records if one["kind"] == "intent"}
    seen = [seen.header("x-client-request-id") for seen in provider.seen]
    assert len(seen) == len(set(seen)), "a call was sent twice"
    assert set(seen) <= asked, "the provider saw a call that has no intent"
    outcomes = {one["id"]: one for one in records if one["kind"] == "outcome"}
    assert complete <= outcomes.keys(), "a client has a whole answer that has no outcome"
    assert {outcomes[call_id]["ended"] for call_id in complete} == {"complete"}


def _check_restarted(gateway: Gateway, complete: set[str], before: int) -> int:
    """After it: nothing is open, and what nobody knows is called so; *before* so many were. Returns how many are."""
    records = gateway.records()
    intents = {one["id"] for one in records if one["kind"] == "intent"}
    ended = {one["id"]: one["ended"] for one in records if one["kind"] == "outcome"}
    assert intents <= ended.keys()
    unknown = {call_id for call_id, how in ended.items() if how == "unknown"}
    assert not unknown & complete
    assert ("calls of a gateway that died" in gateway.log()) or len(unknown) == before
    return len(unknown)


def _check_ledger(gateway: Gateway) -> None:
    """What is booked is what the outcomes say, to the nano-dollar and to the token, and nothing is held any more."""
    told = [(recorded(one), nano(one["reserved_usd"])) for one in gateway.records()
            if one["kind"] == "outcome" and one["reserved_usd"] is not None]
    by_unit = {one.account.unit: one for one in read_balances(gateway.data, time.time())}
    assert {one.reserved for one in by_unit.values()} == {0}
    assert by_unit["usd"].captured == sum(spent.of("usd", held) for spent, held in told)
    known = sum(spent.tokens for spent, _ in told if not spent.tokens_floor)
    assert known <= by_unit["tokens"].captured
    assert len(told) > CLIENTS
