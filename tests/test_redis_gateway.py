"""Two gateways, two data folders, one Redis: one budget, one rate limit, one emergency stop; and what happens without it."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from douane.demo.provider import LocalProvider, running_provider
from tests.gateway import Gateway, Wire, chat, command, environ, policy, ran, request, running_gateway, untouched, wait_for
from tests.redis_server import Server, running

PRICED = "prices: {gpt-4o-mini: {input: 0.0, output: 1000.0}}"
"""A token of output costs a tenth of a cent."""


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as one:
        yield one


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("redis")) as one:
        yield one


def two(folder: Path, provider: LocalProvider, server: Server, stack: ExitStack, *entries: str) -> list[Gateway]:
    server.client().flushall()
    chain = "\n".join(f"  - {one}" for one in ("authenticate: {unknown: deny}", *entries, "swap_key: {missing: keep}"))
    text = policy(provider, chain=chain, more="ledger: {redis: env:REDIS_URL}\n" + PRICED)
    return [stack.enter_context(running_gateway(folder / name, text, env={"REDIS_URL": server.url})) for name in "ab"]


def status(gateway: Gateway) -> tuple[int, str]:
    with Wire.tls(gateway) as wire:
        wire.send(request(chat()))
        got = wire.answer()
        return got.status, got.code


def said(gateway: Gateway, url: str, *words: str) -> str:
    done = ran(command(gateway.base, *words), {**gateway.environ, "REDIS_URL": url})
    return done.stdout + done.stderr


def test_one_budget_for_all(tmp_path: Path, provider: LocalProvider, server: Server) -> None:
    """A hundred calls at once on two machines, and money for ten."""
    with ExitStack() as stack:
        gateways = two(tmp_path, provider, server, stack, "budget: {per: team, limit: 1 USD/day, unbounded: insert 100}")

        async def call(client: openai.AsyncOpenAI) -> bool:
            try:
                await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
            except openai.RateLimitError as error:
                return {"insufficient_quota": False}[str(error.code)]
            return True

        async def work() -> list[bool]:
            clients = [openai.AsyncOpenAI(api_key="k", max_retries=0, base_url="http://{}:{}/openai/v1".format(*one.http))
                       for one in gateways]
            try:
                return await asyncio.gather(*(call(clients[number % 2]) for number in range(100)))
            finally:
                for client in clients:
                    await client.close()

        let = sum(asyncio.run(work()))
        outcomes = [one for gateway in gateways for one in gateway.records() if one["kind"] == "outcome"]
        spent = sum(one["cost_usd"] for one in outcomes)
        assert let == len([one for one in outcomes if one["verdict"]["action"] == "allow"])
        assert let >= 10
        assert spent <= 1.0
        told = said(gateways[0], server.url, "budget")
        assert wait_for(lambda: f"{spent:.6f}" in said(gateways[1], server.url, "budget")), told


def test_one_stop_for_all(tmp_path: Path, provider: LocalProvider, server: Server) -> None:
    with ExitStack() as stack:
        gateways = two(tmp_path, provider, server, stack)
        assert [status(one)[0] for one in gateways] == [200, 200]
        assert "stopped: team dev" in said(gateways[0], server.url, "stop", "--team=dev")
        assert status(gateways[0]) == (403, "stopped")
        assert wait_for(lambda: status(gateways[1]) == (403, "stopped"), 1)
        assert "resumed" in said(gateways[1], server.url, "resume", "--team=dev")
        assert wait_for(lambda: status(gateways[0])[0] == 200, 1)


def test_one_rate_limit_for_all(tmp_path: Path, provider: LocalProvider, server: Server) -> None:
    with ExitStack() as stack:
        gateways = two(tmp_path, provider, server, stack, "rate_limit: {per: team, requests: 5/hour}")
        got = [status(gateways[number % 2]) for number in range(7)]
        assert got == [(200, "")] * 5 + [(429, "rate_limited")] * 2


def test_without_it_nothing_passes_and_nothing_hangs(tmp_path: Path, provider: LocalProvider, server: Server) -> None:
    with ExitStack() as stack:
        one, _ = two(tmp_path, provider, server, stack, "budget: {per: team, limit: 9 USD/day, unbounded: insert 100}")
        assert status(one)[0] == 200

        def ready() -> int:
            with Wire.to(one.admin) as wire:
                wire.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return wire.answer().status

        server.freeze()
        try:
            with untouched(provider):
                began = time.monotonic()
                assert status(one) == (503, "ledger_unavailable")
                assert time.monotonic() - began < 0.7
            assert wait_for(lambda: ready() == 503)
        finally:
            server.thaw()
        assert wait_for(lambda: status(one)[0] == 200)
        assert wait_for(lambda: ready() == 200)
        assert server.url not in one.log_file.read_text()


def test_what_the_policy_says_of_it_is_looked_at_before_anything_listens(
        tmp_path: Path, provider: LocalProvider, server: Server) -> None:
    text = policy(provider, more="ledger: {redis: env:REDIS_URL}")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(text)
    given: dict[str, Any] = {**environ(), "REDIS_URL": "redis://u:" + "hidden-word" + "@127.0.0.1:1"}
    words = [*command(tmp_path, "serve"), "--proxy=127.0.0.1:0", "--http=127.0.0.1:0", "--admin=127.0.0.1:0"]
    done = ran(words, given)
    assert done.returncode == 3
    assert "edis" in done.stderr
    assert "hidden-word" not in done.stderr


