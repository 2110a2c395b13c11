"""Douane in a service of somebody's own: what is governed, when it opens and closes, and that nothing gets past."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from douane.asgi import App, Message, Receive, Scope, Send
from douane.errors import ConfigError
from douane.hosts.house import open_log, open_office
from douane.middleware import Douane
from tests.gateway import BOT_KEY, REAL_KEY, chat, environ
from tests.service import Book

CHAT = "/v1/chat/completions"
MAIL = "ann.lee@example.com"
ANSWER = {"object": "chat.completion", "model": "gpt-4o-mini", "choices": [],
          "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
AUDIT = "audit: {level: metadata}\n"
RULES = f"""version: 1
principals:
  - {{name: bot, team: bots, key: env:BOT_KEY}}
credentials: {{openai: env:REAL_KEY}}
chain:
  - authenticate: {{unknown: deny}}
  - allow_models: {{models: [gpt-4*, claude-*]}}
  - redact: {{entities: [EMAIL_ADDRESS]}}
  - swap_key: {{missing: keep}}
{AUDIT}"""
KEY = {"authorization": f"Bearer {BOT_KEY}"}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BOT_KEY": BOT_KEY, "REAL_KEY": REAL_KEY, "DOUANE_NODE": "test"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the price list in it, which takes a second to build."""
    folder, rules = tmp_path_factory.mktemp("prices"), tmp_path_factory.mktemp("rules")
    (rules / "p.yaml").write_text("version: 1\nchain: [{authenticate: {unknown: deny}}]\n")
    open_office(rules, folder).close()
    return folder


@pytest.fixture
def folders(tmp_path: Path, prices: Path) -> dict[str, Any]:
    for name in ("policies", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(RULES)
    for file in prices.glob("prices-*"):
        (tmp_path / "data" / file.name).write_bytes(file.read_bytes())
    return {"policies": tmp_path / "policies", "data": tmp_path / "data"}


# -- a server of nothing but ASGI --------------------------------------------------------------------------------------


@dataclass
class Got:
    """What an app sent to one request."""

    messages: list[Message] = field(default_factory=list)
    raised: BaseException | None = None

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(one.get("body", b"") for one in self.messages[1:])

    @property
    def whole(self) -> bool:
        return bool(self.messages) and not self.messages[-1].get("more_body", True)

    @property
    def code(self) -> str:
        return self.headers.get(b"x-douane-code", b"").decode()


async def ask(app: App, *pieces: bytes, path: str = CHAT, method: str = "POST", headers: Mapping[str, str] = KEY,
              leave: bool = False, **more: Any) -> Got:
    """One request in *pieces*; the client *leave*s after the last of them, which is not the end then."""
    got, inbox = Got(), asyncio.Queue[Message]()
    pieces = pieces or (chat(),)
    for at, piece in enumerate(pieces, 1):
        inbox.put_nowait({"type": "http.request", "body": piece, "more_body": leave or at < len(pieces)})
    if leave:
        inbox.put_nowait({"type": "http.disconnect"})
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
             "client": ("127.0.0.1", 5), **more}
    scope = {name: value for name, value in scope.items() if value is not None}

    async def send(message: Message) -> None:
        got.messages.append(message)

    try:
        async with asyncio.timeout(5):
            await app(scope, inbox.get, send)
    except Exception as error:  # noqa: BLE001
        got.raised = error
    return got


def sends(*messages: Message) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [*headers], **more}


def body(data: Any = b"{}", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream")
FINE = sends(start(200, JSON), body(json.dumps(ANSWER).encode()))


class Inner:
    """An app that remembers what it was called with, and does what it is told."""

    def __init__(self, does: App = FINE) -> None:
        self.does = does
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        self.scopes.append(scope)
        self.bodies.append((await receive()).get("body", b""))
        await self.does(scope, receive, send)


@contextlib.asynccontextmanager
async def opened(app: App, folders: Mapping[str, Any], routes: Mapping[str, str] | None = None) -> AsyncIterator[Douane]:
    douane = Douane(app, routes=routes or {}, **folders)
    try:
        yield douane
    finally:
        await douane.close()


def outcomes(folders: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [one for one in Book(folders["data"]).turn() if one["kind"] == "outcome"]


def events(folders: Mapping[str, Any]) -> list[str]:
    return [one["event"] for one in Book(folders["data"]).turn() if one["kind"] == "event" and one["event"] != "segment"]


def run(folders: Mapping[str, Any], does: App, *asks: Callable[[App], Awaitable[Got]],
        routes: Mapping[str, str] | None = None) -> tuple[Inner, list[Got]]:
    inner = Inner(does)

    async def work() -> list[Got]:
        async with opened(inner, folders, routes) as douane:
            return [await one(douane) for one in asks]

    return inner, asyncio.run(work())


# -- what passes -------------------------------------------------------------------------------------------------------


def test_a_call_is_judged_and_what_was_redacted_comes_back(folders: dict[str, Any]) -> None:
    told: list[str] = []

    async def answer(request: Request) -> Response:
        text = (await request.json())["messages"][0]["content"]
        told.append(text)
        assert len(await request.body()) == int(request.headers["content-length"])
        assert "authorization" not in request.headers
        assert not [name for name in request.headers if name.startswith("x-douane")]
        return JSONResponse(ANSWER | {"choices": [{"message": {"role": "assistant", "content": f"to {text}"}}]})

    app = Starlette(routes=[Route(CHAT, answer, methods=["POST"]), Route("/page", lambda request: PlainTextResponse("hi"))])
    with TestClient(Douane(app, **folders)) as client:
        got = client.post(CHAT, content=chat(f"write {MAIL}"), headers={**KEY, "x-douane-user": "u-1"})
        assert got.json()["choices"][0]["message"]["content"] == f"to write {MAIL}"
        assert got.headers["x-douane-id"]
        assert client.get("/page").text == "hi"
        denied = client.post(CHAT, content=chat(), headers={"authorization": "Bearer nobody"})
        assert (denied.status_code, denied.json()["error"]["code"]) == (401, "unauthenticated")
        wrong = client.post("/v1/messages", json={"model": "o1"}, headers={"x-api-key": BOT_KEY})
        assert wrong.json()["error"] == {"type": "permission_error", "code": "model_not_allowed",
                                         "message": "the model 'o1' is not allowed here"}
    assert re.fullmatch(r"write <EMAIL_ADDRESS_[a-z2-7]{8}>", told[0])
    assert len(told) == 1
    first, *_ = outcomes(folders)
    assert (first["principal"]["user"], first["operation"], first["host"]) == ("u-1", "chat", "api.openai.com")
    assert events(folders) == ["opened", "start", "stop"]
    assert MAIL not in "".join(file.read_text() for file in folders["data"].glob("audit/*/*.jsonl"))


def test_the_app_sees_its_own_path(folders: dict[str, Any]) -> None:
    inner, (got, bare) = run(folders, FINE, lambda app: ask(app, path="/root/llm/v1/messages", root_path="/root"),
                             lambda app: ask(app, raw_path=None, query_string=None), routes={"/llm": "anthropic"})
    assert (got.status, bare.status) == (200, 200)
    scope = inner.scopes[0]
    own = "/root/llm/v1/messages"
    assert (scope["path"], scope["raw_path"], scope["root_path"]) == (own, own.encode(), "/root")
    assert "raw_path" not in inner.scopes[1]
    assert [(one["provider"], one["path"]) for one in outcomes(folders)] == [("anthropic", "/v1/messages"), ("openai", CHAT)]


def test_no_header_holds_a_key_that_the_chain_took_out(folders: dict[str, Any]) -> None:
    """``swap_key`` has one for openai: that travels in no header of the app's."""
    rules = folders["policies"] / "p.yaml"
    rules.write_text(RULES.replace("key: env:BOT_KEY", "key: env:BOT_KEY, cidr: 127.0.0.0/8"))
    inner, (got,) = run(folders, FINE, lambda app: ask(app, headers={"authorization": "Bearer the-app's-own", "a": "b"}))
    assert got.status == 200
    assert inner.scopes[0]["headers"] == [(b"a", b"b"), (b"accept-encoding", b"identity")][:len(inner.scopes[0]["headers"])]
    assert REAL_KEY not in repr(inner.scopes[0])


@pytest.mark.parametrize("extension", ["http.response.pathsend", "http.response.zerocopysend", "http.response.trailers",
                                       "http.response.early_hint", "http.response.push", "http.response.debug"])
def test_no_extension_leads_past(folders: dict[str, Any], extension: str) -> None:
    """Nor does a message of one that the app sends all the same."""
    inner, (got,) = run(folders, sends(start(200, JSON, trailers=True), {"type": extension, "path": "/etc/passwd"}, body()),
                        lambda app: ask(app, extensions={extension: {}, "tls": {"version": 1}}))
    assert inner.scopes[0]["extensions"] == {"tls": {"version": 1}}
    assert [one["type"] for one in got.messages] == ["http.response.start", "http.response.body"]
    assert "trailers" not in got.messages[0]


def test_a_file_sent_past_is_no_answer(folders: dict[str, Any]) -> None:
    _, (got,) = run(folders, sends(start(), {"type": "http.response.pathsend", "path": "/etc/passwd"}), ask)
    assert b"passwd" not in got.body
    assert outcomes(folders)[0]["verdict"]["code"] == "upstream_error"


def test_a_body_in_pieces_and_a_plain_app(folders: dict[str, Any]) -> None:
    """One that writes its headers as it likes, and its body as bytes of any kind."""
    whole = chat(f"to {MAIL}")
    does = sends({"type": "http.response.start", "status": 200, "headers": ([b"Content-Type", b"text/event-stream"],)},
                 body(bytearray(b"data: {}\n"), more=True), body(memoryview(b"\ndata: [DONE]\n\n")))
    inner, (got, bare) = run(folders, does, lambda app: ask(app, *(bytes([one]) for one in whole)),
                             lambda app: ask(app, headers={"Authorization": f"Bearer {BOT_KEY}"}))
    assert MAIL.encode() not in inner.bodies[0]
    assert (got.status, got.body, got.whole) == (200, b"data: {}\n\ndata: [DONE]\n\n", True)
    assert bare.status == 200
    assert got.headers[b"content-type"] == b"text/event-stream"


def test_an_answer_without_headers(folders: dict[str, Any]) -> None:
    _, (got,) = run(folders, sends({"type": "http.response.start", "status": 204}, {"type": "http.response.body"}), ask)
    assert (got.status, got.body) == (204, b"")


# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "more"), [
    (f"/root{CHAT}", {"root_path": "/root"}), (CHAT, {"root_path": "/root"}), (CHAT, {"raw_path": None}),
    (CHAT, {"raw_path": b"/v1/chat%2Fcompletions"}), (f"{CHAT}/", {}), (f"/{CHAT}", {}), (f"/api{CHAT}", {})])
def test_a_governed_path_is_governed_however_it_comes(folders: dict[str, Any], path: str, more: dict[str, Any]) -> None:
    inner, (got,) = run(folders, FINE, lambda app: ask(app, path=path, headers={}, **({"raw_path": path.encode()} | more)),
                        routes={"/api": "openai"})
    assert got.code == "unauthenticated"
    assert inner.scopes == []


@pytest.mark.parametrize("method", ["PATCH", "PUT", "HEAD", "DELETE", "TRACE"])
def test_other_methods_are_no_operation(folders: dict[str, Any], method: str) -> None:
    inner, (got,) = run(folders, FINE, lambda app: ask(app, method=method))
    assert (got.status, got.code) == (403, "operation_not_allowed")
    assert inner.scopes == []


def test_a_preflight_passes_and_takes_no_text_along(folders: dict[str, Any]) -> None:
    inner, (got,) = run(folders, FINE, lambda app: ask(app, b"secret ", b"text", method="OPTIONS", headers={}))
    assert got.status == 200
    assert inner.bodies == [b""]
    assert outcomes(folders) == []


def test_a_websocket_is_refused(folders: dict[str, Any]) -> None:
    with TestClient(Douane(Inner(), **folders)) as client, pytest.raises(WebSocketDisconnect) as caught, \
            client.websocket_connect(CHAT):
        pass
    assert caught.value.code == 1008


@pytest.mark.parametrize(("version", "closed"), [("1.1", True), ("2", False)])
def test_a_refusal_before_the_body_ends_the_connection_where_there_is_one(folders: dict[str, Any], version: str,
                                                                          closed: bool) -> None:
    """HTTP/2 has no such header, and servers of it fail on one."""
    _, (got,) = run(folders, FINE, lambda app: ask(app, headers={"expect": "100-continue"}, http_version=version))
    assert got.code == "unauthenticated"
    assert (b"connection" in got.headers) is closed


# -- what breaks -------------------------------------------------------------------------------------------------------


def raises(*before: Message) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in before:
            await send(message)
        raise ValueError("of the app's own")

    return app


def test_an_app_that_raises(folders: dict[str, Any]) -> None:
    """Its caller gets an error of the provider's shape, its server the exception."""
    _, (got,) = run(folders, raises(), ask)
    assert (got.status, got.code, got.whole) == (502, "upstream_error", True)
    assert isinstance(got.raised, ValueError)
    assert b"of the app's own" not in got.body
    assert outcomes(folders)[0]["verdict"]["code"] == "upstream_error"


def test_an_app_that_raises_in_a_stream(folders: dict[str, Any]) -> None:
    _, (got,) = run(folders, raises(start(200, EVENTS), body(b"data: {}\n\n", more=True)), ask)
    assert got.body.startswith(b'data: {}\n\ndata: {"error":')
    assert got.whole
    assert isinstance(got.raised, ValueError)


def test_an_app_that_raises_amid_an_answer_of_another_kind(folders: dict[str, Any]) -> None:
    _, (got,) = run(folders, raises(start(200, JSON), body(b'{"half', more=True)), ask)
    assert not got.whole
    assert isinstance(got.raised, ValueError)


def test_an_app_that_raises_after_its_answer(folders: dict[str, Any]) -> None:
    """In a background task: the answer stands, and so does its record."""
    _, (got,) = run(folders, raises(start(200, JSON), body()), ask)
    assert (got.status, got.whole) == (200, True)
    assert isinstance(got.raised, ValueError)
    assert outcomes(folders)[0]["verdict"]["action"] == "allow"


def test_what_broke_once_stays_broken(folders: dict[str, Any]) -> None:
    """An app that takes the refusal of its answer for nothing and goes on."""
    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (start(200, JSON, (b"content-encoding", b"rot13")), start(200, JSON), body(b'{"a":1}')):
            with contextlib.suppress(Exception):
                await send(message)

    _, (got,) = run(folders, stubborn, ask)
    assert (got.status, got.code) == (502, "upstream_error")
    assert b'"a"' not in got.body


def test_an_answer_begun_twice(folders: dict[str, Any]) -> None:
    _, (got,) = run(folders, sends(start(200, JSON), start(200, JSON), body()), ask)
    assert got.status >= 500 or not got.whole


def test_an_app_that_says_nothing(folders: dict[str, Any]) -> None:
    _, (got,) = run(folders, sends(), ask)
    assert got.code == "upstream_error"


def test_a_client_that_leaves_while_it_asks(folders: dict[str, Any]) -> None:
    inner, (got,) = run(folders, FINE, lambda app: ask(app, b'{"mo', leave=True))
    assert (got.messages, inner.scopes) == ([], [])
    assert outcomes(folders)[0]["status"] == 0


# -- opening and closing -----------------------------------------------------------------------------------------------


async def live(app: App, at_each: Callable[[], None] = lambda: None) -> list[Message]:
    """A server's lifespan: what the app sent. *at_each* message of it; after the last, a server may be gone."""
    inbox, sent = asyncio.Queue[Message](), list[Message]()
    for step in ("startup", "shutdown"):
        inbox.put_nowait({"type": f"lifespan.{step}"})

    async def send(message: Message) -> None:
        sent.append(message)
        at_each()

    async with asyncio.timeout(5):
        await app({"type": "lifespan", "state": {}}, inbox.get, send)
    return sent


@pytest.mark.parametrize(("rules", "routes", "said"), [
    ("version: 1\nchain:\n  - authenticate: {unknown: denied}\n", {}, r"p\.yaml:3: .*authenticate\.unknown"),
    (RULES, {"/llm": "opnai"}, "routes: '/llm': there is no provider `opnai`; allowed: openai, anthropic")])
def test_a_wrong_configuration_fails_the_start(folders: dict[str, Any], rules: str, routes: dict[str, str], said: str) -> None:
    """With the lines of ``douane check``; the app is not started, and the files are let go of."""
    (folders["policies"] / "p.yaml").write_text(rules)
    inner = Inner()
    (sent,) = asyncio.run(live(Douane(inner, routes=routes, **folders)))
    assert sent["type"] == "lifespan.startup.failed"
    assert re.search(said, sent["message"])
    (folders["policies"] / "p.yaml").write_text(RULES)
    open_office(folders["policies"], folders["data"]).close()  # not in use


def test_it_opens_before_the_app_and_closes_after_it(folders: dict[str, Any]) -> None:
    steps: list[Any] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        steps.append(events(folders))
        yield
        steps.append(events(folders))

    sent = asyncio.run(live(Douane(Starlette(lifespan=lifespan), **folders), lambda: steps.append(events(folders))))
    assert [one["type"] for one in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert steps == [["opened", "start"]] * 3 + [["opened", "start", "stop"]]


def test_an_app_without_a_lifespan_has_one(folders: dict[str, Any]) -> None:
    sent = asyncio.run(live(Douane(Inner(), **folders)))
    assert [one["type"] for one in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert events(folders) == ["opened", "start", "stop"]


def test_an_app_that_fails_to_start(folders: dict[str, Any]) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if app.routes == []:
            raise OSError("no database")
        yield

    with pytest.raises(OSError, match="no database"):
        asyncio.run(live(Douane(Starlette(lifespan=lifespan), **folders)))
    assert events(folders) == ["opened", "start", "stop"]


def test_without_a_lifespan_the_first_request_opens_once(folders: dict[str, Any]) -> None:
    async def work() -> None:
        douane = Douane(Inner(), **folders)
        assert douane.problems() == ["not open"]
        assert {one.status for one in await asyncio.gather(*(ask(douane) for _ in range(5)))} == {200}
        assert douane.problems() == []
        await douane.close()
        await douane.close()
        assert isinstance((await ask(douane)).raised, RuntimeError)

    asyncio.run(work())
    assert events(folders) == ["opened", "start", "stop"]


def test_without_a_lifespan_a_wrong_configuration_passes_nothing(folders: dict[str, Any]) -> None:
    (folders["policies"] / "p.yaml").write_text("version: 1\n")
    inner, (got, page) = run(folders, FINE, ask, lambda app: ask(app, path="/page"))
    assert isinstance(got.raised, ConfigError)
    assert isinstance(page.raised, ConfigError)  # without policies nobody knows what is governed
    assert inner.scopes == []


def test_reload(folders: dict[str, Any]) -> None:
    rules = folders["policies"] / "p.yaml"
    ours = "providers: {vllm: {like: openai, hosts: [llm.internal], upstream: 'https://llm.internal'}}\n"
    rules.write_text(RULES + ours)

    async def work() -> None:
        async with opened(Inner(), folders, {"/own": "vllm"}) as douane:
            assert (await ask(douane)).status == 200
            rules.write_text(RULES.replace("gpt-4*", "o1"))
            without = await douane.reload()
            assert (without.ok, "no provider `vllm`" in without.lines[0]) == (False, True)
            assert (await ask(douane)).status == 200
            rules.write_text(RULES.replace("gpt-4*", "o1") + ours)
            assert (await douane.reload()).ok
            assert (await ask(douane)).code == "model_not_allowed"

    asyncio.run(work())
    assert events(folders) == ["opened", "start", "reload_refused", "reload", "stop"]


def test_as_middleware_of_starlette(folders: dict[str, Any]) -> None:
    """As ``add_middleware`` makes it, the app has it in its state."""
    async def problems(request: Request) -> Response:
        return JSONResponse(request.state.douane.problems())

    app = Starlette(routes=[Route("/problems", problems)])
    app.add_middleware(Douane, **folders)
    with TestClient(app) as client:
        assert client.get("/problems").json() == []
        assert client.post(CHAT, content=chat()).status_code == 401


def test_processes_forked_from_one_give_other_ids() -> None:
    """As a server's workers are, where it loads the app once: two calls of one id would be charged as one."""
    code = ("import os\nimport douane.middleware\nfrom douane.gate import new_id\n"
            "for _ in range(2):\n"
            "    if not os.fork():\n"
            "        os._exit(os.write(1, f'{new_id(0.0)}\\n'.encode()) != 33)\n"
            "    os.wait()\n")
    done = subprocess.run([sys.executable, "-c", code], env=environ(), capture_output=True, text=True, check=True)
    assert len(set(done.stdout.split())) == 2, done.stdout


def test_each_worker_has_a_chain_of_its_own(tmp_path: Path) -> None:
    """And who comes after one that died takes its place."""
    logs = [open_log(tmp_path, "n", 3) for _ in range(3)]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["n", "n.worker-2", "n.worker-3"]
    logs[1].append_blocking({"kind": "intent", "id": "left open"})
    logs[1].close()
    again = open_log(tmp_path, "n", 3)
    assert [one["id"] for one in again.orphans] == ["left open"]
    with pytest.raises(Exception, match=r"worker-3 is in use by another process"):
        open_log(tmp_path, "n", 3)
    for log in (logs[0], again, logs[2]):
        log.close()
