"""Bedrock and SageMaker on recorded traffic: recognised, walked, rewritten, metered, restored in event streams, assembled."""

import base64
import copy
import functools
import gzip
import json
import os
import random
import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from douane.answer import AnswerPipe
from douane.call import Usage
from douane.placeholders import DataKey, Minter
from douane.providers.awshosts import scope_of
from douane.providers.base import Operation, Wire
from douane.providers.bedrock import AWS as FAMILY
from douane.providers.bedrock import bedrock, sagemaker
from douane.providers.framing import AWS, aws_message
from douane.rehydrate import Restorer
from douane.restore import RestoreFilter
from tests import wire as recorded

type Doc = dict[str, Any]

PROVIDERS = {"bedrock": bedrock(), "sagemaker": sagemaker()}
CUTS = int(os.environ.get("DOUANE_EXAMPLES", "2"))
"""Ways in which each stream is cut at random."""
MAIL = "ann@example.com"
MINTER = Minter(DataKey(b"k" * 32), "acme", {})
PLACEHOLDER = MINTER.placeholder("EMAIL_ADDRESS", MAIL)
EVENT = b"application/vnd.amazon.eventstream"


def records() -> tuple[Doc, ...]:
    return recorded.records("bedrock", "sagemaker")


def row(record: Doc) -> Operation:
    url = recorded.url(record)
    owner = next(one for one in PROVIDERS.values() if url.netloc in one.hosts)
    assert owner.name == record["provider"]
    found = owner.operation(record["request"]["method"], url.path)
    assert found is not None, url.path
    return found


def answer(record: Doc) -> bytes:
    response = record["response"]
    return base64.b64decode(response["body_base64"]) if "body_base64" in response else recorded.answer(record)


def asked() -> list[tuple[Wire, bytes, Any]]:
    """Requests whose body is JSON, with the document as the wire reads it."""
    found = []
    for record in records():
        wire, body = row(record).wire, (record["request"].get("body") or "").encode()
        if wire is not None and recorded.asked(record) is not None:
            found.append((wire, body, wire.read(body, b"application/json")))
    return found


def answered(*, streams: bool) -> list[tuple[Doc, Operation, Wire, bytes]]:
    """Successful answers."""
    found = []
    for record in records():
        body, one = answer(record), row(record)
        if one.wire is not None and record["response"]["status"] < 300 and body.startswith(b"\0\0") is streams:
            found.append((record, one, one.wire, body))
    return found


# -- recognised --------------------------------------------------------------------------------------------------------


def test_every_record_has_its_label() -> None:
    for record in records():
        assert row(record).name == record["operation"], record["request"]["url"]
    for record in recorded.records():
        owners = [one for one in PROVIDERS.values() if recorded.url(record).netloc in one.hosts]
        assert bool(owners) is (record["provider"] in PROVIDERS)


@pytest.mark.parametrize(("path", "model"), [
    ("/model/us.amazon.nova-lite-v1%3A0/converse", "us.amazon.nova-lite-v1:0"),
    ("/model/us.amazon.nova-lite-v1:0/converse-stream", "us.amazon.nova-lite-v1:0"),
    ("/model/arn%3aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.anthropic.claude-v1%3A0/invoke",
     "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-v1:0"),
    ("/model/a%253Ab/invoke", None), ("/model/a/b/invoke", None), ("/model/..%2Fx/invoke", None), ("/model//invoke", None),
    ("/model/a%0Ab/invoke", None), ("/model/a/invoke/", None), ("/model/a/invoke-with-bidirectional-stream", None),
    ("/async-invoke", ""),
])
def test_the_model_stands_in_the_path(path: str, model: str | None) -> None:
    found = PROVIDERS["bedrock"].operation("POST", path)
    assert (found is None) is (model is None)
    if found is not None:
        assert found.model_of(path, None) == model
    assert PROVIDERS["bedrock"].operation("DELETE", path) is None


def test_a_path_that_streams_says_so() -> None:
    for record in records():
        wire = row(record).wire
        if wire is not None and "/model/" in record["request"]["url"]:
            assert wire.stream(None) is record["request"]["url"].endswith("-stream")
    assert PROVIDERS["bedrock"].operation("POST", "/async-invoke").model_of("/async-invoke", {"modelId": "m"}) == "m"  # type: ignore[union-attr]


@pytest.mark.parametrize(("host", "scope"), [
    ("bedrock-runtime.eu-west-1.amazonaws.com", ("bedrock", "eu-west-1")),
    ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", ("bedrock", "us-gov-west-1")),
    ("bedrock-agent-runtime.us-east-1.amazonaws.com", ("bedrock", "us-east-1")),
    ("vpce-0a1b-x.bedrock-runtime.us-east-1.vpce.amazonaws.com", ("bedrock", "us-east-1")),
    ("bedrock-mantle.us-east-2.api.aws", ("bedrock-mantle", "us-east-2")),
    ("runtime.sagemaker.us-east-1.amazonaws.com:8443", ("sagemaker", "us-east-1")),
    ("bedrock-runtime.cn-north-1.amazonaws.com.cn", ("bedrock", "cn-north-1")),
    ("llm.internal", ("bedrock", "")), ("bedrock-runtime.us-east-1.amazonaws.com.evil.example", ("bedrock", "")),
])
def test_a_host_tells_service_and_region(host: str, scope: tuple[str, str]) -> None:
    assert scope_of(host) == scope


def test_every_host_tells_a_region() -> None:
    for provider in PROVIDERS.values():
        assert all(scope_of(host)[1] for host in provider.hosts)
        assert len(set(provider.hosts)) == len(provider.hosts)
        assert scope_of(provider.hosts[0])[1] == "us-east-1"


# -- walked ------------------------------------------------------------------------------------------------------------


OPAQUE = re.compile(
    r"(?:.*\.)?(?:role|type|toolUseId|tool_use_id|id|status|format|media_type|guardrailIdentifier|guardrailVersion|trace|latency|"
    r"anthropic_version|schemaVersion|taskType|input_type|truncate|truncationMode|embeddingPurpose|outputScope|source|"
    r"sourceType|knowledgeBaseId|bytes|data|redactedContent|signature|model|effort|include|service_tier|call_id|"
    r"encrypted_content|phase|verbosity|truncation|object)")
"""The members whose strings are not text, while they look like what they should be."""


def strings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, (*path, key))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from strings(item, (*path, at))


def test_every_string_is_text_or_stands_in_the_list() -> None:
    seen = 0
    for wire, _, document in asked():
        walked = {one.path: one.text for one in wire.walk(document) if not one.key}
        for path, text in strings(document):
            if path in walked:
                assert walked[path] == text
                seen += 1
            elif text:
                name = ".".join(step for step in path if isinstance(step, str))
                assert OPAQUE.fullmatch(name), path
                assert not re.search(r"\s|@", text)
    assert seen > 900


def test_roles() -> None:
    wire = PROVIDERS["bedrock"].operation("POST", "/model/m/converse").wire  # type: ignore[union-attr]
    assert wire is not None
    found = {one.text: (one.role, one.sealed) for one in wire.walk({
        "system": [{"text": "be brief"}],
        "messages": [
            {"role": "user", "content": [{"text": "hi"}, {"document": {"name": "cv", "format": "txt",
                                                                       "source": {"text": "my words"}}}]},
            {"role": "assistant", "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2lnbmF0dXJl"}}},
                {"reasoningContent": {"reasoningText": {"text": "open thought"}}},
                {"toolUse": {"name": "find", "toolUseId": "t1", "input": {"who": "Ann", "role": "user"}}}]},
            {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"json": {"is": "here"}}]}}]}],
        "toolConfig": {"tools": [{"toolSpec": {"name": "find", "description": "finds", "inputSchema": {"json": {}}}}]},
        "requestMetadata": {"ticket": "42a b"}, "someNewMember": "new text"})}
    assert found == {
        "be brief": ("system", False), "hi": ("user", False), "cv": ("user", False), "my words": ("user", False),
        "hm": ("assistant", True), "open thought": ("assistant", False), "find": ("schema", False), "who": ("tool_call", False),
        "Ann": ("tool_call", False), "role": ("tool_call", False), "user": ("tool_call", False), "is": ("tool_result", False),
        "here": ("tool_result", False), "finds": ("schema", False), "ticket": ("metadata", False),
        "42a b": ("metadata", False), "new text": ("unknown", False), "c2lnbmF0dXJl": ("assistant", True)}


def test_one_string_rewritten_changes_only_it() -> None:
    chance = random.Random(5)
    for wire, body, document in asked():
        assert wire.rewrite(body, b"", document, {})[0] == body
        places = [(one.path, one.key) for one in wire.walk(document) if not one.sealed and not one.key]
        if not places:
            continue
        place = chance.choice(places)
        new_body, new = wire.rewrite(body, b"", document, {place: "‹new›"})
        wanted = copy.deepcopy(document)
        holder = functools.reduce(lambda value, step: value[step], place[0][:-1], wanted)
        holder[place[0][-1]] = "‹new›"
        assert new == wanted == wire.read(new_body, b"")


def test_the_body_inside_count_tokens_is_read() -> None:
    wire = PROVIDERS["bedrock"].operation("POST", "/model/m/count-tokens").wire  # type: ignore[union-attr]
    assert wire is not None
    inner = b'{ "messages":[{"role":"user","content":"call Ann"}], "n": 1.0 }'
    body = json.dumps({"input": {"invokeModel": {"body": base64.b64encode(inner).decode()}}, "x": "y z"}).encode()
    document = wire.read(body, b"")
    found = {one.text: one for one in wire.walk(document) if not one.key}
    assert set(found) == {"call Ann", "y z"}
    assert found["call Ann"].role == "user"
    changes = {(found["call Ann"].path, False): "call Bob", (found["y z"].path, False): "w"}
    new, read = wire.rewrite(body, b"", document, changes)
    outer = json.loads(new)
    assert base64.b64decode(outer["input"]["invokeModel"]["body"]) == inner.replace(b"Ann", b"Bob")
    assert outer["x"] == "w"
    assert read["input"]["invokeModel"]["body"]["messages"][0]["content"] == "call Bob"
    for bad in ('{"input": {"invokeModel": {"body": "e30"}}}', '{"input": {"invokeModel": {"body": 1}}}',
                '{"input": {"invokeModel": {"body": "eyJhIjoxLCJhIjoyfQ=="}}}'):
        with pytest.raises(ValueError, match=r"."):
            wire.read(bad.encode(), b"")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["input", "converse", "invokeModel", "body", "messages", "text", "usage", "delta", "x",
                                         "contentBlockIndex", "outputs", "message", "bytes", "results", "trace", "index"]),
                        inner, max_size=4), max_leaves=12))
def test_whatever_comes_nothing_breaks(document: Any) -> None:
    raw = json.dumps(document).encode()
    for operation in (*PROVIDERS["bedrock"].operations, *PROVIDERS["sagemaker"].operations):
        wire = operation.wire
        if wire is None:
            continue
        try:
            read = wire.read(raw, b"application/json")
        except ValueError:
            continue
        assert all(isinstance(one.text, str) for one in wire.walk(read))
        list(wire.answered(document))
        meter = wire.meter(None, ())
        meter.feed(raw)
        meter.reading()
        stream = aws_message(kind("chunk"), raw) + aws_message(
            kind("chunk"), json.dumps({"bytes": base64.b64encode(raw).decode()}).encode())
        framed = wire.meter(AWS, ())
        framed.feed(stream)
        framed.reading()
        wire.assembled(stream, AWS)
        wire.deltas.pieces(document)
        wire.deltas.ends(document)


# -- usage -------------------------------------------------------------------------------------------------------------


def kind(name: str) -> bytes:
    return b"\x0b:event-type\x07" + struct.pack("!H", len(name)) + name.encode()


def events(body: bytes) -> list[tuple[Doc, Any]]:
    """Headers and document of each event, by botocore; the text of an agent's chunk as it is."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    found = []
    for event in buffer:
        document = json.loads(event.payload)
        if isinstance(document.get("bytes"), str):
            inner = base64.b64decode(document["bytes"])
            document = json.loads(inner) if inner.startswith(b"{") else {**document, "bytes": inner.decode()}
        found.append((event.headers, document))
    return found


def told(record: Doc, documents: list[Any]) -> tuple[int, int, int, int] | None:
    """(input without cache, output, cached, written), read off independently: the last that says it."""
    found = None
    for document in documents:
        for counts in (document, document.get("usage") or {}, (document.get("metadata") or {}).get("usage") or {},
                       document.get("amazon-bedrock-invocationMetrics") or {}):
            for names in (("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"),
                          ("inputTokenCount", "outputTokenCount", "cacheReadInputTokenCount", "cacheWriteInputTokenCount"),
                          ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
                          ("prompt_tokens", "completion_tokens", "", ""),
                          ("prompt_token_count", "generation_token_count", "", "")):
                if counts.get(names[0]) is not None:
                    first, second, third, fourth = (counts.get(name) or 0 for name in names)
                    found = (first, second, third, fourth)
    if found is None and documents and "inputTextTokenCount" in documents[-1]:
        last = documents[-1]
        made = sum(one["tokenCount"] for one in last.get("results", ())) or last.get("totalOutputTextTokenCount", 0)
        found = (int(last["inputTextTokenCount"]), int(made), 0, 0)
    headers = {name.lower(): value for name, value in record["response"]["headers"].items()}
    if found is None and "x-amzn-bedrock-input-token-count" in headers:
        made = headers.get("x-amzn-bedrock-output-token-count", 0)
        found = (int(headers["x-amzn-bedrock-input-token-count"]), int(made), 0, 0)
    return found


def test_usage_is_what_the_reply_says() -> None:
    carried = 0
    for record, operation, wire, body in [*answered(streams=False), *answered(streams=True)]:
        if operation.name not in ("converse", "invoke"):
            continue
        stream = body.startswith(b"\0\0")
        documents = [document for _, document in events(body)] if stream else [json.loads(body)]
        wanted = told(record, [one for one in documents if isinstance(one, dict)])
        headers = tuple((name.lower().encode(), value.encode()) for name, value in record["response"]["headers"].items())
        meter = wire.meter(AWS if stream else None, headers)
        for at in range(0, len(body), 1000):
            meter.feed(body[at:at + 1000])
        reading = meter.reading()
        if wanted is None:
            assert reading.usage is None
            continue
        carried += 1
        given, made, cached, written = wanted
        usage = reading.usage
        assert usage is not None
        assert (usage.input, usage.output, usage.cached_input, usage.cache_write) == (
            given + cached + written, made, cached, written), record["request"]["url"]
        assert not reading.partial
        last = documents[-1]
        assert meter.ended is (stream and bool(last.keys() & {"usage", "amazon-bedrock-invocationMetrics"}))
    assert carried > 200


def test_cache_writes_for_an_hour_and_unfinished_streams() -> None:
    wire = PROVIDERS["bedrock"].operation("POST", "/model/m/converse").wire  # type: ignore[union-attr]
    assert wire is not None
    meter = wire.meter(None, ())
    details = [{"ttl": "5m", "inputTokens": 4}, {"ttl": "1h", "inputTokens": 7}]
    meter.feed(json.dumps({"usage": {"inputTokens": 3, "outputTokens": 5, "cacheReadInputTokens": 7,
                                     "cacheWriteInputTokens": 11, "cacheDetails": details}}).encode())
    assert meter.reading().usage == Usage(21, 5, cached_input=7, cache_write=11, cache_write_1h=7)
    invoke = PROVIDERS["bedrock"].operation("POST", "/model/m/invoke-with-response-stream").wire  # type: ignore[union-attr]
    assert invoke is not None
    begun = {"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 9, "output_tokens": 1}}}
    running = invoke.meter(AWS, ())
    inside = base64.b64encode(json.dumps(begun).encode()).decode()
    running.feed(aws_message(kind("chunk"), json.dumps({"bytes": inside}).encode()))
    assert running.reading().usage == Usage(9, 1)
    assert running.reading().partial
    assert not running.ended


# -- streams -----------------------------------------------------------------------------------------------------------


def slot(document: Any, label: str) -> tuple[tuple[Any, ...], Doc, str] | None:
    """(text it belongs to, object, member) of the piece in an event, told apart by other means than the product's."""
    if label == "bedrock_agent":
        return (("text",), document, "bytes") if "bytes" in document and "attribution" not in document else None
    inner = document.get("contentBlockDelta", document)
    delta = inner.get("delta") or {}
    nova = "contentBlockDelta" in document
    if "contentBlockIndex" in inner and "text" in delta:
        return ("text", 0 if nova else inner["contentBlockIndex"]), delta, "text"
    if "contentBlockIndex" in inner and "toolUse" in delta:
        return ("json", inner["contentBlockIndex"]), delta["toolUse"], "input"
    if delta.get("type") == "text_delta":
        return ("text", document["index"]), delta, "text"
    if delta.get("type") == "input_json_delta":
        return ("json", document["index"]), delta, "partial_json"
    for name in ("outputText", "generation", "completion", "text"):
        if isinstance(document.get(name), str):
            return ("text", document.get("index", 0)), document, name
    return None


def texts(body: bytes, label: str) -> dict[tuple[Any, ...], str]:
    found: dict[tuple[Any, ...], str] = {}
    for _, document in events(body):
        piece = slot(document, label)
        if piece is not None:
            found[piece[0]] = found.get(piece[0], "") + piece[1][piece[2]]
    return found


def encoded(headers: Doc, document: Any, wrapped: bool, label: str) -> bytes:
    head = b"".join(struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
                    for name, value in headers.items())
    if label == "bedrock_agent" and "bytes" in document:
        document = {**document, "bytes": base64.b64encode(document["bytes"].encode()).decode()}
    elif wrapped:
        document = {"bytes": base64.b64encode(json.dumps(document).encode()).decode(), "p": "abc"}
    return aws_message(head, json.dumps(document).encode())


def plant(body: bytes, label: str, chance: random.Random) -> bytes:
    """The stream with a placeholder at the beginning, in the middle and at the end of each text, split anew."""
    found = events(body)
    places: dict[tuple[Any, ...], list[tuple[Doc, str]]] = {}
    for _, document in found:
        piece = slot(document, label)
        if piece is not None:
            places.setdefault(piece[0], []).append(piece[1:])
    for key, holders in places.items():
        old = "".join(holder[member] for holder, member in holders)
        if key[0] == "json":
            new = json.dumps({"to": PLACEHOLDER, "was": old})
        else:
            new = f"{PLACEHOLDER} {old[:9]}{PLACEHOLDER}{old[9:]} <EMAIL {PLACEHOLDER}"
        ends = sorted(chance.randrange(len(new) + 1) for _ in holders[1:])
        for (holder, member), start, end in zip(holders, [0, *ends], [*ends, len(new)], strict=True):
            holder[member] = new[start:end]
    return b"".join(encoded(headers, document, label == "invoke", label) for headers, document in found)


def through(pieces: list[bytes], wire: Wire, coding: bytes = b"") -> bytes:
    pipe = AnswerPipe(None, [RestoreFilter(Restorer(MINTER.originals(), frozenset), deltas=wire.deltas)], 1 << 24)
    head = ((b"content-type", EVENT), (b"content-encoding", coding)) if coding else ((b"content-type", EVENT),)
    pipe.start(head, coding, framing=None if coding else AWS)
    return b"".join([pipe.feed(piece) for piece in pieces]) + pipe.close()


def test_placeholders_in_streams_however_they_are_cut() -> None:
    chance = random.Random(3)
    seen = 0
    for _, operation, wire, body in answered(streams=True):
        label = "bedrock_agent" if operation.name in ("bedrock_agent", "other") else operation.name
        planted = plant(body, label, chance)
        wanted = {key: text.replace(PLACEHOLDER, MAIL) for key, text in texts(planted, label).items()}
        whole = through([planted], wire)
        assert texts(whole, label) == wanted
        seen += len(wanted)
        for _ in range(CUTS):
            ends = sorted(chance.randrange(len(planted) + 1) for _ in range(chance.randrange(1, 12)))
            pieces = [planted[start:end] for start, end in zip([0, *ends], [*ends, len(planted)], strict=True)]
            assert through(pieces, wire) == whole
        if len(planted) < 6000 or CUTS >= 200:
            assert through([planted[at:at + 1] for at in range(len(planted))], wire) == whole
        packed = gzip.compress(planted)
        assert through([packed[at:at + 97] for at in range(0, len(packed), 97)], wire, b"gzip") == whole
        assert through([body], wire) == body
    assert seen > 30


def test_signed_reasoning_stays() -> None:
    wire = PROVIDERS["bedrock"].operation("POST", "/model/m/converse-stream").wire  # type: ignore[union-attr]
    assert wire is not None
    thought = json.dumps({"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": f"is it {PLACEHOLDER}"}}}).encode()
    said = json.dumps({"contentBlockIndex": 1, "delta": {"text": PLACEHOLDER}}).encode()
    raw = aws_message(kind("contentBlockDelta"), thought)
    got = through([raw + aws_message(kind("contentBlockDelta"), said)], wire)
    assert got.startswith(raw)
    assert MAIL.encode() in got


def test_streams_come_together() -> None:
    seen = 0
    for _, operation, wire, body in answered(streams=True):
        label = "bedrock_agent" if operation.name in ("bedrock_agent", "other") else operation.name
        document = wire.assembled(body, AWS)
        assert document is not None
        told = {text for _, text in strings(document)} | {json.dumps(one, sort_keys=True) for one in objects(document)}
        for key, text in texts(body, label).items():
            assert (text if key[0] == "text" else json.dumps(json.loads(text), sort_keys=True)) in told
            seen += 1
        half = wire.assembled(body[:len(body) // 2], AWS)
        assert half is None or isinstance(half, dict)
    assert seen > 30


def objects(value: Any) -> Iterator[Doc]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from objects(item)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "status", "wanted"), [
    ("model_not_allowed", 403, (403, "AccessDeniedException")), ("unauthenticated", 401, (401, "AccessDeniedException")),
    ("budget_exceeded", 429, (400, "ServiceQuotaExceededException")), ("rate_limited", 429, (429, "ThrottlingException")),
    ("bad_request", 400, (400, "ValidationException")), ("policy_error", 503, (503, "ServiceUnavailableException")),
    ("upstream_error", 502, (424, "ModelErrorException")), ("upstream_timeout", 504, (408, "ModelTimeoutException")),
])
def test_refusals_are_aws_s(code: str, status: int, wanted: tuple[int, str]) -> None:
    got, body = FAMILY.error(status, code, "why “so”", "id-1")
    document = json.loads(body)
    assert (got, document["__type"], document["message"]) == (*wanted, "why “so”")
    ((headers, said),) = events(FAMILY.error_event("converse", code, "why “so”", "id-1", AWS))
    assert headers[":message-type"] == "exception"
    assert said == {"message": "why “so”"}
    assert headers[":error-message"].isascii()


def wrapped(*documents: Any) -> list[bytes]:
    return [aws_message(kind("chunk"), json.dumps({"bytes": base64.b64encode(one if isinstance(one, bytes) else
                                                                             json.dumps(one).encode()).decode()}).encode())
            for one in documents]


@pytest.mark.parametrize("events_", [
    ({"contentBlockDelta": {"delta": {"text": "a <EMAIL"}, "contentBlockIndex": 0}},
     {"contentBlockStart": {"start": {"toolUse": {"name": "f", "toolUseId": "t"}}, "contentBlockIndex": 1}}),
    ({"generation": "a <EMAIL"}, {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 1, "outputTokenCount": 1}}),
])
def test_what_waits_leaves_before_what_ends_its_text(events_: tuple[Doc, Doc]) -> None:
    wire = PROVIDERS["bedrock"].operation("POST", "/model/m/invoke-with-response-stream").wire  # type: ignore[union-attr]
    assert wire is not None
    text, end = wrapped(*events_)
    got = [document for _, document in events(through([text, end], wire))]
    assert got[-1] == events_[1]
    assert "".join(said for document in got for _, said in strings(document) if said in ("a ", "<EMAIL")) == "a <EMAIL"


def test_a_trace_between_two_chunks_of_an_agent_ends_no_text() -> None:
    wire = PROVIDERS["bedrock"].operation("POST", "/agents/A/agentAliases/B/sessions/s/text").wire  # type: ignore[union-attr]
    assert wire is not None
    first, second = wrapped(f"to {PLACEHOLDER[:9]}".encode(), f"{PLACEHOLDER[9:]}.".encode())
    trace = aws_message(kind("trace"), b'{"trace":{"text":"x"}}')
    got = [document for _, document in events(through([first, trace, second], wire))]
    assert "".join(document["bytes"] for document in got if "bytes" in document) == f"to {MAIL}."
    assert wire.assembled(first + trace + second, AWS) == {
        "completion": f"to {PLACEHOLDER}.", "events": [{"trace": {"text": "x"}}]}
