"""Providers of OpenAI's shape: their recorded traffic, and the official SDKs through a gateway."""

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from douane.call import Usage
from douane.demo.provider import Answer, LocalProvider, running_provider
from douane.demo.wire import Reply, Seen
from douane.providers.base import Wire
from douane.providers.framing import SSE, framing_of
from douane.providers.shaped import MISTRAL, shaped
from douane.providers.table import builtin
from tests import wire
from tests.families import (
    PLACEHOLDER,
    VALUE,
    gateway_for,
    identity_and_one_change,
    leaves,
    operation_of,
    planted,
    recorded,
    restored_however_cut,
    walked,
)
from tests.gateway import Gateway

NAMES = ("mistral", "groq", "openrouter", "huggingface", "xai", "deepseek", "together", "cerebras", "zai", "crusoe", "heroku",
         "snowflake", "writer", "voyage", "replicate", "watsonx")
TABLE = {one.name: one for one in shaped()}
OPAQUE = ("type", "role", "model", "id", "tool_call_id", "call_id", "encoding_format", "effort", "verbosity",
          "reasoning_effort", "include", "modalities", "service_tier", "model_id", "project_id", "format", "detail",
          "truncation", "status", "url",
          "encrypted_content", "phase", "summary", "previous_response_id", "data", "ttl",
          "search_context_size", "media_type", "mode")


def test_every_record_has_its_label_and_none_is_claimed_that_is_not_ours() -> None:
    seen = 0
    for record in wire.records(*NAMES):
        if record["operation"].startswith("grpc"):
            continue
        found = {**record, "request": {**record["request"], "method": record["request"]["method"].upper(),
                                       "url": record["request"]["url"].replace(":443/", "/")}}
        name, row = operation_of(found)
        assert row is not None, record["request"]["url"]
        assert (name, row.name) == (record["provider"], record["operation"])
        seen += 1
    assert seen > 140
    for record in wire.records("none"):
        assert operation_of(record) == ("", None)


@pytest.mark.parametrize(("name", "method", "path"), [
    ("mistral", "POST", "/v1/chat/completions/"), ("groq", "POST", "/v1/chat/completions"),
    ("deepseek", "POST", "/v2/chat/completions"),
    ("huggingface", "POST", "/a/b/v1/chat/completions"), ("snowflake", "POST", "/queries/v1/query-request"), ("replicate",
    "GET", "/v1/account"), ("watsonx", "POST", "/ml/v4/deployments"),
    ("openrouter", "GET", "/api/v1/keys"), ("mistral", "GET", "/v1/organization/users")])
def test_paths_no_row_matches(name: str, method: str, path: str) -> None:
    assert TABLE[name].operation(method, path) is None


def test_the_walk_misses_no_text_and_a_rewrite_changes_one_string() -> None:
    seen = texts = 0
    for record, spoken in recorded(*NAMES):
        body = record["request"]["body"].encode()
        try:
            document = json.loads(body)
        except ValueError:
            continue  # one record of Writer's is no JSON
        if not re.search(";base64,|\"signature\"", record["request"]["body"]):
            texts += walked(spoken.walk(document), document, OPAQUE)
        if seen < 60:
            identity_and_one_change(spoken, body)
        seen += 1
    assert seen > 130
    assert texts > 450


def told(usage: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Input, output, cached, as the reply says them."""
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    cached = details.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or 0
    given = usage.get("prompt_tokens", usage.get("input_tokens", usage.get("total_tokens")))
    return given, usage.get("completion_tokens", usage.get("output_tokens")) or 0, cached


def last_usage(body: bytes, *, stream: bool) -> tuple[dict[str, Any], float | None]:
    documents = [json.loads(line[5:]) for line in body.splitlines() if line.startswith(b"data:") and b"[DONE]" not in line] \
        if stream else [json.loads(body)]
    usage: dict[str, Any] = {}
    for one in documents:
        inner = one.get("response") if isinstance(one.get("response"), dict) else one
        groq = (one.get("x_groq") or {}).get("usage")
        usage = inner.get("usage") or groq or usage
    return usage, usage.get("cost")


def test_usage_is_what_the_reply_says() -> None:
    seen = priced = 0
    for record in wire.records(*NAMES):
        row = operation_of(record)[1]
        if row is None or row.wire is None or record["response"]["status"] >= 300 or record["operation"] == "other":
            continue
        body, stream = wire.answer(record), bool(record["stream"])
        if not stream and not body.startswith(b"{"):
            continue
        meter = row.wire.meter(SSE if stream else None, ())
        for at in range(0, len(body), 777):
            meter.feed(body[at:at + 777])
        reading = meter.reading()
        usage, cost = last_usage(body, stream=stream)
        if not usage:
            assert reading.usage is None
            continue
        assert reading.usage is not None, record["source"]
        assert (reading.usage.input, reading.usage.output, reading.usage.cached_input) == told(usage), record["source"]
        assert reading.cost_usd == (None if usage.get("is_byok") else cost)
        seen += 1
        priced += cost is not None
    assert seen > 120
    assert priced > 20


def test_what_others_tell_in_other_ways() -> None:
    def read(name: str, method: str, path: str, body: bytes, *, stream: bool = False) -> Usage | None:
        row = TABLE[name].operation(method, path)
        assert row is not None
        assert row.wire is not None
        meter = row.wire.meter(SSE if stream else None, ())
        meter.feed(body)
        return meter.reading().usage

    assert read("voyage", "POST", "/v1/embeddings", b'{"usage": {"total_tokens": 9}}') == Usage(9)
    assert read("mistral", "POST", "/v1/ocr", b'{"usage_info": {"pages_processed": 3}, "pages": []}') == Usage(pages=3)
    parts = b"".join(b"data: %b\n\n" % json.dumps({"results": [one]}).encode() for one in (
        {"generated_text": "a", "input_token_count": 8, "generated_token_count": 1, "stop_reason": "not_finished"},
        {"generated_text": "b", "input_token_count": 0, "generated_token_count": 2, "stop_reason": "eos_token"}))
    assert read("watsonx", "POST", "/ml/v1/text/generation_stream", parts, stream=True) == Usage(8, 2)


# -- streams -----------------------------------------------------------------------------------------------------------


def frames(stream: bytes) -> list[Any]:
    return [json.loads(line[5:]) for line in stream.splitlines() if line.startswith(b"data:") and b"[DONE]" not in line]


def said(stream: bytes) -> str:
    """The text of an answer, put together without the code under test."""
    out = ""
    for one in frames(stream):
        for choice in one.get("choices", ()):
            content = (choice.get("delta") or {}).get("content")
            out += content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())
        out += one.get("value", "") + "".join(result["generated_text"] for result in one.get("results", ()))
    return out


def made(name: str, texts: list[str]) -> bytes:
    def event(text: str) -> dict[str, Any]:
        if name == "mistral":
            return {"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": text}]}}]}
        if name == "writer":
            return {"value": text}
        if name == "watsonx":
            return {"results": [{"generated_text": text, "stop_reason": "not_finished"}]}
        return {"choices": [{"index": 0, "delta": {"content": text}}]}
    head = b": PROCESSING\n\nid: 1\nevent: message\ndata: "
    return b"".join(b"%b%b\n\n" % (head, json.dumps(event(text)).encode()) for text in texts) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(("name", "path"), [
    ("openrouter", "/api/v1/chat/completions"), ("mistral", "/v1/chat/completions"), ("mistral", "/v1/fim/completions"),
    ("writer", "/v1/completions"), ("watsonx", "/ml/v1/text/generation_stream")])
def test_streams_give_the_same_text_however_they_are_cut(name: str, path: str) -> None:
    row = TABLE[name].operation("POST", path)
    assert row is not None
    assert row.wire is not None
    texts = planted(["", "", "", "", "", ""], random.Random(5))
    restored_however_cut(row.wire, made(name, texts), b"text/event-stream", said, f"{VALUE}  {VALUE}<EM")


def test_recorded_streams_give_their_values_back_and_are_put_together() -> None:
    seen = 0
    for record in wire.records(*NAMES):
        row = operation_of(record)[1]
        if not record["stream"] or row is None or row.wire is None or row.name not in ("chat", "completions", "other"):
            continue
        spoken: Wire = row.wire
        stream = wire.answer(record)
        marked = _marked(stream)
        if marked is None:
            continue
        restored_however_cut(spoken, marked, b"text/event-stream", said, said(marked).replace(PLACEHOLDER, VALUE))
        whole = spoken.assembled(stream, SSE)
        assert whole is not None
        assert said(stream) in {text for _, text in leaves(whole)}
        assert not whole.get("events")
        seen += 1
    assert seen > 12


def _marked(stream: bytes) -> bytes | None:
    """*stream* with a placeholder cut over its first two pieces of text."""
    halves = iter((PLACEHOLDER[:9], PLACEHOLDER[9:]))
    out, put = [], 0
    for line in stream.split(b"\n"):
        if line.startswith(b"data:") and b"[DONE]" not in line and put < 2:
            document = json.loads(line[5:])
            choice, result = (next(iter(document.get(name) or [{}])) for name in ("choices", "results"))
            for holder, member in ((choice.get("delta") or {}, "content"), (document, "value"), (result, "generated_text")):
                if put < 2 and isinstance(holder.get(member), str) and holder[member]:
                    holder[member] = next(halves) if put else f"{holder[member]} {next(halves)}"
                    put += 1
            line = b"data: " + json.dumps(document).encode()  # noqa: PLW2901 - the line as it is then
        out.append(line)
    return b"\n".join(out) if put == 2 else None


def test_framing_and_media_of_every_wire() -> None:
    assert framing_of(b"text/event-stream; charset=utf-8") is SSE
    for provider in builtin().values():
        assert all(row.wire is None or row.wire.media for row in provider.operations)


# -- the SDKs through a gateway ----------------------------------------------------------------------------------------

ANSWER = {"id": "c1", "object": "chat.completion", "created": 1, "model": "good", "choices": [
    {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12, "cost": 0.25}}


def script(seen: Seen) -> Answer:
    if json.loads(seen.body).get("stream"):
        def chunk(delta: dict[str, Any], **more: Any) -> bytes:
            document = {**ANSWER, "object": "chat.completion.chunk", "usage": None,
                        "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}
            return b"data: %b\n\n" % json.dumps(document).encode()
        body = chunk({"role": "assistant", "content": "Hel"}) + chunk({"content": "lo"}) \
            + chunk({}, choices=[], usage=ANSWER["usage"]) + b"data: [DONE]\n\n"
        return Reply(headers=(("content-type", "text/event-stream"),), body=body)
    return Reply(headers=(("content-type", "application/json"),), body=json.dumps(ANSWER).encode())


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider"), script=script) as one:
        yield one


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    more = f'  openrouter: {{upstream: "{provider.url}", ca: "{provider.ca}"}}'
    first = f'mistral: {{upstream: "{provider.url}", ca: "{provider.ca}"}}'
    with gateway_for(tmp_path_factory.mktemp("gateway"), provider, f"{first}\n{more}\n  groq") as one:
        yield one


@pytest.fixture
def mistral(gateway: Gateway) -> Iterator[Mistral]:
    with httpx.Client() as connections:
        yield Mistral(api_key="app-key", server_url="http://{}:{}/mistral".format(*gateway.http), client=connections)  # type: ignore[arg-type]


def test_mistral_plain_and_streamed(mistral: Mistral, gateway: Gateway) -> None:
    asked: Any = [{"role": "user", "content": "hi"}]
    assert mistral.chat.complete(model="good", messages=asked).choices[0].message.content == "Hello"  # type: ignore[union-attr]
    text = "".join(str(event.data.choices[0].delta.content) for event in mistral.chat.stream(model="good", messages=asked)
                   if event.data.choices)
    assert text == "Hello"
    last = gateway.last_outcome()
    assert (last["provider"], last["operation"], last["usage"]["input"], last["usage"]["output"]) == ("mistral", "chat", 7, 5)


@pytest.mark.parametrize(("model", "status", "code"), [
    ("bad", 403, "model_not_allowed"), ("costly", 429, "insufficient_quota")])
def test_mistral_raises_its_own_after_one_attempt(mistral: Mistral, provider: LocalProvider, gateway: Gateway, model: str,
                                                  status: int, code: str) -> None:
    before, calls = len(provider.seen), gateway.metric("douane_calls_total")
    with pytest.raises(SDKError) as caught:
        mistral.chat.complete(model=model, messages=[{"role": "user", "content": "hi"}])  # type: ignore[arg-type]
    assert caught.value.status_code == status
    said = json.loads(caught.value.body)
    assert (said["object"], said["code"], bool(said["message"])) == ("error", code, True)
    assert len(provider.seen) == before
    assert gateway.metric("douane_calls_total") == calls + 1


def test_openrouter_names_its_own_price(gateway: Gateway) -> None:
    with openai.OpenAI(api_key="app-key", base_url="http://{}:{}/openrouter/api/v1".format(*gateway.http)) as client:
        assert client.chat.completions.create(model="good", messages=[{"role": "user", "content": "hi"}]).id == "c1"
        assert gateway.last_outcome()["cost_usd"] == 0.25
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="bad", messages=[{"role": "user", "content": "hi"}])


def test_an_error_in_a_stream() -> None:
    event = MISTRAL.error_event("chat", "policy_error", "why", "c1", SSE)
    assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "policy_error"


def test_grpc_is_known_and_refused() -> None:
    row = TABLE["xai"].operation("POST", "/xai_api.Chat/GetCompletion")
    assert row is not None
    assert "gRPC is not read" in row.refused
    assert row.wire is None
