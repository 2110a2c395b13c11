"""One law behind every door of the gateway: the same exchange through the proxy (CONNECT, TLS) and the reverse proxy gets the
same verdict, the same bytes upstream, the same answer and the same record.

What may differ upstream: the connection. In an answer: ``x-douane-id``. In a record: what tells one call from another
(``id``, ``seq``, ``at``, ``prev``, ``hash``) and what was measured (``latency_ms``). ``DOUANE_EXAMPLES``: how many (150).
"""

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from douane.demo.provider import LocalProvider, Reply, Script, running_provider
from tests.gateway import BOT_KEY, Gateway, Got, Wire, answering, policy, request, running_gateway

EXAMPLES = int(os.environ.get("DOUANE_EXAMPLES", "150"))
OWN = {"id", "seq", "at", "prev", "hash", "latency_ms"}
"""Of a record: which call it was and how long it took."""
PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/organization/users", "/v1/chat/completions/../x",
         "/v1/")

models = st.sampled_from(["gpt-4o-mini", "gpt-4.1", "o1", "", "claude-x"])
texts = st.text(max_size=40)
asked = st.builds(lambda model, text, stream: json.dumps(
    {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}], "input": text}).encode(),
    models, texts, st.booleans())
broken = st.one_of(asked.map(lambda body: body[:-3]), st.just(b'{"model":"gpt-4o","model":"o1"}'), st.just(b"[]"),
                   st.binary(max_size=30), st.just(b'{"model":NaN}'), st.just(b""))
bodies = st.one_of(asked, asked, broken)
codings = st.sampled_from(["", "", "", "gzip", "gzip-broken", "rot13"])
keys = st.sampled_from(["app-key", BOT_KEY, ""])
scripts = st.sampled_from(["own", "own", "echo", "429", "500", "html"])


def script_of(name: str, before: Script) -> Script:
    """How the provider answers."""
    if name == "own":
        return lambda seen: before(replace(seen, number=1))  # it counts its ids
    plain: dict[str, tuple[int, bytes]] = {"429": (429, b'{"error":{"message":"slow down","code":"rate_limit_exceeded"}}'),
                                           "500": (500, b"oops"), "html": (200, b"<html>no JSON</html>")}
    if name == "echo":
        return lambda seen: Reply(body=seen.body)
    return lambda seen: Reply(status=plain[name][0], body=plain[name][1])


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as one:
        yield one


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), policy(provider)) as one:
        yield one


def answer_of(got: Got) -> tuple[Any, ...]:
    headers = sorted((name, value) for name, value in got.headers if name != "x-douane-id")
    return got.status, headers, got.body.replace(got.id.encode() or b"\0", b"ID"), got.whole


def record_of(gateway: Gateway, got: Got) -> list[dict[str, Any]]:
    assert gateway.outcome(got.id)
    return [{name: value for name, value in one.items() if name not in OWN}
            for one in gateway.records() if one.get("id") == got.id]


def sent(provider: LocalProvider, since: int) -> list[tuple[bytes, list[bytes], bytes]]:
    """Request line, sorted fields and body of each request that came."""
    lines = [(seen.head.strip().split(b"\r\n"), seen.body) for seen in provider.seen[since:]]
    return [(head[0], sorted(head[1:]), body) for head, body in lines]


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), body=bodies, coding=codings, key=keys, script=scripts)
def test_the_same_exchange(gateway: Gateway, provider: LocalProvider, path: str, body: bytes, coding: str, key: str,
                           script: str) -> None:
    headers = [("content-type", "application/json"), *([("authorization", f"Bearer {key}")] if key else [])]
    if coding:
        headers.append(("content-encoding", coding.removesuffix("-broken")))
        body = gzip.compress(body, mtime=0) if coding == "gzip" else body
    seen: list[Any] = []
    with answering(provider, script_of(script, provider.script)):
        for door in ("proxy", "reverse"):
            since = len(provider.seen)
            if door == "proxy":
                wire, target, host = Wire.tls(gateway), path, "api.openai.com"
            else:
                wire, target, host = Wire.to(gateway.http), f"/openai{path}", "{}:{}".format(*gateway.http)
            with wire:
                wire.send(request(body, target=target, host=host, headers=headers))
                got = wire.answer()
            seen.append((answer_of(got), sent(provider, since), record_of(gateway, got)))
    assert seen[0] == seen[1]
