"""Cohere: recorded traffic of both versions, streams with tool calls, and the official SDK through a gateway."""

import json
import random
from collections.abc import Iterator
from typing import Any

import cohere
import httpx
import pytest
from cohere.core.api_error import ApiError

from douane.call import Usage
from douane.demo.provider import Answer, LocalProvider, running_provider
from douane.demo.wire import Reply, Seen
from douane.providers.cohere import COHERE
from douane.providers.cohere import cohere as table
from douane.providers.framing import NDJSON, SSE, framing_of
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
    walked,
)
from tests.gateway import Gateway

OPAQUE = ("type", "role", "model", "id", "tool_call_id", "input_type", "embedding_types", "truncate", "tool_choice",
          "finish_reason", "response_id", "generation_id", "version", "response_type", "format")
CHAT = table().operation("POST", "/v2/chat")
assert CHAT is not None
assert CHAT.wire is not None
WIRE = CHAT.wire


def sse(*events: Any) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in events) \
        + b"data: [DONE]\n\n"


def said(*parts: str, index: int = 0, member: str = "text") -> list[dict[str, Any]]:
    return [{"type": "content-delta", "index": index, "delta": {"message": {"content": {member: one}}}} for one in parts]


def called(*parts: str, index: int = 0) -> list[dict[str, Any]]:
    return [{"type": "tool-call-delta", "index": index, "delta": {"message": {"tool_calls": {"function": {"arguments": one}}}}}
            for one in parts]


START = {"type": "message-start", "id": "m1", "delta": {"message": {
    "role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}}}
OPEN = {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}}
CALL = {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": {
    "id": "c1", "type": "function", "function": {"name": "mail", "arguments": ""}}}}}
USAGE = {"billed_units": {"input_tokens": 7, "output_tokens": 5.0}, "tokens": {"input_tokens": 70, "output_tokens": 6}}
END = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}}


def plan(*parts: str) -> list[dict[str, Any]]:
    return [{"type": "tool-plan-delta", "delta": {"message": {"tool_plan": one}}} for one in parts]


# -- recorded traffic --------------------------------------------------------------------------------------------------


def test_every_record_has_its_label() -> None:
    for record in wire.records("cohere"):
        name, row = operation_of(record)
        assert row is not None
        assert (name, row.name) == ("cohere", record["operation"])


def test_every_text_is_walked_and_can_be_rewritten_alone() -> None:
    seen = 0
    for record, spoken in recorded("cohere"):
        document = wire.asked(record)
        seen += walked(spoken.walk(document), document, OPAQUE)
        identity_and_one_change(spoken, record["request"]["body"].encode())
        if not record["stream"] and wire.answer(record).startswith(b"{") and b'"is_finished"' not in wire.answer(record)[:30]:
            answer = json.loads(wire.answer(record))
            walked(spoken.answered(answer), answer, OPAQUE)
    assert seen > 60


def units(body: bytes) -> dict[str, Any]:
    """The last billed units that an answer names, read from its lines."""
    found: dict[str, Any] = {}
    for line in body.decode().splitlines():
        try:
            document = json.loads(line.removeprefix("data: "))
        except ValueError:
            continue
        inner = document.get("delta") or document.get("response") or document
        told = inner.get("usage") or inner.get("meta") or {}
        found = told.get("billed_units", found)
    return found


def test_usage_is_what_is_billed() -> None:
    seen = 0
    for record, spoken in recorded("cohere"):
        body = wire.answer(record)
        kind = str(record["response"]["headers"].get("content-type", "")).encode()
        meter = spoken.meter(framing_of(kind), ())
        for at in range(0, len(body), 1000):
            meter.feed(body[at:at + 1000])
        billed, got = units(body), meter.reading()
        if record["operation"] == "tokenize":
            assert (got.usage, got.cost_usd) == (Usage(), 0.0)
        elif billed:
            assert got.usage == Usage(billed.get("input_tokens", 0), billed.get("output_tokens", 0),
                                      web_searches=billed.get("search_units", 0))
            assert not got.partial
            assert meter.ended == (framing_of(kind) is not None)
            seen += 1
        else:
            assert got.usage is None
    assert seen > 15


def test_recorded_streams_are_put_together() -> None:
    """Version 1 has the whole in its last line; of version 2 the texts are joined here by hand."""
    seen = 0
    for record, spoken in recorded("cohere"):
        framing = framing_of(str(record["response"]["headers"].get("content-type", "")).encode())
        if framing is None:
            continue
        body, whole = wire.answer(record), spoken.assembled(wire.answer(record), framing)
        assert whole is not None
        events = events_of(body)
        if framing is NDJSON:
            assert whole == events[-1]["response"] | {"generation_id": whole["generation_id"], "finish_reason": "COMPLETE"}
            assert whole["text"] == "".join(one.get("text", "") for one in events)
        else:
            text = "".join(map(_text, events))
            message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
            assert whole == {"id": events[0]["id"], "message": message, "finish_reason": "COMPLETE",
                             "usage": events[-1]["delta"]["usage"]}
        seen += 1
    assert seen == 3


def test_recorded_streams_give_values_back_however_cut() -> None:
    chance = random.Random(3)
    for record, spoken in recorded("cohere"):
        kind = str(record["response"]["headers"].get("content-type", "")).encode()
        if framing_of(kind) is None:
            continue
        lines = wire.answer(record).decode().split("\n")
        prefix = "data: " if framing_of(kind) is SSE else ""
        held = [(at, json.loads(line.removeprefix(prefix))) for at, line in enumerate(lines) if line.startswith(prefix + "{")]
        pieces = [(at, one) for at, one in held if _text(one)]
        old = [_text(one) for _, one in pieces]
        new = planted(old, chance)
        for (at, one), text in zip(pieces, new, strict=True):
            owner = one["delta"]["message"]["content"] if "delta" in one else one
            owner["text"] = text
            lines[at] = prefix + json.dumps(one)
        restored_however_cut(spoken, "\n".join(lines).encode(), kind, _texts, "".join(new).replace(PLACEHOLDER, VALUE))


def _text(event: dict[str, Any]) -> str:
    owner = event["delta"]["message"]["content"] if event.get("type") == "content-delta" else event
    return str(owner.get("text", ""))


def events_of(body: bytes) -> list[Any]:
    return [json.loads(line.removeprefix("data: ")) for line in body.decode().split("\n") if line.startswith(("data: {", "{"))]


def _texts(body: bytes) -> str:
    return "".join(map(_text, events_of(body)))


# -- by hand -----------------------------------------------------------------------------------------------------------


def citation(text: str) -> dict[str, Any]:
    return {"start": 0, "end": 3, "text": text, "sources": [{"type": "tool", "id": "c1", "tool_output": {"x": text}}]}


def test_a_stream_with_a_plan_calls_and_citations() -> None:
    arguments = json.dumps({"to": PLACEHOLDER, "n": 1})
    cited = {"type": "citation-start", "index": 0, "delta": {"message": {"citations": citation(PLACEHOLDER)}}}
    stream = sse(START, *plan("I mail ", PLACEHOLDER[:9], PLACEHOLDER[9:]), CALL, *called(arguments[:15], arguments[15:]),
                 {"type": "tool-call-end", "index": 0}, OPEN, *said("Sent <", "EM"), {"type": "content-end", "index": 0},
                 *said("hm ", PLACEHOLDER, index=1, member="thinking"), cited, {"type": "citation-end", "index": 0}, END)

    def of(body: bytes) -> Any:
        return WIRE.assembled(body, SSE)

    wanted = {"id": "m1", "finish_reason": "COMPLETE", "usage": USAGE, "message": {
        "role": "assistant", "tool_plan": f"I mail {VALUE}",
        "tool_calls": [{"id": "c1", "type": "function",
                        "function": {"name": "mail", "arguments": json.dumps({"to": VALUE, "n": 1})}}],
        "content": [{"type": "text", "text": "Sent <EM"}, {"thinking": f"hm {VALUE}"}], "citations": [citation(VALUE)]}}
    restored_however_cut(WIRE, stream, b"text/event-stream", of, wanted)


def test_what_waits_leaves_before_the_end_of_its_text() -> None:
    stream = sse(START, *plan("a <EM"), CALL, *called('{"a": "<EM'), {"type": "tool-call-end", "index": 0}, END)

    def kinds(body: bytes) -> list[str]:
        return [one["type"] for one in events_of(body)]

    wanted = ["message-start", "tool-plan-delta", "tool-plan-delta", "tool-call-start", "tool-call-delta", "tool-call-delta",
              "tool-call-end", "message-end"]
    restored_however_cut(WIRE, stream, b"text/event-stream", kinds, wanted)


def test_version_one_calls_tools_in_pieces() -> None:
    def line(kind: str, **more: Any) -> bytes:
        return json.dumps({"is_finished": False, "event_type": kind, **more}).encode() + b"\n"

    text = json.dumps({"to": PLACEHOLDER})
    chunks = [line("tool-calls-chunk", tool_call_delta={"index": 0, "parameters": one}) for one in (text[:9], text[9:])]
    whole = [{"name": "mail", "parameters": {"to": PLACEHOLDER}}]
    stream = b"".join((line("stream-start", generation_id="g"), line("tool-calls-chunk", text="I <"), *chunks,
                       line("tool-calls-generation", text="I <", tool_calls=whole)))

    def parameters(body: bytes) -> tuple[str, Any]:
        events = [json.loads(one) for one in body.splitlines()]
        return ("".join(one.get("tool_call_delta", {}).get("parameters", "") for one in events), events[-1]["tool_calls"])

    wanted = (json.dumps({"to": VALUE}), [{"name": "mail", "parameters": {"to": VALUE}}])
    restored_however_cut(WIRE, stream, b"application/stream+json", parameters, wanted)


def test_a_cut_stream_is_partial_and_an_error_is_told() -> None:
    stream = sse(START, OPEN, *said("Hel", "lo")).removesuffix(b"data: [DONE]\n\n")
    meter = WIRE.meter(SSE, ())
    meter.feed(stream)
    assert (meter.ended, meter.reading().usage) == (False, None)
    cut = WIRE.assembled(stream + COHERE.error_event("chat", "secret_found", "no", "id", SSE), SSE)
    assert cut is not None
    assert (cut["error"], cut["finish_reason"]) == ("no", "ERROR")
    line = json.loads(COHERE.error_event("chat", "secret_found", "no", "id", NDJSON))
    assert (line["is_finished"], line["finish_reason"], line["error"]) == (True, "ERROR", "no")


@pytest.mark.parametrize("billed", [
    {"classifications": 2}, {}, {"input_tokens": 1.5}, {"input_tokens": -1}, {"input_tokens": True}])
def test_what_is_not_known_to_be_billed_is_not_free(billed: dict[str, Any]) -> None:
    meter = WIRE.meter(None, ())
    meter.feed(json.dumps({"meta": {"billed_units": billed}}).encode())
    assert meter.reading().usage is None


@pytest.mark.parametrize(("method", "path"), [
    ("POST", "/v3/chat"), ("GET", "/v2/chat"), ("POST", "/v2/chat/"), ("POST", "//v2/chat"), ("POST", "/v1/connectors"),
    ("GET", "/v1/models/.."), ("POST", "/v1/datasets"), ("POST", "/v2/Chat")])
def test_paths_no_row_matches(method: str, path: str) -> None:
    assert table().operation(method, path) is None


# -- the SDK through a gateway -----------------------------------------------------------------------------------------


def script(seen: Seen) -> Answer:
    asked = json.loads(seen.body)
    if asked.get("stream"):
        return Reply(headers=(("content-type", "text/event-stream"),), body=sse(START, OPEN, *said("Hel", "lo"), END))
    message = {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}
    answer = {"id": "m1", "message": message, "finish_reason": "COMPLETE", "usage": USAGE}
    return Reply(headers=(("content-type", "application/json"),), body=json.dumps(answer).encode())


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider"), script=script) as one:
        yield one


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    with gateway_for(tmp_path_factory.mktemp("gateway"), provider, "cohere") as one:
        yield one


@pytest.fixture
def client(gateway: Gateway) -> Iterator[cohere.ClientV2]:
    with httpx.Client() as connections:
        yield cohere.ClientV2(api_key="app-key", base_url="http://{}:{}/cohere".format(*gateway.http), httpx_client=connections)


def ask(client: cohere.ClientV2, model: str) -> Any:
    return client.chat(model=model, messages=[cohere.UserChatMessageV2(content="hi")])


def test_the_sdk_plain_and_streamed(client: cohere.ClientV2, gateway: Gateway) -> None:
    assert ask(client, "good").message.content[0].text == "Hello"
    events = list(client.chat_stream(model="good", messages=[cohere.UserChatMessageV2(content="hi")]))
    text = "".join(one.delta.message.content.text for one in events if one.type == "content-delta")  # type: ignore[union-attr,misc]
    assert text == "Hello"
    last = gateway.last_outcome()
    assert (last["provider"], last["operation"], last["usage"]["input"], last["usage"]["output"]) == ("cohere", "chat", 7, 5)


@pytest.mark.parametrize(("model", "status"), [("bad", 403), ("costly", 402)])
def test_the_sdk_raises_its_own_error_after_one_attempt(client: cohere.ClientV2, provider: LocalProvider, gateway: Gateway,
                                                        model: str, status: int) -> None:
    before, denied = len(provider.seen), gateway.metric("douane_calls_total")
    with pytest.raises(cohere.ForbiddenError if status == 403 else ApiError) as caught:
        ask(client, model)
    assert caught.value.status_code == status
    assert caught.value.body["message"]
    assert len(provider.seen) == before
    assert gateway.metric("douane_calls_total") == denied + 1
