"""The middleware on a plain ASGI server: no extension of ours, so that a task must watch for a client that leaves."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from douane.asgi import App, Message, Receive, Scope, Send
from douane.call import Caller, Headers, Outcome
from douane.chain import Chain
from douane.echo import EchoMask
from douane.edge import EdgeRules
from douane.errors import DENIALS, AuditUnavailableError, RefusedError, UpstreamError
from douane.governor import AnswerCutError, Governor
from douane.intake import Arrival
from douane.policy import Traits
from douane.providers.base import Provider
from douane.verdict import ALLOW, Deny, Verdict
from tests import house
from tests.house import Book, Counts, Policy, entry

ASKED = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}'
ANSWER = b'{"model": "gpt-4o-2024-08-06", "usage": {"prompt_tokens": 12, "completion_tokens": 5}}'
EVENTS = (b'data: {"model": "gpt-4o", "choices": [{"delta": {"content": "Hi"}}]}\n\n',
          b'data: {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 5}}\n\n')
DONE = b"data: [DONE]\n\n"
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
JSON = ((b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode()))
STREAM = ((b"content-type", b"text/event-stream"),)
LEAVE: Message = {"type": "http.disconnect"}


class Session:
    """One request of a client on an ASGI server, and all that came of it, in *steps*: ``intent``, ``outcome``, ``head``,
    the bytes that reached the client, ``end``."""

    def __init__(self, app: App, *entries: Any, edge: EdgeRules | None = None, provider: Provider = house.OPENAI,
                 broken: tuple[str, ...] = (), chain: Chain | None = None) -> None:
        self.steps: list[Any] = []
        self.book = Book(self.steps, broken)
        self.counts = Counts()
        self.provider = provider
        self.governor = Governor(app, house.gate(chain or house.chain(*entries, edge=edge, provider=provider), self.book,
                                                 self.counts), self.door)
        self.refused: RefusedError | None = None
        self.seen_by_door: list[Chain] = []
        self.head: Message | None = None
        self.bodies: list[bytes] = []
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.raised: BaseException | None = None

    def door(self, chain: Chain, scope: Scope) -> Arrival | None:
        self.seen_by_door.append(chain)
        host = dict(scope["headers"]).get(b"host", b"").decode()
        if host not in chain.providers:
            return None
        return Arrival(self.provider, host, scope["path"], Caller("127.0.0.1"), house.TARGET, self.refused)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            assert self.head is None, "a second head"
            self.head = message
            self.steps.append("head")
            return
        self.bodies.append(message["body"])
        if message["body"]:
            self.steps.append(message["body"])
        if not message.get("more_body", False):
            assert "end" not in self.steps, "a second end"
            self.steps.append("end")

    async def call(self, *messages: Message, headers: Headers = (), path: str = "", method: str = "POST",
                   query: bytes = b"") -> None:
        for message in messages or ({"type": "http.request", "body": ASKED, "more_body": False},):
            self.inbox.put_nowait(message)
        scope = {"type": "http", "method": method, "path": path or PATHS[self.provider.name], "query_string": query,
                 "headers": [(b"host", self.provider.hosts[0].encode()), *headers], "state": {"kept": 1}}
        try:
            await self.governor(scope, self.inbox.get, self.send)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0, "the server's task is left as it was"
        except (AnswerCutError, asyncio.CancelledError) as error:
            self.raised = error

    def run(self, *messages: Message, **more: Any) -> "Session":
        house.run(self.call(*messages, **more))
        assert self.counts.running == 0
        return self

    @property
    def status(self) -> int:
        return int(self.head["status"]) if self.head else 0

    def header(self, name: bytes) -> bytes | None:
        found = [value for key, value in house.headers_of(self.head or {"headers": ()}) if key == name]
        assert len(found) < 2
        return found[0] if found else None

    @property
    def body(self) -> bytes:
        return b"".join(self.bodies)

    def denied(self, code: str) -> dict[str, Any]:
        """The record of a denial that the client has got whole."""
        assert self.header(b"x-douane-code") == code.encode()
        assert self.header(b"x-douane-id") == self.book.outcome["id"].encode()
        assert self.header(b"content-length") == str(len(self.body)).encode()
        assert self.steps[-3:] == ["head", self.body, "end"]
        verdict: dict[str, Any] = self.book.outcome["verdict"]
        assert (verdict["action"], verdict["code"]) == ("deny", code)
        return verdict


type Step = Message | Callable[[], Awaitable[Any]] | BaseException


def start(headers: Headers = JSON, status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def piece(body: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


class Inner:
    """The inner app: reads the request, then takes *steps*: sends a message, awaits, or raises."""

    def __init__(self, *steps: Step) -> None:
        self.steps = steps
        self.scope: Scope | None = None
        self.body = b""
        self.cancelled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.body = (await receive())["body"]
        self.receive = receive
        try:
            for step in self.steps:
                if isinstance(step, BaseException):
                    raise step
                await (step() if callable(step) else send(step))
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def never() -> None:
    await asyncio.Event().wait()


def plain() -> Inner:
    return Inner(start(), piece(ANSWER[:40]), piece(ANSWER[40:]), piece(b"", False))


async def deny(call: Any) -> Verdict:
    return Deny("content_blocked", "not this")


# -- passing -----------------------------------------------------------------------------------------------------------


def test_an_answer_of_known_length_ends_only_after_its_outcome() -> None:
    session = Session(plain()).run()
    assert session.steps == ["intent", "head", ANSWER[:40], "outcome", ANSWER[40:], "end"]
    assert session.status == 200
    assert session.header(b"x-douane-id") == session.book.outcome["id"].encode()
    assert session.book.outcome["usage"]["input"] == 12
    assert session.book.outcome["verdict"] == {"action": "allow"}


def test_an_answer_of_unknown_length_ends_only_after_its_outcome() -> None:
    session = Session(Inner(start(JSON[:1]), piece(ANSWER), piece(b"", False))).run()
    assert session.steps == ["intent", "head", ANSWER, "outcome", "end"]


def test_a_stream_is_held_at_its_own_end_marker_and_waits_for_nothing_after_it() -> None:
    session = Session(Inner(start(STREAM), piece(EVENTS[0]), piece(EVENTS[1]), piece(DONE), never))

    async def work() -> None:
        running = asyncio.ensure_future(session.call())
        while "end" not in session.steps:
            await asyncio.sleep(0)
        running.cancel()
        await running

    house.run(work())
    assert session.steps == ["intent", "head", *EVENTS, "outcome", DONE, "end"]
    assert session.book.outcome["ended"] == "complete"


@pytest.mark.parametrize(("headers", "steps"), [
    (((b"content-length", b"0"),), ["intent", "outcome", "head", "end"]), ((), ["intent", "head", "outcome", "end"]),
])
def test_an_empty_answer(headers: Headers, steps: list[str]) -> None:
    assert Session(Inner(start(headers, 204), piece(b"", False))).run().steps == steps


def test_what_is_sent_after_the_end_is_dropped() -> None:
    session = Session(Inner(start(), piece(ANSWER), piece(b"more"), piece(b"", False))).run()
    assert session.body == ANSWER
    assert session.book.kinds == ["intent", "outcome"]


def test_the_inner_app_gets_the_call_as_the_chain_made_it() -> None:
    inner = plain()
    headers = ((b"x-douane-user", b"u1"), (b"x-douane-agent", b"a1"), (b"x-douane-tag-job", b"nightly"),
               (b"x-douane-zzz", b"1"), (b"proxy-authorization", b"Basic x"), (b"proxy-connection", b"close"), (b"x", b"1"))
    callers = []

    async def look(call: Any) -> Verdict:
        callers.append(call.caller)
        return ALLOW

    Session(inner, entry(Policy(look))).run(headers=headers, query=b"a=1")
    assert inner.body == ASKED
    assert inner.scope is not None
    assert inner.scope["headers"] == [(b"host", b"api.openai.com"), (b"x", b"1")]
    assert (inner.scope["raw_path"], inner.scope["query_string"]) == (b"/v1/chat/completions", b"a=1")
    assert inner.scope["state"]["kept"] == 1
    assert inner.scope["state"]["forward"].target == house.TARGET
    assert callers == [Caller("127.0.0.1", user="u1", agent="a1", tags={"job": "nightly"})]


def test_a_body_in_pieces_and_in_a_coding_is_read_and_passed_on_as_it_came() -> None:
    inner, models = plain(), []

    async def look(call: Any) -> Verdict:
        models.append(call.model)
        return ALLOW

    body = gzip.compress(ASKED)
    Session(inner, entry(Policy(look))).run(*[{"type": "http.request", "body": body[at:at + 7], "more_body": at + 7 < len(body)}
                                              for at in range(0, len(body), 7)], headers=((b"content-encoding", b"gzip"),))
    assert (inner.body, models) == (body, ["gpt-4o"])


@pytest.mark.parametrize("kind", ["lifespan", "websocket", "http"])
def test_what_the_door_does_not_claim_is_the_inner_apps_alone(kind: str) -> None:
    got: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.append((scope, receive, send))

    session = Session(app)
    scope = {"type": kind, "headers": [(b"host", b"elsewhere.example")]}
    house.run(session.governor(scope, session.inbox.get, session.send))
    assert got == [(scope, session.inbox.get, session.send)]
    assert session.steps == []


def test_a_websocket_that_is_no_row_of_the_provider_is_refused() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    session = Session(Inner(AssertionError("called")))
    scope = {"type": "websocket", "path": "/v1/chat/completions", "query_string": b"",
             "headers": [(b"host", b"api.openai.com")]}
    house.run(session.governor(scope, session.inbox.get, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
    sent.clear()
    house.run(session.governor({**scope, "extensions": {"websocket.http.response": {}}}, session.inbox.get, send))
    assert [message.get("status") for message in sent] == [403, None]
    assert [one["verdict"]["code"] for one in session.book.records] == ["operation_not_allowed"] * 2


def test_an_exchange_keeps_the_chain_it_began_with() -> None:
    inner = plain()
    session = Session(inner)
    stricter = house.chain(entry(Policy(deny)))

    async def reload(call: Any) -> Verdict:
        session.governor.gate.adopt(stricter)
        return ALLOW

    session.governor.gate.adopt(house.chain(entry(Policy(reload))))
    assert session.run().status == 200
    again = Session(inner, chain=session.governor.gate.chain).run()
    again.denied("content_blocked")


# -- denials -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", [house.OPENAI, house.ANTHROPIC], ids=lambda one: one.name)
@pytest.mark.parametrize("code", DENIALS)
def test_denials_have_the_providers_shape(provider: Provider, code: str) -> None:
    inner = plain()

    async def refuse(call: Any) -> Verdict:
        return Deny(code, "because of this", retry_after=1.6)

    session = Session(inner, entry(Policy(refuse)), provider=provider).run()
    assert session.denied(code)["policy"] == "rule"
    assert (inner.scope, session.book.kinds, session.book.outcome["cost_usd"]) == (None, ["outcome"], 0.0)
    error = json.loads(session.body)["error"]
    assert error["message"] == "because of this"
    if provider is house.OPENAI:
        assert error["code"] == ("insufficient_quota" if code == "budget_exceeded" else code)
    quota = code == "budget_exceeded" and provider is house.ANTHROPIC
    assert session.status == (402 if quota else DENIALS[code])
    retry = code in ("rate_limited", "upstream_error", "upstream_timeout", "policy_error", "audit_unavailable",
                     "ledger_unavailable")
    assert session.header(b"x-should-retry") == (None if retry else b"false")
    assert session.header(b"retry-after") == b"2"
    assert session.header(b"content-type") == b"application/json"


def test_retry_after_is_whole_seconds_and_never_none() -> None:
    for given, shown in ((0.1, b"1"), (59.6, b"60"), (None, None)):
        async def refuse(call: Any, given: float | None = given) -> Verdict:
            return Deny("rate_limited", "slow down", retry_after=given)

        assert Session(plain(), entry(Policy(refuse))).run().header(b"retry-after") == shown


def test_a_refusal_of_the_door() -> None:
    inner = plain()
    session = Session(inner)
    session.refused = RefusedError("host_mismatch", "names differ")
    assert session.run().denied("host_mismatch") == {
        "action": "deny", "policy": "door", "code": "host_mismatch", "reason": "names differ"}
    assert (session.status, inner.scope) == (421, None)


def test_unknown_operations() -> None:
    inner = plain()
    denied = Session(inner).run(path="/v1/nothing", query=b"secret=1")
    assert denied.denied("operation_not_allowed")["policy"] == "edge"
    assert inner.scope is None
    passed = Session(inner, edge=EdgeRules(unknown_operations="allow")).run(
        {"type": "http.request", "body": b"\x00 no JSON", "more_body": False}, path="/v1/nothing")
    assert (passed.status, inner.body) == (200, b"\x00 no JSON")
    for session in (denied, passed):
        assert (session.book.outcome["operation"], session.book.outcome["path"]) == ("unknown", "/v1/nothing")


def test_who_is_refused_by_the_head_is_not_asked_for_the_body() -> None:
    head = entry(Policy(deny), traits=Traits(needs_body=False))
    session = Session(plain(), head)
    session.run({"type": "http.request", "body": b"", "more_body": True}, headers=((b"expect", b"100-continue"),))
    session.denied("content_blocked")
    assert session.inbox.qsize() == 1, "nothing was received"
    assert session.header(b"connection") == b"close"


@pytest.mark.parametrize(("body", "headers", "code"), [
    (b"{", (), "bad_request"),
    (b'{"model": "a", "model": "b"}', (), "bad_request"),
    (b'{"model": NaN}', (), "bad_request"),
    (ASKED, ((b"content-encoding", b"compress"),), "unsupported_coding"),
    (ASKED, ((b"content-encoding", b"gzip"), (b"content-encoding", b"gzip")), "unsupported_coding"),
    (ASKED, ((b"content-encoding", b"gzip"),), "bad_request"),
    (gzip.compress(b" " * 2000, mtime=0), ((b"content-encoding", b"gzip"),), "too_large"),
    (b" " * 1001, (), "too_large"),
])
def test_bodies_that_cannot_be_read(body: bytes, headers: Headers, code: str) -> None:
    inner = plain()
    whole: Message = {"type": "http.request", "body": body, "more_body": False}
    session = Session(inner, edge=EdgeRules(max_body=1000)).run(whole, headers=headers)
    assert session.denied(code)["policy"] == "governor"
    assert (session.status, inner.scope) == (DENIALS[code], None)


def test_a_body_that_is_too_long_is_not_read_to_its_end() -> None:
    part: Message = {"type": "http.request", "body": b" " * 400, "more_body": True}
    told = Session(plain(), edge=EdgeRules(max_body=1000))
    told.run(*[part] * 9, headers=((b"content-length", b"3600"),)).denied("too_large")
    assert told.inbox.qsize() >= 8
    untold = Session(plain(), edge=EdgeRules(max_body=1000))
    untold.run(*[part] * 9).denied("too_large")
    assert untold.inbox.qsize() == 6


def test_a_refusal_quotes_no_key_of_the_body() -> None:
    session = Session(plain()).run({"type": "http.request", "body": b'{"canary-1": 1, "canary-1": 2}', "more_body": False})
    session.denied("bad_request")
    assert b"canary" not in session.body
    assert "canary" not in json.dumps(session.book.records)


# -- policies ----------------------------------------------------------------------------------------------------------


def test_observe_lets_denials_pass_and_says_so_but_for_what_always_acts() -> None:
    session = Session(plain(), entry(Policy(deny), observe=True)).run()
    assert session.status == 200
    assert [found["type"] for found in session.book.outcome["findings"]] == ["would_deny:content_blocked"]
    Session(plain(), entry(Policy(deny), observe=True, traits=Traits(always=True))).run().denied("content_blocked")


async def fail(call: Any) -> Verdict:
    raise ValueError("the canary text")


async def cancel_itself(call: Any) -> Verdict:
    raise asyncio.CancelledError


async def babble(call: Any) -> Any:
    return None


async def unknown_code(call: Any) -> Verdict:
    return Deny("no_such_code", "x")


@pytest.mark.parametrize("broken", [fail, cancel_itself, babble, unknown_code])
def test_a_broken_policy_denies_unless_on_error_allows(broken: Any) -> None:
    inner = plain()
    session = Session(inner, entry(Policy(broken))).run()
    assert session.denied("policy_error")["policy"] == "rule"
    assert (session.status, inner.scope, session.counts.failed) == (503, None, ["policy_error"])
    assert b"canary" not in session.body
    allowed = Session(inner, entry(Policy(broken), on_error="allow")).run()
    assert (allowed.status, allowed.counts.passed, allowed.counts.failed) == (200, ["rule"], [])
    assert [found["type"] for found in allowed.book.outcome["findings"]] == ["on_error:allow"]


def test_when() -> None:
    def raises(call: Any) -> bool:
        raise KeyError("tag")

    assert Session(plain(), entry(Policy(deny), when=lambda call: call.model == "o3")).run().status == 200
    Session(plain(), entry(Policy(deny), when=lambda call: call.model == "gpt-4o")).run().denied("content_blocked")
    Session(plain(), entry(Policy(deny), when=raises)).run().denied("policy_error")
    assert Session(plain(), entry(Policy(deny), when=raises, on_error="allow")).run().status == 200


def test_a_filter_that_fails_to_be_made_denies() -> None:
    def make(call: Any) -> Any:
        raise OSError("the canary text")

    inner = plain()
    session = Session(inner, entry(Policy(make=make))).run()
    session.denied("policy_error")
    assert inner.scope is None
    assert b"canary" not in session.body


class Fragile(EchoMask):
    """Breaks at the second piece."""

    rewrites = True

    def __init__(self) -> None:
        super().__init__("k" * 20)
        self.fed = 0

    def feed(self, chunk: bytes) -> bytes:
        self.fed += 1
        if self.fed > 1:
            raise ValueError("the canary text")
        return super().feed(chunk)


def test_a_filter_that_rewrites_has_the_answer_asked_for_uncompressed() -> None:
    for make, asked in ((lambda call: Fragile(), b"identity"), (lambda call: EchoMask("k" * 20), b"gzip, br")):
        inner = plain()
        Session(inner, entry(Policy(make=make))).run(headers=((b"accept-encoding", b"gzip, br"),))
        assert inner.scope is not None
        assert dict(inner.scope["headers"])[b"accept-encoding"] == asked


def test_a_filter_that_breaks_in_a_stream_ends_it_with_the_providers_error() -> None:
    inner = Inner(start(STREAM), piece(EVENTS[0]), piece(EVENTS[1]), never)
    session = Session(inner, entry(Policy(make=lambda call: Fragile()))).run()
    error = json.loads(session.bodies[-1].removeprefix(b"data: "))["error"]
    assert error["code"] == "policy_error"
    assert "canary" not in error["message"]
    assert session.steps[:3] == ["intent", "head", EVENTS[0]]
    assert session.steps[3:] == ["outcome", session.bodies[-1], "end"]
    assert session.book.outcome["ended"] == "cut"


# -- an inner app that breaks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "code", "ended"), [
    (UpstreamError("upstream_timeout", "no answer in time"), "upstream_timeout", "upstream_timeout"),
    (UpstreamError("upstream_error", "refused"), "upstream_error", "upstream_error"),
    (RefusedError("too_large", "too long"), "too_large", "cut"),
    (ZeroDivisionError("the canary text"), "policy_error", "cut"),
])
@pytest.mark.parametrize("before", [(), (start(),)], ids=["at once", "after a head that has not left"])
def test_before_an_answer_has_left_it_is_a_proper_error(before: tuple[Step, ...], error: Exception, code: str,
                                                        ended: str) -> None:
    session = Session(Inner(*before, error)).run()
    session.denied(code)
    assert (session.status, session.book.outcome["ended"]) == (DENIALS[code], ended)
    assert session.book.outcome["cost_usd"] is None, "it has gone upstream: what it cost is not known to be nothing"
    assert b"canary" not in session.body


@pytest.mark.parametrize("steps", [(), (start(),), (start(), piece(b""))], ids=["nothing", "a head", "an empty piece"])
def test_no_whole_answer_is_an_upstream_error(steps: tuple[Step, ...]) -> None:
    assert Session(Inner(*steps)).run().denied("upstream_error")["reason"] == "the inner app gave no whole answer"


@pytest.mark.parametrize("last", [(), (UpstreamError("upstream_error", "broke off"),), (ZeroDivisionError(),)],
                         ids=["returns", "upstream", "raises"])
def test_a_begun_answer_that_breaks_has_no_proper_end(last: tuple[Step, ...]) -> None:
    session = Session(Inner(start(), piece(ANSWER[:40]), *last)).run()
    assert isinstance(session.raised, AnswerCutError)
    assert session.steps == ["intent", "head", ANSWER[:40], "outcome"]
    assert session.book.outcome["verdict"]["action"] == "deny"


@pytest.mark.parametrize("last", [(), (UpstreamError("upstream_error", "broke off"),)], ids=["returns", "raises"])
def test_a_begun_stream_that_breaks_ends_in_the_providers_error_event(last: tuple[Step, ...]) -> None:
    for provider in (house.OPENAI, house.ANTHROPIC):
        session = Session(Inner(start(STREAM), piece(EVENTS[0]), *last), provider=provider).run()
        assert session.steps == ["intent", "head", EVENTS[0], "outcome", session.bodies[-1], "end"]
        error = json.loads(session.bodies[-1].split(b"data: ", 1)[1])["error"]
        assert error["message"] == session.book.outcome["verdict"]["reason"]
        assert session.bodies[-1].endswith(b"\n\n")


def test_of_an_event_that_was_cut_nothing_leaves() -> None:
    session = Session(Inner(start(STREAM), piece(EVENTS[0] + EVENTS[1][:9]), piece(EVENTS[1][9:20]))).run()
    assert session.steps == ["intent", "head", EVENTS[0], "outcome", session.bodies[-1], "end"]
    assert json.loads(session.bodies[-1].removeprefix(b"data: "))["error"]["code"] == "upstream_error"


def test_a_compressed_stream_cannot_take_an_event_of_ours() -> None:
    session = Session(Inner(start((*STREAM, (b"content-encoding", b"gzip"))), piece(gzip.compress(EVENTS[0])[:20]))).run()
    assert isinstance(session.raised, AnswerCutError)
    assert "end" not in session.steps


# -- no record, no service ---------------------------------------------------------------------------------------------


def test_without_an_intent_nothing_goes_upstream() -> None:
    inner = plain()
    session = Session(inner, broken=("intent",)).run()
    session.denied("audit_unavailable")
    assert (session.status, inner.scope) == (503, None)


def test_without_an_outcome_nothing_ends() -> None:
    cut = Session(plain(), broken=("outcome",)).run()
    assert isinstance(cut.raised, AnswerCutError)
    assert cut.steps == ["intent", "head", ANSWER[:40]]
    stream = Session(Inner(start(STREAM), piece(EVENTS[0]), piece(DONE), never), broken=("outcome",)).run()
    assert isinstance(stream.raised, AnswerCutError)
    assert stream.steps == ["intent", "head", EVENTS[0]]
    at_once = Session(Inner(start(), piece(ANSWER)), broken=("outcome",)).run()
    assert (at_once.status, at_once.header(b"x-douane-code")) == (503, b"audit_unavailable"), "no byte had left"
    refused = Session(plain(), entry(Policy(deny)), broken=("outcome",)).run()
    assert refused.header(b"x-douane-code") == b"audit_unavailable"


def test_an_app_that_swallows_the_failure_ends_nothing_all_the_same() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (start(), piece(ANSWER), piece(b"", False), start(STREAM), piece(DONE, False)):
            try:
                await send(message)
            except AuditUnavailableError:
                continue

    session = Session(app, broken=("outcome",)).run()
    assert "end" not in session.steps
    assert session.body == b""


# -- a client that leaves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("messages", [
    (LEAVE,), ({"type": "http.request", "body": ASKED[:9], "more_body": True}, LEAVE),
], ids=["at once", "half-way"])
def test_before_its_request_is_whole(messages: tuple[Message, ...]) -> None:
    inner = plain()
    session = Session(inner).run(*messages)
    assert session.steps == ["outcome"]
    assert (inner.scope, session.raised, session.book.outcome["ended"]) == (None, None, "client_disconnected")


@pytest.mark.parametrize(("steps", "passed"), [
    ((never,), []), ((start(), never), []), ((start(STREAM), piece(EVENTS[0]), never), ["head", EVENTS[0]]),
], ids=["before the head", "before the first byte", "in the stream"])
def test_while_the_provider_answers_the_upstream_call_is_cancelled(steps: tuple[Step, ...], passed: list[Any]) -> None:
    inner = Inner(*steps)
    session = Session(inner)

    async def work() -> None:
        running = asyncio.ensure_future(session.call())
        while session.steps != ["intent", *passed]:
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not inner.cancelled
        session.inbox.put_nowait(LEAVE)
        await running
        assert not running.cancelled()

    house.run(work())
    assert inner.cancelled
    assert session.steps == ["intent", *passed, "outcome"]
    assert (session.raised, session.book.outcome["ended"]) == (None, "client_disconnected")


def test_after_the_end_nothing_is_disturbed() -> None:
    """The client leaves in the very turn in which the last bytes are on their way, and later."""
    session = Session(Inner(start(), piece(ANSWER), piece(b"", False)))
    append = session.book.append

    async def leaving(record: dict[str, Any]) -> None:
        if record["kind"] == "outcome":
            session.inbox.put_nowait(LEAVE)
        await append(record)

    session.book.append = leaving  # type: ignore[method-assign]
    session.run()
    assert session.steps == ["intent", "outcome", "head", ANSWER, "end"]
    assert session.book.outcome["ended"] == "complete"


def test_an_app_that_listens_is_told() -> None:
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            told.append(await receive())
        except asyncio.CancelledError:
            told.append(await receive())
            raise

    session = Session(app)
    session.run({"type": "http.request", "body": ASKED, "more_body": False}, LEAVE)
    assert told == [LEAVE]
    assert session.book.outcome["ended"] == "client_disconnected"


@pytest.mark.parametrize("ends", [plain(), Inner(), Inner(UpstreamError("upstream_error", "x"))],
                         ids=["whole", "none", "error"])
def test_no_watcher_outlives_its_request(ends: Inner) -> None:
    async def work() -> set[Any]:
        await Session(ends).call()
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert house.run(work()) == set()


def test_a_server_that_stops_leaves_an_outcome() -> None:
    inner = Inner(start(STREAM), piece(EVENTS[0]), never)
    outcomes: list[Outcome] = []

    async def settle(call: Any, outcome: Outcome) -> None:
        outcomes.append(outcome)

    session = Session(inner, entry(Policy(settle=settle)))

    async def work() -> None:
        running = asyncio.ensure_future(session.call())
        while EVENTS[0] not in session.steps:
            await asyncio.sleep(0)
        running.cancel()
        await running

    house.run(work())
    assert isinstance(session.raised, asyncio.CancelledError)
    assert session.steps == ["intent", "head", EVENTS[0], "outcome"]
    assert (session.book.outcome["ended"], session.book.outcome["verdict"]["code"]) == ("stopped", "stopped")
    assert [one.ended for one in outcomes] == ["stopped"]
