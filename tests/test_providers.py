"""What a call is, what it used, and how a denial reaches the official SDKs."""

import http.server
import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import anthropic
import openai
import pytest
from genai_prices.data import providers as their_providers

from douane.call import Usage
from douane.errors import DENIALS
from douane.providers.anthropic import ANTHROPIC, COUNT_TOKENS, MESSAGES
from douane.providers.base import Reading
from douane.providers.framing import SSE
from douane.providers.hosts import UNPARSED_AI_HOSTS, unparsed
from douane.providers.meters import ANSWER_LIMIT, JsonMeter, StreamMeter
from douane.providers.openai import CHAT, OPENAI, RESPONSES, openai_shaped
from douane.providers.table import builtin
from douane.providers.wires import JsonWire
from tests import wire

TABLE = builtin()
BY_HOST = {host: provider for provider in TABLE.values() for host in provider.hosts}
KNOWN = {"openai": {"chat", "responses", "models"}, "anthropic": {"messages", "count_tokens", "models"}}
WIRES = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES}

# -- recognise ---------------------------------------------------------------------------------------------------------


def test_every_record_gets_its_label_or_none() -> None:
    seen = 0
    for record in wire.records("openai", "anthropic"):
        where = wire.url(record)
        provider = BY_HOST[where.netloc]
        row = provider.operation(record["request"]["method"], where.path)
        assert provider.name == record["provider"]
        if row is not None:
            assert row.name == record["operation"]
            seen += 1
        else:
            assert record["operation"] not in KNOWN[provider.name] or where.path in (
                "/v1/responses/compact", "/v1/responses/input_tokens")
    assert seen > 800


def test_hosts_of_every_record() -> None:
    """What is no AI provider is not claimed; every provider's host is governed or named as not read yet."""
    shared = re.compile(r"localhost:\d+|127\.0\.0\.1:\d+|.*\.snowflakecomputing\.com")
    for record in wire.records():
        host = wire.url(record).netloc.removesuffix(":443")
        if record["provider"] == "none":
            assert host not in BY_HOST
            assert unparsed(host) is None, host
        elif not shared.fullmatch(host):
            assert host in BY_HOST or unparsed(host), host


@pytest.mark.parametrize("host", [
    "chatgpt.com", "ab.chatgpt.com", "api.githubcopilot.com", "api.individual.githubcopilot.com", "x.openai.azure.com",
    "jp.api.openai.com", "bedrock-runtime.eu-central-1.amazonaws.com", "bedrock-runtime-fips.us-west-2.amazonaws.com",
    "vpce-1-a.bedrock-runtime.us-east-1.vpce.amazonaws.com", "api.deepinfra.com:443",
    "mars-north1-aiplatform.googleapis.com"])
def test_known_ai_hosts_that_are_not_read(host: str) -> None:
    assert unparsed(host)


@pytest.mark.parametrize("host", [
    "example.com", "openai.com", "auth.openai.com", "api.openai.com.evil.example", "s3.us-east-1.amazonaws.com",
    "evilchatgpt.com", "azure.com", "storage.googleapis.com", "huggingface.co", "github.com", "", "api.anthropic.com"])
def test_ordinary_hosts(host: str) -> None:
    assert unparsed(host) is None


def test_hosts_are_canonical_and_in_one_place() -> None:
    assert not set(UNPARSED_AI_HOSTS) & set(BY_HOST)
    assert all(re.fullmatch(r"[a-z0-9.-]+", host) for host in UNPARSED_AI_HOSTS)


@pytest.mark.parametrize(("method", "path"), [
    ("PUT", "/v1/chat/completions"), ("POST", "/v1/chat/completions/"), ("POST", "//v1/chat/completions"),
    ("POST", "/v1/Chat/completions"), ("POST", "/v1/chat%2Fcompletions"), ("POST", "/v1/models"),
    ("HEAD", "/v1/models"), ("DELETE", "/v1/models/x"), ("GET", "/v1/models/../files"), ("GET", "/v1/models/.."),
    ("GET", "/v1/models/%2e%2e/files"), ("GET", "/v1/models/a/../files"), ("POST", "/v1/chat/completions\n"),
    ("GET", "/v1/organization/users"),
    ("GET", "/v1/responses/resp_1/x")])
def test_paths_no_row_matches(method: str, path: str) -> None:
    assert TABLE["openai"].operation(method, path) is None


def test_a_provider_of_openai_shape_is_a_line() -> None:
    groq = openai_shaped("groq", ("api.groq.com",), root="/openai/v1", prices="groq")
    row = groq.operation("POST", "/openai/v1/chat/completions")
    assert row is not None
    assert row.name == "chat"
    assert groq.operation("POST", "/v1/chat/completions") is groq.operation("POST", "/openai/v1/responses") is None


# -- usage -------------------------------------------------------------------------------------------------------------


def reading(spoken: JsonWire, body: bytes, *, stream: bool, cuts: tuple[int, ...] = ()) -> Reading:
    meter = spoken.meter(SSE if stream else None, ())
    for start, end in pairwise([0, *sorted(cuts), len(body)]):
        meter.feed(body[start:end])
    return meter.reading()


def assembled(operation: str, body: bytes, *, stream: bool) -> Any:
    """The final object of an answer, put together without the code under test."""
    if not stream:
        try:
            return json.loads(body)
        except ValueError:
            return {}
    final: dict[str, Any] = {}
    for line in body.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
            event = json.loads(line[5:])
            if operation == "responses":
                final = event.get("response") or final
            elif operation == "chat":
                final = {**final, **{key: event[key] for key in ("model", "usage") if event.get(key)}}
            elif event["type"] == "message_start":
                final = event["message"]
            elif event["type"] == "message_delta":
                final["usage"].update({key: value for key, value in event["usage"].items() if value is not None})
    return final


def expected(operation: str, final: Any) -> tuple[str | None, dict[str, int]] | None:
    id_ = "anthropic" if operation == "messages" else "openai"
    provider = next(provider for provider in their_providers if provider.id == id_)
    try:
        model, usage = provider.extract_usage(final, api_flavor="default" if operation == "messages" else operation)
    except ValueError:
        return None
    return model, {key: int(value) for key, value in usage._reported_values().items()}


def test_usage_of_every_record_equals_an_independent_reading() -> None:
    chance = random.Random(11)
    seen = {True: 0, False: 0}
    for record in wire.records("openai", "anthropic"):
        operation, stream = record["operation"], bool(record.get("stream"))
        row = BY_HOST[wire.url(record).netloc].operation(record["request"]["method"], wire.url(record).path)
        if row is None or operation not in WIRES:
            continue
        body = wire.answer(record)
        found = reading(WIRES[operation], body, stream=stream)
        cuts = tuple(chance.randrange(len(body) + 1) for _ in range(12))
        assert reading(WIRES[operation], body, stream=stream, cuts=cuts) == found
        theirs = expected(operation, assembled(operation, body, stream=stream))
        if theirs is None:
            assert found.usage is None, record["source"]
            continue
        model, counts = theirs
        usage = found.usage
        assert usage is not None, record["source"]
        assert (found.model, found.partial) == (model or "", False)
        searches = counts.get("web_searches", 0) if operation == "messages" else usage.web_searches
        assert usage == Usage(
            counts["input_tokens"], counts["output_tokens"], cached_input=counts.get("cache_read_tokens", 0),
            cache_write=counts.get("cache_write_tokens", 0), cache_write_1h=counts.get("cache_write_1h_tokens", 0),
            reasoning=counts.get("output_reasoning_tokens", 0), web_searches=searches,
            input_audio=counts.get("input_audio_tokens", 0),
            output_audio=counts.get("output_audio_tokens", 0)), record["source"]
        seen[stream] += 1
    assert seen[False] > 550
    assert seen[True] > 120


def test_the_end_of_a_stream_is_seen_with_its_last_event_and_not_before() -> None:
    seen = 0
    for record in wire.records("openai", "anthropic"):
        if record["operation"] not in WIRES or not record.get("stream") or record["response"]["status"] != 200:
            continue
        if record["request"]["method"] != "POST":
            continue
        body = wire.answer(record).rstrip() + b"\n\n"
        blocks = [block + b"\n\n" for block in body.replace(b"\r\n", b"\n").split(b"\n\n") if block]
        meter = WIRES[record["operation"]].meter(SSE, ())
        for block in blocks[:-1]:
            meter.feed(block)
        ended = [meter.ended]
        for part in (blocks[-1][:-1], blocks[-1][-1:]):
            meter.feed(part)
            ended.append(meter.ended)
        assert ended == [False, False, True], record["source"]
        seen += 1
    assert seen > 100


def test_a_cut_messages_stream_says_that_its_usage_is_partial() -> None:
    start = (b'event: message_start\ndata: {"type":"message_start","message":{"model":"claude-x","usage":'
             b'{"input_tokens":5,"cache_read_input_tokens":7,"output_tokens":1}}}\n\n')
    delta = b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":40,"input_tokens":null}}\n\n'
    assert reading(MESSAGES, start, stream=True) == Reading(Usage(12, 1, cached_input=7), "claude-x", partial=True)
    assert reading(MESSAGES, start + delta, stream=True) == Reading(Usage(12, 40, cached_input=7), "claude-x")


@pytest.mark.parametrize("usage", [
    '{"prompt_tokens": "5", "completion_tokens": 1}', '{"prompt_tokens": -5}', '{"prompt_tokens": true}', "{}", "[]",
    "3",
    '{"prompt_tokens": 1, "prompt_tokens_details": 4}', '{"completion_tokens": 1}', '{"prompt_tokens": 1.5}', "null"])
def test_usage_that_is_not_as_the_format_says_is_none(usage: str) -> None:
    body = b'{"model": "m", "usage": ' + usage.encode() + b"}"
    assert reading(CHAT, body, stream=False) == Reading(model="m")
    assert reading(CHAT, b"data: " + body + b"\n\n", stream=True) == Reading(model="m")


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b'"usage"', b"<html>", b"\xff\xfe", b'data: {"usage"\n\n',
                                  b'data: "usage"\n\ndata: [DONE]\n\n'])
@pytest.mark.parametrize("spoken", [CHAT, RESPONSES, MESSAGES])
def test_answers_that_are_something_else(body: bytes, spoken: JsonWire) -> None:
    assert reading(spoken, body, stream=False) == reading(spoken, body, stream=True) == Reading()


def test_quoted_usage_in_the_text_is_no_usage() -> None:
    words = '"usage": {"prompt_tokens": 9} [DONE] "error"'
    text = json.dumps({"model": "m", "choices": [{"delta": {"content": words}}]})
    meter = CHAT.meter(SSE, ())
    meter.feed(f"data: {text}\n\n".encode())
    assert meter.reading() == Reading(model="m")
    assert not meter.ended


def test_meters_hold_no_more_than_their_limit() -> None:
    assert CHAT.answers is not None
    json_meter, stream_meter = JsonMeter(CHAT.answers, limit=100), StreamMeter(CHAT.answers, limit=100)
    good = b'data: {"model": "m", "usage": {"prompt_tokens": 1}}\n\n'
    stream_meter.feed(good)
    for _ in range(50):
        json_meter.feed(b" " * 10)
        stream_meter.feed(b"x" * 10)
    assert json_meter.reading() == Reading()
    assert json_meter._chunks == []
    assert stream_meter.reading().usage == Usage(1)
    assert stream_meter._splitter is None
    assert ANSWER_LIMIT == 32 << 20


def test_web_searches_and_tiers_of_responses() -> None:
    body = json.dumps({
        "model": "gpt-5", "service_tier": "priority", "usage": {"input_tokens": 3, "output_tokens": 4}, "output": [
            {"type": "web_search_call", "action": {"type": "search"}},
            {"type": "web_search_call", "action": {"type": "open_page"}},
            {"type": "web_search_call"}, {"type": "message"}]}).encode()
    assert reading(RESPONSES, body, stream=False) == Reading(Usage(3, 4, web_searches=2), "gpt-5", tier="priority")


def test_counting_tokens_is_free() -> None:
    assert reading(COUNT_TOKENS, b'{"input_tokens": 14}', stream=False) == Reading(Usage(), cost_usd=0.0)


# -- denials, as the SDKs take them ------------------------------------------------------------------------------------


@contextmanager
def provider(status: int, body: bytes, kind: str = "application/json") -> Iterator[tuple[str, list[str]]]:
    """A loopback server with one answer to everything; yields its address and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            asked.append(self.path)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.send_header("x-should-retry", "false")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chat(base: str) -> object:
    with openai.OpenAI(api_key="test", base_url=f"{base}/v1") as client:
        return client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "hi"}])


def messages(base: str) -> object:
    with anthropic.Anthropic(api_key="test", base_url=base) as client:
        return client.messages.create(model="claude-x", max_tokens=9, messages=[{"role": "user", "content": "hi"}])


OPENAI_RAISES: dict[str, type[openai.APIStatusError]] = {
    "bad_request": openai.BadRequestError, "unauthenticated": openai.AuthenticationError,
    "model_not_allowed": openai.PermissionDeniedError, "pii_found": openai.PermissionDeniedError,
    "too_large": openai.APIStatusError, "unsupported_coding": openai.APIStatusError,
    "host_mismatch": openai.APIStatusError,
    "rate_limited": openai.RateLimitError, "budget_exceeded": openai.RateLimitError,
    "upstream_error": openai.InternalServerError, "audit_unavailable": openai.InternalServerError}
ANTHROPIC_RAISES: dict[str, tuple[type[anthropic.APIStatusError], str]] = {
    "bad_request": (anthropic.BadRequestError, "invalid_request_error"),
    "unauthenticated": (anthropic.AuthenticationError, "authentication_error"),
    "model_not_allowed": (anthropic.PermissionDeniedError, "permission_error"),
    "pii_found": (anthropic.PermissionDeniedError, "permission_error"),
    "too_large": (anthropic.APIStatusError, "request_too_large"),
    "host_mismatch": (anthropic.APIStatusError, "invalid_request_error"),
    "rate_limited": (anthropic.RateLimitError, "rate_limit_error"),
    "budget_exceeded": (anthropic.APIStatusError, "billing_error"),
    "upstream_error": (anthropic.InternalServerError, "api_error"),
    "audit_unavailable": (anthropic.InternalServerError, "overloaded_error")}


@pytest.mark.parametrize("code", OPENAI_RAISES)
def test_openai_raises_its_own_after_one_attempt(code: str) -> None:
    status, body = OPENAI.error(DENIALS[code], code, "told why", "call1")
    with provider(status, body) as (base, asked), pytest.raises(OPENAI_RAISES[code]) as raised:
        chat(base)
    assert len(asked) == 1
    assert raised.value.code == ("insufficient_quota" if code == "budget_exceeded" else code)
    assert raised.value.status_code == DENIALS[code]
    assert "told why" in str(raised.value)


@pytest.mark.parametrize("code", ANTHROPIC_RAISES)
def test_anthropic_raises_its_own_after_one_attempt(code: str) -> None:
    status, body = ANTHROPIC.error(DENIALS[code], code, "told why", "call1")
    kind, name = ANTHROPIC_RAISES[code]
    with provider(status, body) as (base, asked), pytest.raises(kind) as raised:
        messages(base)
    assert len(asked) == 1
    assert raised.value.status_code == (402 if code == "budget_exceeded" else DENIALS[code])
    assert raised.value.body == {"type": "error", "error": {"type": name, "message": "told why", "code": code},
                                 "request_id": "call1"}
    assert "told why" in str(raised.value)


def test_anthropic_says_payment_required() -> None:
    status, body = ANTHROPIC.error(429, "budget_exceeded", "spent", "call1")
    with provider(status, body) as (base, _), pytest.raises(anthropic.PaymentRequiredError):
        messages(base)


def test_every_denial_has_a_shape_in_both_families() -> None:
    for code, status in DENIALS.items():
        told = json.loads(OPENAI.error(status, code, "why", "call1")[1])["error"]
        assert told["code"] in (code, "insufficient_quota")
        assert told["request_id"] == "call1"
        assert json.loads(ANTHROPIC.error(status, code, "why", "call1")[1])["error"]["code"] == code


def stream_chat(base: str) -> Iterator[Any]:
    with openai.OpenAI(api_key="test", base_url=f"{base}/v1") as client:
        yield from client.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": "hi"}], stream=True)


def stream_responses(base: str) -> Iterator[Any]:
    with openai.OpenAI(api_key="test", base_url=f"{base}/v1") as client:
        yield from client.responses.create(model="gpt-5", input="hi", stream=True)


def stream_messages(base: str) -> Iterator[Any]:
    with anthropic.Anthropic(api_key="test", base_url=base) as client:
        yield from client.messages.create(
            model="claude-x", max_tokens=9, messages=[{"role": "user", "content": "hi"}], stream=True)


CHUNK = b'data: {"id":"1","choices":[],"object":"chat.completion.chunk","created":1,"model":"m"}\n\n'
TEXT_DELTA = (b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a",'
              b'"item_id":"i","output_index":0,"content_index":0,"sequence_number":1,"logprobs":[]}\n\n')
BLOCK_DELTA = (b'event: ping\ndata: {"type":"ping"}\n\nevent: content_block_delta\ndata: {"type":"content_block_delta",'
               b'"index":0,"delta":{"type":"text_delta","text":"a"}}\n\n')


@pytest.mark.parametrize(("operation", "ask", "begun", "error"), [
    ("chat", stream_chat, CHUNK, openai.APIError), ("responses", stream_responses, TEXT_DELTA, openai.APIError),
    ("messages", stream_messages, BLOCK_DELTA, anthropic.APIStatusError)])
def test_a_running_stream_ends_in_the_sdks_own_exception(
        operation: str, ask: Callable[[str], Iterator[Any]], begun: bytes, error: type[Exception]) -> None:
    family = ANTHROPIC if operation == "messages" else OPENAI
    event = family.error_event(operation, "upstream_error", "told why", "call1", SSE)
    with provider(200, begun + event, "text/event-stream") as (base, asked):
        events = ask(base)
        assert next(events) is not None
        with pytest.raises(error, match="told why"):
            next(events)
    assert len(asked) == 1
    meter = WIRES[operation].meter(SSE, ())
    ended = []
    for part in (begun, event):
        meter.feed(part)
        ended.append(meter.ended)
    assert ended == [False, True]
