"""One law behind every door: the same exchange through the proxy (CONNECT, TLS), the reverse proxy and the middleware (round
our relay, in a service of this process) gets the same verdict, the same bytes upstream, the same answer and the same record.

What may differ is listed here, and nowhere else. Upstream: the connection (so no script closes one without a byte: what is
said then depends on whether it was a kept one). In an answer: ``x-douane-id``, which stands in
denials too. In a record: ``OWN``. Not asked here, for the doors differ on purpose: forms and foreign browsers (the reverse
proxy's fence), and other spellings of a path (the middleware's app could route by them). ``DOUANE_EXAMPLES``: how many (150).
"""

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount

from douane.demo.provider import LocalProvider, Reply, Script
from douane.middleware import Douane, relay
from tests.gateway import BOT_KEY, REAL_KEY, Gateway, Got, Wire, answering, request, running_gateway
from tests.service import Book, Service, running_service

EXAMPLES = int(os.environ.get("DOUANE_EXAMPLES", "150"))
OWN = {"id", "seq", "at", "prev", "hash",  # which record it is, and where in its log
       "latency_ms"}  # what was measured
POOR_KEY = "poor-" + "0123456789abcdef"
MAILS = ("ann.lee@example.com", "bob@example.org")


def policy_text(provider: LocalProvider, unknown: str) -> str:
    where = f'{{upstream: "{provider.url}", ca: "{provider.ca}"}}'
    return f"""version: 1
edge: {{unknown_operations: {unknown}}}
principals:
  - {{name: local, team: dev, cidr: [127.0.0.0/8, "::1/128"]}}
  - {{name: bot, team: bots, org: acme, key: env:BOT_KEY}}
  - {{name: poor, team: dev, key: env:POOR_KEY}}
providers: {{openai: {where}, anthropic: {where}}}
credentials: {{openai: env:REAL_KEY}}
chain:
  - authenticate: {{unknown: deny}}
  - allow_models: {{models: [gpt-4*, claude-*]}}
    when: call.operation != "unknown"
  - redact: {{entities: [EMAIL_ADDRESS]}}
  - budget: {{per: team, limit: 1000000 USD/day}}
  - budget: {{per: principal, limit: 0.000001 USD/day, book: poor}}
    when: principal.name == "poor"
  - swap_key: {{missing: keep}}
"""


# -- what is asked -----------------------------------------------------------------------------------------------------

texts = st.one_of(st.sampled_from(["", "hello", f"write to {MAILS[0]}", f"{MAILS[1]}, {MAILS[0]}!", f'"{MAILS[0]}"\\\n',
                                   "<EMAIL_ADDRESS_k3v7q2ma>", f"https://{MAILS[0]}/?q={MAILS[1]}"]), st.text(max_size=20))
openai_models = st.sampled_from(["gpt-4o-mini"] * 4 + ["gpt-4.1", "o1", "", "gpt-4-of-nobody"])
anthropic_models = st.sampled_from(["claude-sonnet-4-5"] * 4 + ["claude-of-nobody", "gpt-4o", "o1"])
schemas = st.builds(lambda text, name: {"type": "object", "description": text, "properties": {
    name: {"type": "string", "description": text}}}, texts, st.sampled_from(["to", MAILS[0]]))
arguments = st.one_of(texts, texts.map(lambda text: json.dumps({"to": text, text: [text, 1]})))
metadata = st.dictionaries(st.sampled_from(["k", MAILS[1]]), texts, max_size=2)

chat_messages = st.lists(st.one_of(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["system", "user", "assistant"]), texts),
    texts.map(lambda text: {"role": "user", "content": [{"type": "text", "text": text}], "name": "x"}),
    arguments.map(lambda text: {"role": "assistant", "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": text}}]}),
    texts.map(lambda text: {"role": "tool", "tool_call_id": "c", "content": text})), min_size=1, max_size=4)
chats = st.builds(lambda model, messages, stream, meta, tool, user: {
    "model": model, "messages": messages, "stream": stream, "metadata": meta, "user": user,
    "tools": [{"type": "function", "function": {"name": "f", "description": user, "parameters": tool}}],
    "tool_choice": "none" if len(user) % 2 else "auto"} | ({"stream_options": {"include_usage": True}} if stream else {}),
    openai_models, chat_messages, st.booleans(), metadata, schemas, texts)

items = st.lists(st.one_of(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["developer", "user"]), texts),
    texts.map(lambda text: {"role": "user", "content": [{"type": "input_text", "text": text}]}),
    arguments.map(lambda text: {"type": "function_call", "call_id": "c", "name": "f", "arguments": text}),
    texts.map(lambda text: {"type": "function_call_output", "call_id": "c", "output": text})), min_size=1, max_size=4)
responses = st.builds(lambda model, given, stream, meta, tool, text: {
    "model": model, "input": given, "stream": stream, "metadata": meta, "instructions": text,
    "tools": [{"type": "function", "name": "f", "description": text, "parameters": tool}],
    "tool_choice": "none" if len(text) % 2 else "auto"},
    openai_models, st.one_of(items, texts), st.booleans(), metadata, schemas, texts)

blocks = st.lists(st.one_of(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant"]), texts),
    st.builds(lambda text, name: {"role": "assistant", "content": [
        {"type": "tool_use", "id": "t", "name": "f", "input": {name: [text]}}]}, texts, st.sampled_from(["to", MAILS[1]])),
    texts.map(lambda text: {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": text}]}]})), min_size=1, max_size=4)
messages = st.builds(lambda model, asked, stream, tool, text, user: {
    "model": model, "messages": asked, "stream": stream, "max_tokens": 99, "system": text, "metadata": {"user_id": user},
    "tools": [{"name": "f", "description": text, "input_schema": tool}],
    "tool_choice": {"type": "none" if len(text) % 2 else "auto"}},
    anthropic_models, blocks, st.booleans(), schemas, st.one_of(texts, texts.map(lambda one: [{"type": "text", "text": one}])),
    texts)


@dataclass(frozen=True)
class Asked:
    provider: str
    path: str
    body: bytes
    """Before its coding."""


calls = st.one_of(
    chats.map(lambda one: Asked("openai", "/v1/chat/completions", json.dumps(one).encode())),
    responses.map(lambda one: Asked("openai", "/v1/responses", json.dumps(one, ensure_ascii=False).encode(errors="replace"))),
    messages.map(lambda one: Asked("anthropic", "/v1/messages", json.dumps(one).encode())))
twists = st.sampled_from([
    *[""] * 8, "short", b'{"model":"gpt-4o","model":"o1"}', b"[]", b'{"model":NaN}', b"", b'"\\ud800"', b"\xff\0",
    ("openai", "/v1/embeddings"), ("openai", "/v1/organization/users"), ("openai", "/v1/models"),
    ("openai", "/v1/chat/completions/../x"), ("anthropic", "/v1/messages/batches"),
    ("anthropic", "/v1/messages/count_tokens")])
"""What is done to a call: its body broken off, another body, another place."""


def twisted(one: Asked, twist: str | bytes | tuple[str, str]) -> Asked:
    if isinstance(twist, tuple):
        return replace(one, provider=twist[0], path=twist[1])
    if isinstance(twist, bytes):
        return replace(one, body=twist)
    return replace(one, body=one.body[:-3]) if twist else one


keys = st.sampled_from(["app-key"] * 6 + [BOT_KEY] * 4 + [POOR_KEY, ""])
codings = st.sampled_from([""] * 12 + ["gzip"] * 2 + ["gzip", "gzip-broken", "rot13"])
said_of_itself = st.sampled_from([[], [], [("x-douane-user", "u-1"), ("x-douane-tag-job", "nightly"), ("X-Request-Id", "r")]])
scripts = st.sampled_from(["own"] * 8 + ["echo", "keys", "429", "500", "html", "gone"])
cuts = st.sampled_from([None] * 8 + [20, 250, 280, 320, 400, 600, 1000, 1800])


def script_of(name: str, cut: int | None, before: Script) -> Script:
    """How the provider answers; *cut*: after so many bytes it breaks off."""
    def script(seen: Any) -> Reply:
        if name == "own":
            reply = before(replace(seen, number=1))  # it counts its ids
            assert isinstance(reply, Reply)
        elif name == "keys":
            shown = b"".join(value + b"\n" for _, value in seen.headers)
            reply = Reply(status=401, headers=[("x-shown", seen.header("authorization"))], body=shown)
        elif name == "echo":
            reply = Reply(headers=[("content-type", "application/json")], body=seen.body)
        else:
            plain = {"429": Reply(status=429, body=b'{"error":{"message":"slow down","code":"rate_limit_exceeded"}}'),
                     "500": Reply(status=500, body=b"oops"), "html": Reply(body=b"<html>no JSON</html>"),
                     "gone": Reply(cut_after=12)}
            reply = plain[name]
        return reply if cut is None else replace(reply, cut_after=cut)

    return script


# -- the doors ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Doors:
    gateway: Gateway
    book: Book
    """The gateway's."""
    service: Service


@pytest.fixture(scope="module", params=["deny", "allow"][:1 + (EXAMPLES > 150)])  # each start takes seconds
def doors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Doors]:
    """The gateway's process and a service, under one policy text and one key: placeholders are the same."""
    base, text = tmp_path_factory.mktemp(request.param), policy_text(provider, request.param)
    key = os.urandom(32)
    for name in ("gateway", "service"):
        (base / name / "data").mkdir(parents=True)
        os.close(os.open(base / name / "data" / "secret.key", os.O_CREAT | os.O_WRONLY, 0o600))
        (base / name / "data" / "secret.key").write_bytes(key)
    with ExitStack() as stack:
        gateway = stack.enter_context(running_gateway(base / "gateway", text, env={"POOR_KEY": POOR_KEY}))
        routes = {"/openai": "openai", "/anthropic": "anthropic"}
        app = Douane(Starlette(routes=[Mount("/", app=relay)]), policies=gateway.policy_file.parent,
                     data=base / "service" / "data", routes=routes)
        service = stack.enter_context(running_service(app, base / "service" / "data", {"POOR_KEY": POOR_KEY}))
        yield Doors(gateway, Book(gateway.data), service)


def answer_of(got: Got) -> tuple[Any, ...]:
    headers = sorted((name, "SECONDS" if name == "retry-after" else value) for name, value in got.headers
                     if name != "x-douane-id")
    return got.status, headers, got.body.replace(got.id.encode() or b"\0", b"ID"), got.whole


def records_of(book: Book, got: Got) -> list[dict[str, Any]]:
    found = book.of(got.id)
    assert found, got
    text = json.dumps(found).replace(got.id, "ID")
    return [{name: value for name, value in one.items() if name not in OWN} for one in json.loads(text)]


def sent(provider: LocalProvider, since: int) -> list[tuple[bytes, list[bytes], bytes]]:
    """Request line, sorted fields and body of each request that came."""
    lines = [(seen.head.strip().split(b"\r\n"), seen.body) for seen in provider.seen[since:]]
    return [(head[0], sorted(head[1:]), body) for head, body in lines]


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.large_base_example])
@given(whole=calls, twist=twists, coding=codings, key=keys, more=said_of_itself, script=scripts, cut=cuts, plain=st.booleans())
def test_the_same_exchange(doors: Doors, provider: LocalProvider, whole: Asked, twist: str | bytes | tuple[str, str],
                           coding: str, key: str, more: list[tuple[str, str]], script: str, cut: int | None,
                           plain: bool) -> None:
    """*plain*: whether the service is called at the provider's own path, where that is governed without a route."""
    one = twisted(whole, twist)
    headers = [("content-type", "application/json"), *more]
    if key:
        headers.append(("authorization", f"Bearer {key}") if one.provider == "openai" else ("x-api-key", key))
    if one.provider == "anthropic":
        headers.append(("anthropic-version", "2023-06-01"))
    body = one.body
    if coding:
        headers.append(("content-encoding", coding.removesuffix("-broken")))
        body = gzip.compress(body, mtime=0) if coding == "gzip" else body
    below = f"/{one.provider}{one.path}"
    at_home = plain and one.path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens")
    method = "GET" if one.path == "/v1/models" else "POST"
    seen: list[Any] = []
    waits: list[int] = []
    with answering(provider, script_of(script, cut, provider.script)):
        for wire, target, host, book in (
                (Wire.tls(doors.gateway, f"api.{one.provider}.com"), one.path, f"api.{one.provider}.com", doors.book),
                (Wire.to(doors.gateway.http), below, "127.0.0.1", doors.book),
                (Wire.to(doors.service.address), one.path if at_home else below, "my.service", doors.service.book)):
            since = len(provider.seen)
            with wire:
                wire.send(request(body, method=method, target=target, host=host, headers=headers))
                got = wire.answer()
            seen.append((answer_of(got), sent(provider, since), records_of(book, got)))
            waits.append(int(got.header("retry-after") or 0))
            assert REAL_KEY.encode() not in got.body
    event(f"{got.status} {got.code} {'whole' if got.whole else 'cut'}")
    assert seen[0] == seen[1]
    assert seen[1] == seen[2]
    assert max(waits) - min(waits) < 30, "the clock goes on from door to door"
