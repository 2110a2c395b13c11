"""OpenAI's operations beside chat and responses, and Anthropic's beside messages: recorded traffic, and the SDKs."""

import io
import json
import random
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from douane.call import Usage
from douane.demo.provider import Answer, LocalProvider, running_provider
from douane.demo.wire import Reply, Seen
from douane.providers.anthropic import anthropic as anthropics
from douane.providers.base import Reading, Wire
from douane.providers.framing import NDJSON, SSE, framing_of
from douane.providers.openai_more import openai as openais
from tests import wire
from tests.families import (
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

OPENAI, ANTHROPIC = openais(), anthropics()
OPAQUE = ("type", "role", "model", "id", "tool_call_id", "call_id", "encoding_format", "size", "quality", "voice",
          "response_format", "purpose", "object", "background", "anchor", "assistant_id", "file_id", "status", "format",
          "detail", "effort", "include", "modalities", "service_tier", "conversation", "previous_response_id",
          "truncation", "verbosity", "reasoning_effort",
          "tool_use_id", "media_type", "summary", "container", "mode", "phase", "vector_store_ids", "search_context_size",
          "require_approval", "ttl", "data", "signature", "encrypted_content", "language", "execution", "syntax", "file_ids",
          "connector_id", "item_id", "encrypted_index", "speed", "inference_geo", "endpoint", "completion_window")


def spoken(method: str, path: str, table: Any = OPENAI) -> Wire:
    row = table.operation(method, path)
    assert row is not None
    assert row.wire is not None
    found: Wire = row.wire
    return found


def test_every_record_has_its_label() -> None:
    seen = 0
    for record in wire.records("openai", "anthropic"):
        name, row = operation_of(record)
        assert row is not None, record["request"]["url"]
        assert (name, row.name) == (record["provider"], record["operation"])
        seen += 1
    assert seen > 970


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/v1/organization/users"), ("POST", "/v1/organization/admin_api_keys"), ("GET", "/v1/organization/costs"),
    ("POST", "/v1/responses/compact/cancel/x"), ("GET", "/v1/files/../organization/users"), ("GET", "/v1/files/a%2Fb"),
    ("GET", "/v1/threads/a/b/c"), ("POST", "/v1/fine_tuning/jobs/a/b"), ("PUT", "/v1/files/file-1"),
    ("GET", "/v1/responses/input_tokens"), ("DELETE", "/v1/models/gpt-4o"), ("POST", "/v1/files/"), ("POST",
    "/v1/realtime"), ("POST", "/v1/chat/completions/x/y")])
def test_paths_no_row_matches(method: str, path: str) -> None:
    assert OPENAI.operation(method, path) is None


@pytest.mark.parametrize("path", ["/v1/organizations/me", "/v1/organizations/api_keys", "/v1/messages/batches/../x",
                                  "/v1/skills"])
def test_paths_that_are_none_of_anthropics(path: str) -> None:
    assert ANTHROPIC.operation("GET", path) is ANTHROPIC.operation("POST", path) is None


@pytest.mark.parametrize(("method", "path", "label"), [
    ("GET", "/v1/responses/resp_1/input_items", "responses_item"), ("DELETE", "/v1/responses/resp_1", "responses_item"),
    ("POST", "/v1/responses/resp_1/cancel", "responses_item"), ("POST", "/v1/conversations/conv_1/items", "conversations"),
    ("POST", "/v1/threads/runs", "assistants"), ("POST", "/v1/threads/thread_1/runs/run_1/submit_tool_outputs", "assistants"),
    ("GET", "/v1/threads/thread_1/runs/run_1/steps/step_1", "assistants"), ("POST", "/v1/uploads/upload_1/parts", "uploads"),
    ("POST", "/v1/vector_stores/vs_1/search", "vector_stores"), ("GET", "/v1/files/file-1/content", "files"),
    ("POST", "/v1/batches/batch_1/cancel", "batches"), ("POST", "/v1/moderations", "moderations"),
    ("POST", "/v1/images/variations", "images"), ("POST", "/v1/audio/speech", "audio")])
def test_operations_that_were_not_recorded(method: str, path: str, label: str) -> None:
    row = OPENAI.operation(method, path)
    assert row is not None
    assert row.name == label


def test_the_walk_misses_no_text_and_a_rewrite_changes_one_string() -> None:
    seen = 0
    for record, how in recorded("openai", "anthropic"):
        if "multipart" in record["request"]["headers"].get("content-type", "") or ";base64," in record["request"]["body"]:
            continue
        if record["operation"] in ("chat", "responses", "messages"):
            continue  # test_walk.py has these
        document = json.loads(record["request"]["body"])
        walked(how.walk(document), document, OPAQUE)
        identity_and_one_change(how, record["request"]["body"].encode())
        seen += 1
    assert seen > 90


def test_recorded_forms_are_read_and_rewritten_byte_for_byte() -> None:
    seen = 0
    for record, how in recorded("openai", "anthropic"):
        kind = record["request"]["headers"].get("content-type", "").encode()
        if not kind.startswith(b"multipart/"):
            continue
        body = record["request"]["body"].encode()
        document = how.read(body, kind)
        texts = {(one.path, False): one.text for one in how.walk(document)}
        assert texts
        for place, text in texts.items():
            if len(place[0]) == 3:
                new, _ = how.rewrite(body, kind, document, {place: "other"})
                assert body.count(text.encode()) == 1
                assert new == body.replace(text.encode(), b"other")
        seen += 1
    assert seen == 8


def test_token_ids_cannot_be_searched() -> None:
    for path, member in (("/v1/embeddings", "input"), ("/v1/completions", "prompt")):
        how = spoken("POST", path)
        assert [(one.path, one.kind) for one in how.unseen({member: [[1, 2], [3]]})] == [((member,), "tokens")]
        assert [one.kind for one in how.unseen({member: ["a", 5]})] == ["tokens"]
        assert not list(how.unseen({member: ["a", "b"]}))
        assert {one.text for one in how.walk({member: ["a b", "c"]})} == {"a b", "c"}


def test_the_requests_of_a_batch_are_messages() -> None:
    how = spoken("POST", "/v1/messages/batches", ANTHROPIC)
    document = {"requests": [{"custom_id": "for Ann", "params": {"model": "claude-x", "system": "be kind", "messages": [
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "42 C"}]}]}}, {"params": "odd"}]}
    assert {one.text: one.role for one in how.walk(document)} == {
        "be kind": "system", "42 C": "tool_result", "for Ann": "unknown", "odd": "unknown"}
    identity_and_one_change(how, json.dumps(document).encode())
    assert framing_of(b"application/x-jsonl") is NDJSON


# -- usage -------------------------------------------------------------------------------------------------------------


def read(how: Wire, body: bytes, *, stream: bool = False) -> Reading:
    meter = how.meter(SSE if stream else None, ())
    meter.feed(body)
    return meter.reading()


def test_usage_of_media() -> None:
    image = {"data": [], "usage": {"input_tokens": 50, "output_tokens": 1000, "input_tokens_details": {
        "text_tokens": 10, "image_tokens": 40}}}
    assert read(spoken("POST", "/v1/images/edits"), json.dumps(image).encode()).usage == Usage(50, 1000, input_image=40)
    sound = spoken("POST", "/v1/audio/transcriptions")
    assert read(sound, b'{"text": "a", "usage": {"type": "duration", "seconds": 9}}').usage == Usage(audio_seconds=9)
    tokens = {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "input_token_details": {"audio_tokens": 12}}
    assert read(sound, json.dumps({"text": "a", "usage": tokens}).encode()).usage == Usage(14, 5, input_audio=12)
    done = b"data: %b\n\n" % json.dumps({"type": "transcript.text.done", "text": "a", "usage": tokens}).encode()
    assert read(sound, done, stream=True) == Reading(Usage(14, 5, input_audio=12))
    assert read(sound, b"just the text").usage is None
    assert read(spoken("POST", "/v1/moderations"), b"{}") == Reading(Usage(), cost_usd=0.0)


def test_what_is_read_again_is_not_billed_again() -> None:
    body = b'{"object": "response", "model": "gpt-5", "usage": {"input_tokens": 5, "output_tokens": 7}}'
    assert read(spoken("GET", "/v1/responses/resp_1"), body) == Reading(Usage(5, 7), "gpt-5", 0.0)
    run = b'{"object": "thread.run", "model": "gpt-4o", "usage": {"prompt_tokens": 5, "completion_tokens": 7}}'
    assert read(spoken("GET", "/v1/threads/t_1/runs/r_1"), run) == Reading(Usage(5, 7), "gpt-4o", 0.0)
    assert read(spoken("POST", "/v1/batches"), b'{"usage": {"input_tokens": 0}}') == Reading()


def test_usage_of_recorded_runs_completions_and_embeddings_is_what_the_reply_says() -> None:
    seen = 0
    for record in wire.records("openai"):
        row = operation_of(record)[1]
        if row is None or row.wire is None or row.name not in ("assistants", "completions", "embeddings", "audio"):
            continue
        body, stream = wire.answer(record), bool(record["stream"])
        documents = events(body) if stream else [json.loads(body)]
        told = [one["usage"] for one in documents if one.get("usage") and one.get("object") != "thread.run.step"]
        usage = told[-1] if told else None
        found = read(row.wire, body, stream=stream)
        if usage is None:
            assert not found.usage or found.cost_usd == 0
            continue
        assert found.usage is not None
        assert found.usage.input == usage.get("prompt_tokens", usage.get("input_tokens"))
        assert found.usage.output == usage.get("completion_tokens", usage.get("output_tokens", 0))
        assert not found.partial
        seen += 1
    assert seen > 40


# -- streams -----------------------------------------------------------------------------------------------------------


def events(stream: bytes) -> list[Any]:
    return [json.loads(line[5:]) for line in stream.splitlines() if line.startswith(b"data:") and b"[DONE]" not in line]


def said(stream: bytes) -> str:
    """The text of a run, a transcription or a completion; the pieces alone."""
    out = ""
    for one in events(stream):
        if one.get("object") == "thread.message.delta":
            out += "".join(part["text"]["value"] for part in one["delta"]["content"])
        out += one.get("completion", "") + (one["delta"] if one.get("type") == "transcript.text.delta" else "")
    return out


def sse(documents: list[dict[str, Any]]) -> bytes:
    return b"".join(b"event: x\ndata: %b\n\n" % json.dumps(one).encode() for one in documents)


def run_of(texts: list[str]) -> bytes:
    message = {"id": "msg_1", "object": "thread.message", "role": "assistant"}
    pieces = [{"id": "msg_1", "object": "thread.message.delta", "delta": {"content": [
        {"index": 0, "type": "text", "text": {"value": one}}]}} for one in texts]
    content = [{"type": "text", "text": {"value": "".join(texts), "annotations": []}}]
    whole = {**message, "status": "completed", "content": content}
    run = {"id": "run_1", "object": "thread.run", "model": "good", "status": "completed", "instructions": "be kind",
           "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}
    return sse([{**run, "status": "queued", "usage": None}, {**message, "status": "in_progress", "content": []}, *pieces, whole,
                run]) + b"event: done\ndata: [DONE]\n\n"


def test_streams_give_the_same_text_however_they_are_cut() -> None:
    texts = planted([""] * 6, random.Random(7))
    wanted = f"{VALUE}  {VALUE}<EM"
    runs = spoken("POST", "/v1/threads/t_1/runs")
    restored_however_cut(runs, run_of(texts), b"text/event-stream", said, wanted)
    sound = sse([*({"type": "transcript.text.delta", "delta": one} for one in texts),
                 {"type": "transcript.text.done", "text": "".join(texts)}])
    restored_however_cut(spoken("POST", "/v1/audio/transcriptions"), sound, b"text/event-stream", said, wanted)
    legacy = sse([*({"type": "completion", "completion": one, "stop_reason": None} for one in texts),
                  {"type": "completion", "completion": "", "stop_reason": "stop_sequence"}])
    restored_however_cut(spoken("POST", "/v1/complete", ANTHROPIC), legacy, b"text/event-stream", said, wanted)


def test_streams_put_together_hold_all_that_was_said() -> None:
    whole = spoken("POST", "/v1/threads/t_1/runs").assembled(run_of(["Hel", "lo"]), SSE)
    assert whole is not None
    assert (whole["status"], whole["messages"][0]["content"][0]["text"]["value"]) == ("completed", "Hello")
    stream = run_of(["Hel", "lo"])
    cut = spoken("POST", "/v1/threads/t_1/runs").assembled(stream[:stream.index(b'"annotations"')], SSE)
    assert "Hello" in [text for _, text in leaves(cut)]
    sound = sse([{"type": "transcript.text.delta", "delta": "Hel"}, {"type": "transcript.text.delta", "delta": "lo"}])
    assert spoken("POST", "/v1/audio/translations").assembled(sound, SSE) == {"text": "Hello"}
    seen = 0
    for record in wire.records("openai", "anthropic"):
        row = operation_of(record)[1]
        if row is None or row.wire is None or not record["stream"]:
            continue
        if row.name in ("assistants", "complete", "completions"):
            document = row.wire.assembled(wire.answer(record), SSE)
            assert document is not None
            assert "events" not in document
            assert said(wire.answer(record)) in {"", *(text for _, text in leaves(document))}
            seen += 1
    assert seen == 8


# -- the SDKs through a gateway ----------------------------------------------------------------------------------------


def script(seen: Seen) -> Answer:
    path = seen.path.removeprefix("/v1")
    if path.endswith("/runs"):
        return Reply(headers=(("content-type", "text/event-stream"),), body=run_of(["Hel", "lo"]))
    answers: dict[str, Any] = {
        "/files": {"id": "file-1", "object": "file", "bytes": 1, "created_at": 1, "filename": "a", "purpose": "batch",
                   "status": "processed"},
        "/audio/transcriptions": {"text": "Hello", "usage": {"type": "duration", "seconds": 3}},
        "/images/edits": {"created": 1, "data": [{"b64_json": "aaaa"}], "usage": {
            "input_tokens": 5, "output_tokens": 7, "total_tokens": 12,
            "input_tokens_details": {"image_tokens": 4, "text_tokens": 1}}},
        "/embeddings": {"object": "list", "model": "good", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
                        "usage": {"prompt_tokens": 9, "total_tokens": 9}},
        "/batches": {"id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "status": "validating",
                     "input_file_id": "file-1", "completion_window": "24h", "created_at": 1}}
    return Reply(headers=(("content-type", "application/json"),), body=json.dumps(answers[path]).encode())


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider"), script=script) as one:
        yield one


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    more = f'anthropic: {{upstream: "{provider.url}", ca: "{provider.ca}"}}\n  openai'
    with gateway_for(tmp_path_factory.mktemp("gateway"), provider, more) as one:
        yield one


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="app-key", base_url="http://{}:{}/openai/v1".format(*gateway.http)) as one:
        yield one


WAV = b"RIFF\xff\x00\x00\x00WAVE"


def test_the_openai_sdk_sends_forms(client: openai.OpenAI, provider: LocalProvider, gateway: Gateway) -> None:
    heard = client.audio.transcriptions.create(model="good", file=("a.wav", io.BytesIO(WAV)), prompt="names: Ann")
    assert heard.text == "Hello"
    last = gateway.last_outcome()
    assert (last["operation"], last["model"], last["status"]) == ("audio", "good", 200)
    assert WAV in provider.seen[-1].body
    edited = client.images.edit(model="good", image=[("a.png", b"\x89PNG\x00"), ("b.png", b"\x89PNG\x01\x00")], prompt="a cat")
    assert edited.usage is not None
    assert (gateway.last_outcome()["operation"], gateway.last_outcome()["usage"]["input"]) == ("images", 5)


def test_the_openai_sdk_and_plain_operations(client: openai.OpenAI, gateway: Gateway) -> None:
    assert client.embeddings.create(model="good", input=["a", "b"]).data[0].embedding == [0.5]
    assert (gateway.last_outcome()["operation"], gateway.last_outcome()["usage"]["input"]) == ("embeddings", 9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_operations_are_denied_in_the_sdks_own_way_after_one_attempt(client: openai.OpenAI, provider: LocalProvider) -> None:
    before = len(provider.seen)
    asks: list[Any] = [
        lambda: client.audio.transcriptions.create(model="bad", file=("a.wav", io.BytesIO(WAV))),
        lambda: client.images.edit(model="bad", image=("a.png", b"\x89PNG\x00"), prompt="a cat"),
        lambda: client.embeddings.create(model="bad", input="a"),
        lambda: client.completions.create(model="bad", prompt="a"),
        lambda: client.audio.speech.create(model="bad", input="a", voice="alloy")]
    for ask in asks:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            ask()
        assert caught.value.code == "model_not_allowed"
    with pytest.raises(openai.RateLimitError) as spent:
        client.embeddings.create(model="costly", input="a")
    assert spent.value.code == "insufficient_quota"
    with pytest.raises(openai.PermissionDeniedError):
        client.get("/organization/users", cast_to=object)
    assert len(provider.seen) == before


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=a", "application/json", "text/plain"])
def test_a_form_that_cannot_be_read_is_a_bad_request(kind: str, gateway: Gateway, provider: LocalProvider) -> None:
    before = len(provider.seen)
    got = httpx.post("http://{}:{}/openai/v1/files".format(*gateway.http), content=b"--a\nno form",
                     headers={"content-type": kind, "authorization": "Bearer app-key"}, trust_env=False)
    assert (got.status_code, got.json()["error"]["code"]) == (400, "bad_request")
    assert len(provider.seen) == before


def test_the_anthropic_sdk_is_denied_in_its_own_way(gateway: Gateway, provider: LocalProvider) -> None:
    before = len(provider.seen)
    with anthropic.Anthropic(api_key="app-key", base_url="http://{}:{}/anthropic".format(*gateway.http)) as client:
        with pytest.raises(anthropic.PermissionDeniedError):
            client.messages.count_tokens(model="bad", messages=[{"role": "user", "content": "hi"}])
        with pytest.raises(anthropic.PermissionDeniedError):
            client.post("/v1/complete", cast_to=object, body={"model": "bad", "prompt": "hi"})
    assert len(provider.seen) == before
