"""Azure: recorded traffic, its spellings of paths, content filters, and the official SDKs through a gateway's proxy."""

import json
import random
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from douane.call import Usage
from douane.demo.provider import Answer, LocalProvider, running_provider
from douane.demo.wire import Reply, Seen
from douane.providers.azure import azure as table
from douane.providers.framing import SSE
from tests import wire
from tests.families import (
    PLACEHOLDER,
    VALUE,
    gateway_for,
    identity_and_one_change,
    operation_of,
    planted,
    recorded,
    restored_however_cut,
    trusting,
    walked,
)
from tests.gateway import Gateway

OPAQUE = ("type", "role", "model", "id", "object", "encoding_format", "reasoning_effort", "include", "finish_reason",
          "severity", "system_fingerprint", "service_tier")


def test_every_record_has_its_label() -> None:
    for record in wire.records("azure"):
        name, row = operation_of(record)
        assert row is not None
        assert (name, row.name) == ("azure", record["operation"])


def test_the_model_is_the_deployment() -> None:
    for record in wire.records("azure"):
        row = operation_of(record)[1]
        path = wire.url(record).path
        assert row is not None
        deployed = path.partition("/deployments/")[2].partition("/")[0]
        assert row.model_of(path, wire.asked(record)) == (deployed or wire.asked(record)["model"])


def test_every_text_is_walked_and_can_be_rewritten_alone() -> None:
    seen = 0
    for record, spoken in recorded("azure"):
        document = wire.asked(record)
        seen += walked(spoken.walk(document), document, OPAQUE)
        identity_and_one_change(spoken, record["request"]["body"].encode())
        if not record["stream"] and record["operation"] == "chat":
            answer = json.loads(wire.answer(record))
            walked(spoken.answered(answer), answer, OPAQUE)
            assert not [one for one in spoken.answered(answer) if "content_filter_results" in one.path]
    assert seen > 15


def events_of(body: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: {")]


def test_usage_is_what_the_reply_says_and_the_model_its_own() -> None:
    seen = 0
    for record, spoken in recorded("azure"):
        body = wire.answer(record)
        meter = spoken.meter(SSE if record["stream"] else None, ())
        for at in range(0, len(body), 500):
            meter.feed(body[at:at + 500])
        documents = events_of(body) if record["stream"] else [json.loads(body)]
        told = next((one["usage"] for one in reversed(documents) if one.get("usage")), None)
        got = meter.reading()
        if told is None:
            assert got.usage is None
            continue
        assert isinstance(got.usage, Usage)
        assert got.usage.input == told.get("prompt_tokens", told.get("input_tokens"))
        assert got.usage.output == told.get("completion_tokens", told.get("output_tokens", 0))
        assert got.model == next(one["model"] for one in reversed(documents) if one.get("model"))
        seen += 1
    assert seen > 9


def test_streams_give_values_back_and_are_put_together() -> None:
    seen = 0
    for record, spoken in recorded("azure"):
        if not record["stream"]:
            continue
        events = events_of(wire.answer(record))
        assert events[0]["choices"] == []
        assert events[0]["prompt_filter_results"]
        pieces = [one["choices"][0]["delta"] for one in events if text_of([one])]
        new = planted([one["content"] for one in pieces], random.Random(6))
        for one, piece in zip(pieces, new, strict=True):
            one["content"] = piece
        stream = b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in events) + b"data: [DONE]\n\n"
        wanted = "".join(new).replace(PLACEHOLDER, VALUE)
        restored_however_cut(spoken, stream, b"text/event-stream", lambda body: text_of(events_of(body)), wanted)
        whole = spoken.assembled(wire.answer(record), SSE)
        assert whole is not None
        assert whole["choices"][0]["message"]["content"] == text_of(events_of(wire.answer(record)))
        assert whole["prompt_filter_results"] == events[0]["prompt_filter_results"]
        assert whole["model"] == events[1]["model"]
        seen += 1
    assert seen == 2


def text_of(events: list[Any]) -> str:
    return "".join(choice.get("delta", {}).get("content") or "" for one in events for choice in one["choices"])


@pytest.mark.parametrize(("path", "name", "model"), [
    ("/openai/deployments/gpt-4o/chat/completions", "chat", "gpt-4o"),
    ("//openai/deployments/gpt-4o/chat/completions", "chat", "gpt-4o"),
    ("/openai/deployments/a.b_c-1/embeddings", "embeddings", "a.b_c-1"),
    ("/openai/deployments/x/completions", "completions", "x"), ("/openai/deployments/x/images/generations", "images", "x"),
    ("/openai/deployments/x/audio/transcriptions", "audio", "x"), ("/openai/v1/chat/completions", "chat", "said"),
    ("/openai/v1/responses", "responses", "said"), ("/openai/responses", "responses", "said"),
    ("/openai/v1/embeddings", "embeddings", "said"), ("/anthropic/v1/messages", "messages", "said"),
    ("/models/chat/completions", "chat", "said"), ("/api/projects/my-project/openai/v1/responses", "responses", "said")])
def test_paths(path: str, name: str, model: str) -> None:
    row = table().operation("POST", path)
    assert row is not None
    assert row.name == name
    if name not in ("audio", "images"):
        assert row.model_of(path, {"model": "said"}) == model


@pytest.mark.parametrize("path", [
    "///openai/deployments/x/chat/completions", "/openai//deployments/x/chat/completions",
    "/openai/deployments/x//chat/completions", "/openai/deployments//chat/completions",
    "/openai/deployments/../chat/completions", "/openai/deployments/x%2fy/chat/completions",
    "/OpenAI/deployments/x/chat/completions", "/openai/deployments/x/chat/completions/", "/openai/deployments/x/responses",
    "/openai/deployments/.x/chat/completions", "/deployments/x/chat/completions", "/v1/chat/completions", "/speech/recognition",
    "/openai/deployments/x/extensions/chat/completions"])
def test_paths_no_row_matches(path: str) -> None:
    assert table().operation("POST", path) is None


# -- the SDKs through a gateway's proxy --------------------------------------------------------------------------------

FILTERS = {"hate": {"filtered": False, "severity": "safe"}}
CHUNK = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-11-20"}
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def script(seen: Seen) -> Answer:
    asked = json.loads(seen.body)
    if "/anthropic/" in seen.target:
        return _json({"id": "m", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "end_turn",
                      "content": [{"type": "text", "text": "Hello"}], "usage": {"input_tokens": 7, "output_tokens": 5}})
    if asked.get("stream"):
        said = {"index": 0, "finish_reason": None, "content_filter_results": FILTERS}
        chunks = [CHUNK | {"model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
                  *(CHUNK | {"choices": [said | {"delta": {"content": one}}]} for one in ("Hel", "lo")),
                  CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
                  CHUNK | {"choices": [], "usage": USAGE}]
        body = b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in chunks) + b"data: [DONE]\n\n"
        return Reply(headers=(("content-type", "text/event-stream"),), body=body)
    message = {"role": "assistant", "content": "Hello"}
    return _json({"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024-11-20", "usage": USAGE,
                  "choices": [{"index": 0, "finish_reason": "stop", "message": message, "content_filter_results": FILTERS}]})


def _json(document: Any) -> Reply:
    return Reply(headers=(("content-type", "application/json"),), body=json.dumps(document).encode())


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider"), script=script) as one:
        yield one


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    with gateway_for(tmp_path_factory.mktemp("gateway"), provider, "azure") as one:
        yield one


@pytest.fixture
def proxied(gateway: Gateway) -> Iterator[httpx2.Client]:
    with trusting(gateway) as one:
        yield one


@pytest.fixture
def client(proxied: httpx2.Client) -> openai.AzureOpenAI:
    return openai.AzureOpenAI(azure_endpoint="https://acme.openai.azure.com", api_key="app-key", api_version="2024-10-21",
                              http_client=proxied)


ASKED: Any = [{"role": "user", "content": "hi"}]


def test_the_sdk_plain_and_streamed(client: openai.AzureOpenAI, gateway: Gateway, provider: LocalProvider) -> None:
    assert client.chat.completions.create(model="good", messages=ASKED).choices[0].message.content == "Hello"
    assert provider.seen[-1].target == "/openai/deployments/good/chat/completions?api-version=2024-10-21"
    assert provider.seen[-1].header("api-key") == "app-key"
    stream = client.chat.completions.create(model="good", messages=ASKED, stream=True, stream_options={"include_usage": True})
    assert "".join(one.choices[0].delta.content or "" for one in stream if one.choices) == "Hello"
    last = gateway.last_outcome()
    assert (last["provider"], last["operation"]) == ("azure", "chat")
    assert (last["usage"]["input"], last["usage"]["output"]) == (7, 5)


@pytest.mark.parametrize(("model", "error"), [("bad", openai.PermissionDeniedError), ("costly", openai.RateLimitError)])
def test_the_sdk_raises_its_own_error_after_one_attempt(client: openai.AzureOpenAI, provider: LocalProvider, gateway: Gateway,
                                                        model: str, error: type[openai.APIStatusError]) -> None:
    before, calls = len(provider.seen), gateway.metric("douane_calls_total")
    for stream in (False, True):
        with pytest.raises(error):
            client.chat.completions.create(model=model, messages=ASKED, stream=stream)
    assert len(provider.seen) == before
    assert gateway.metric("douane_calls_total") == calls + 2


def test_the_model_in_the_body_says_nothing(client: openai.AzureOpenAI, provider: LocalProvider) -> None:
    before = len(provider.seen)
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="bad", messages=ASKED, extra_body={"model": "good"})
    assert len(provider.seen) == before


def test_claude_on_foundry_says_no_as_claude_does(proxied: httpx2.Client, gateway: Gateway) -> None:
    base = "https://acme.services.ai.azure.com/anthropic"
    client = anthropic.Anthropic(base_url=base, api_key="app-key", http_client=proxied)
    answer = client.messages.create(model="good", max_tokens=9, messages=ASKED)
    assert answer.content[0].text == "Hello"  # type: ignore[union-attr]
    assert gateway.last_outcome()["operation"] == "messages"
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        client.messages.create(model="bad", max_tokens=9, messages=ASKED)
    assert caught.value.body["error"]["type"] == "permission_error"  # type: ignore[index]
