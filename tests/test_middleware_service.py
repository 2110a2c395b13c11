"""Douane in a service under a real server: the relay as its endpoint, a client that leaves, two workers, the example."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route

from douane.audit.verify import main as verify
from douane.demo.provider import LocalProvider, Reply
from douane.middleware import Douane, relay
from tests.gateway import BOT_KEY, REAL_KEY, Wire, answering, chat, environ, policy, request, wait_for
from tests.service import Book, Service, running_service

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples"
SHOP_KEY = "shop-" + "0123456789abcdef"
CHAT = "/v1/chat/completions"
gone = list[str]()


async def dripping(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b'data: {"choices": []}\n\n'
                await asyncio.sleep(0.01)
        finally:
            gone.append("stream")

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def through(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """What many services have: it makes a page of an app that does not answer."""
    return await call_next(request)


@pytest.fixture(scope="module")
def service(provider: LocalProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    base = tmp_path_factory.mktemp("service")
    (base / "policies").mkdir()
    (base / "policies" / "p.yaml").write_text(policy(provider))
    app = Starlette(routes=[Mount("/llm", app=relay), Route("/drip/v1/chat/completions", dripping, methods=["POST"]),
                            Mount("/open", app=relay)])
    app.add_middleware(BaseHTTPMiddleware, dispatch=through)
    douane = Douane(app, policies=base / "policies", data=base / "data", routes={"/llm": "openai", "/drip": "openai"})
    with running_service(douane, base / "data") as one:
        yield one


def test_the_relay_as_the_endpoint(service: Service, provider: LocalProvider) -> None:
    with openai.OpenAI(base_url=f"{service.url}/llm/v1", api_key=BOT_KEY, max_retries=0) as client:
        got = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hello"}])
        assert got.choices[0].message.content
        assert provider.seen[-1].header("authorization") == f"Bearer {REAL_KEY}"
        streamed = [*client.chat.completions.create(model="gpt-4o-mini", stream=True,
                                                    messages=[{"role": "user", "content": "hello"}])]
        assert len(streamed) > 1
        with pytest.raises(openai.PermissionDeniedError) as caught:
            client.chat.completions.create(model="o1", messages=[])
    assert caught.value.code == "model_not_allowed"


@pytest.mark.parametrize(("cut", "status"), [(12, 502), (260, 200)])
def test_a_provider_that_breaks_off(service: Service, provider: LocalProvider, cut: int, status: int) -> None:
    """What fails is told in the provider's own shape, whatever the framework between would make of it."""
    answer = Reply(headers=[("content-type", "text/event-stream")], cut_after=cut,
                   body=[b'data: {"choices": []}\n\n'] * 20)
    with answering(provider, lambda seen: answer), Wire.to(service.address) as wire:
        wire.send(request(chat(stream=True), target=f"/llm{CHAT}", host="x", headers=[("content-type", "application/json")]))
        got = wire.answer()
    assert got.status == status
    assert b'"code":"upstream_error"' in got.body
    assert service.book.of(got.id)[-1]["verdict"]["code"] == "upstream_error"


def test_the_relay_forwards_nothing_that_is_not_governed(service: Service, provider: LocalProvider) -> None:
    before = len(provider.seen)
    assert httpx.post(f"{service.url}/open{CHAT}", content=chat()).status_code == 404
    assert len(provider.seen) == before


def test_a_client_that_leaves_ends_the_stream(service: Service) -> None:
    with Wire.to(service.address) as wire:
        wire.send(request(chat(stream=True), target=f"/drip{CHAT}", host="x"))
        assert wire.more()
    assert wait_for(lambda: gone == ["stream"])
    left = wait_for(lambda: [one for one in service.book.turn() if one.get("ended") == "client_disconnected"])
    assert left


# -- the example -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def example(data: Path, *words: str) -> Iterator[tuple[str, Path]]:
    """The example's own line, on a free port. (url, its log)"""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = data.parent / "service.log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "uvicorn", "starlette_app:app", f"--port={port}", *words],
                                   cwd=EXAMPLE, stdout=out, stderr=out,
                                   env=environ(SHOP_KEY=SHOP_KEY, DOUANE_DATA=str(data)))
    try:
        wait_for(lambda: process.poll() is not None or _ready(port), 20)
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _ready(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    return False


def say(url: str, text: str, model: str = "gpt-4o-mini") -> str:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=SHOP_KEY, max_retries=0) as client:
        got = client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], max_tokens=9)
    return got.choices[0].message.content or ""


def test_the_example(tmp_path: Path) -> None:
    with example(tmp_path / "data") as (url, log):
        assert say(url, "write to ann.lee@example.com") == "You wrote: write to ann.lee@example.com"
        with pytest.raises(openai.PermissionDeniedError, match="o1"):
            say(url, "hello", "o1")
        assert httpx.post(f"{url}/reload").json() == {"ok": True, "lines": []}
    told = log.read_text()
    assert "the app was told: write to <EMAIL_ADDRESS_" in told
    assert "ann.lee" not in told
    assert told.index("the app starts") < told.index("the app was told") < told.index("the app ends")
    records = Book(tmp_path / "data").turn()
    assert [one["verdict"]["action"] for one in records if one["kind"] == "outcome"] == ["allow", "deny"]
    assert records[-1]["event"] == "stop"


def test_two_workers(tmp_path: Path) -> None:
    """Each writes a log of its own, in one data folder: both verify, and no call is missing."""
    with example(tmp_path / "data", "--workers=2") as (url, log):
        wait_for(lambda: len([*(tmp_path / "data" / "audit").iterdir()]) == 2, 15)
        for number in range(6):
            assert say(url, f"call {number}")
        told = log.read_text()
    assert told.count("the app was told: call") == 6
    folders = sorted((tmp_path / "data" / "audit").iterdir())
    assert [folder.name for folder in folders] == ["test", "test.worker-2"]
    assert len([one for one in Book(tmp_path / "data").turn() if one["kind"] == "outcome"]) == 6
    assert [verify([str(folder)]) for folder in folders] == [0, 0]


def test_a_wrong_policy_stops_the_server(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text("version: 1\nchain:\n  - authenticate: {unknown: denied}\n")
    code = ("import uvicorn\nfrom douane.middleware import Douane\nasync def app(scope, receive, send): ...\n"
            "uvicorn.run(Douane(app), port=0)")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=30,
                          env=environ(DOUANE_DATA=str(tmp_path / "data")))
    assert done.returncode == 3
    assert "p.yaml:3: " in done.stderr
