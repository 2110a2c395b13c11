"""Ollama: recorded traffic, streams of lines, the official client through a gateway, and that it costs nothing."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest

from douane.call import Target, Usage
from douane.demo.provider import Answer, LocalProvider, running_provider
from douane.demo.wire import Reply, Seen
from douane.edge import EdgeRules, Govern, decide
from douane.loader import load
from douane.prices import Prices
from douane.providers.by_host import ByHost
from douane.providers.framing import NDJSON, SSE, framing_of
from douane.providers.ollama import OLLAMA
from douane.providers.ollama import ollama as table
from douane.routes import Routes
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

OPAQUE = ("type", "role", "model", "id", "created_at", "done_reason", "finish_reason", "object", "system_fingerprint")
CHAT = table().operation("POST", "/api/chat")
assert CHAT is not None
assert CHAT.wire is not None
WIRE = CHAT.wire
LINES = b"application/x-ndjson"


def lines(*documents: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in documents)


def said(*parts: str, member: str = "content", **more: Any) -> list[dict[str, Any]]:
    return [{"model": "good", "created_at": "t", "message": {"role": "assistant", member: one}, "done": False, **more}
            for one in parts]


LAST = {"model": "good", "created_at": "u", "message": {"role": "assistant", "content": ""}, "done": True,
        "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 5}


# -- recorded traffic --------------------------------------------------------------------------------------------------


def test_every_record_has_its_label() -> None:
    for record in wire.records("ollama"):
        name, row = operation_of(record)
        assert row is not None
        assert (name, row.name) == ("ollama", record["operation"])


def test_every_text_is_walked_and_can_be_rewritten_alone() -> None:
    seen = 0
    for record, spoken in recorded("ollama"):
        document = wire.asked(record)
        seen += walked(spoken.walk(document), document, OPAQUE)
        identity_and_one_change(spoken, record["request"]["body"].encode())
        if not record["stream"]:
            answer = json.loads(wire.answer(record))
            walked(spoken.answered(answer), answer, OPAQUE)
    assert seen > 25


def test_usage_is_what_the_last_line_counts() -> None:
    seen = 0
    for record, spoken in recorded("ollama"):
        if not record["operation"].startswith("ollama"):
            continue
        body = wire.answer(record)
        last = json.loads(body.splitlines()[-1])
        meter = spoken.meter(NDJSON if record["stream"] else None, ())
        for at in range(0, len(body), 100):
            meter.feed(body[at:at + 100])
        got = meter.reading()
        if "eval_count" in last:
            assert (got.usage, got.model) == (Usage(last.get("prompt_eval_count", 0), last["eval_count"]), last["model"])
            assert meter.ended == record["stream"]
            seen += 1
        else:
            assert got.usage is None
    assert seen == 9


def responses(body: bytes) -> str:
    return "".join(json.loads(one)["response"] for one in body.splitlines())


def test_recorded_streams_put_together_and_restored_however_cut() -> None:
    seen = 0
    for record, spoken in recorded("ollama"):
        if not record["stream"]:
            continue
        events = [json.loads(line) for line in wire.answer(record).splitlines()]
        text = "".join(one["response"] for one in events)
        assert spoken.assembled(wire.answer(record), NDJSON) == events[-1] | {"response": text}
        pieces = [one for one in events if one["response"]]
        new = planted([one["response"] for one in pieces], random.Random(4))
        for one, piece in zip(pieces, new, strict=True):
            one["response"] = piece
        restored_however_cut(spoken, lines(*events), LINES, responses, "".join(new).replace(PLACEHOLDER, VALUE))
        seen += 1
    assert seen == 2


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_thinking_and_tool_calls_in_a_stream() -> None:
    call = {"function": {"name": "mail", "arguments": {"to": PLACEHOLDER, "n": 1}}}
    both = {"model": "good", "created_at": "t", "done": False,
            "message": {"role": "assistant", "content": f" and {PLACEHOLDER}", "tool_calls": [call]}}
    stream = lines(*said("I ", PLACEHOLDER[:7], PLACEHOLDER[7:], member="thinking"), *said("a ", "<EM"), both, LAST)
    called = {"function": {"name": "mail", "arguments": {"to": VALUE, "n": 1}}}
    wanted = {name: value for name, value in LAST.items() if name != "message"} | {"message": {
        "role": "assistant", "thinking": f"I {VALUE}", "content": f"a <EM and {VALUE}", "tool_calls": [called]}}
    restored_however_cut(WIRE, stream, LINES, lambda body: WIRE.assembled(body, NDJSON), wanted)


def test_it_streams_unless_told_not_to() -> None:
    assert WIRE.stream({}) is WIRE.stream({"stream": None}) is WIRE.stream({"stream": True}) is True
    assert WIRE.stream({"stream": False}) is False


def test_a_cut_stream_has_no_usage_and_an_error_is_a_line() -> None:
    meter = WIRE.meter(NDJSON, ())
    meter.feed(lines(*said("a", "b")))
    assert (meter.ended, meter.reading().usage, meter.reading().model) == (False, None, "good")
    line = OLLAMA.error_event("ollama_chat", "secret_found", "no", "id", NDJSON)
    assert json.loads(line)["error"] == "no"
    assert line.endswith(b"\n")
    told = WIRE.assembled(lines(*said("a")) + line, NDJSON)
    assert told is not None
    assert (told["error"], told["message"]["content"]) == ("no", "a")
    assert OLLAMA.error_event("chat", "secret_found", "no", "id", SSE).startswith(b"data: {")
    assert framing_of(b"application/x-ndjson; charset=utf-8") is NDJSON


def test_pictures_are_no_text() -> None:
    picture = "iVBORw0KGgo" * 40
    asked = {"model": "good", "messages": [{"role": "user", "content": "what is it?", "images": [picture]}]}
    assert [one.text for one in WIRE.walk(asked)] == ["what is it?"]
    assert [one.path for one in WIRE.unseen(asked)] == [("messages", 0, "images", 0)]


@pytest.mark.parametrize(("method", "path"), [
    ("POST", "/api/pull"), ("POST", "/api/push"), ("POST", "/api/create"), ("POST", "/api/copy"), ("DELETE", "/api/delete"),
    ("POST", "/api/tags"), ("POST", "/api/chat/"), ("POST", "//api/chat"), ("HEAD", "/"), ("POST", "/api/blobs/sha256:0")])
def test_paths_no_row_matches(method: str, path: str) -> None:
    assert table().operation(method, path) is None


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_openai_s_operations_are_there_in_its_own_shape(path: str) -> None:
    row = table().operation("POST", path)
    assert row is not None
    assert row.family is not None
    assert "error" in json.loads(row.family.error(403, "secret_found", "no", "id")[1])


def test_where_it_is_governed() -> None:
    """By http on this machine, on its port; other servers of this machine stay its own."""
    hosts = ByHost((table(),))
    for name in ("localhost", "127.0.0.1"):
        found = decide(name, 11434, "http", hosts, EdgeRules(), lambda host: None)
        assert isinstance(found, Govern)
        assert found.provider.target == Target("http", "127.0.0.1", 11434)
        assert not isinstance(decide(name, 11435, "http", hosts, EdgeRules(), lambda host: None), Govern)
    assert not hosts.governs("localhost")


def test_a_service_s_own_api_chat_is_not_taken_for_it() -> None:
    providers, path = {"ollama": table()}, "/llm/api/chat"
    assert Routes.of({}, providers).find("POST", "/api/chat", "/api/chat", unknown_pass=False) is None
    assert Routes.of({"/llm": "ollama"}, providers).find("POST", path, path, unknown_pass=False) is not None


@pytest.mark.parametrize(("more", "cost"), [
    ("", 0.0), ("prices: {llama3: {input: 2.0, output: 0.0}}", 2.0), ("prices: {llama*: {input: 3.0, output: 0.0}}", 3.0)])
def test_it_costs_nothing_unless_the_policy_says(tmp_path: Path, more: str, cost: float) -> None:
    (tmp_path / "a.yaml").write_text(f"version: 1\nchain:\n  - authenticate: {{}}\nproviders:\n  gpu: {{like: ollama, hosts: "
                                     f"['gpu:11434'], upstream: 'http://gpu:11434'}}\n{more}\n")
    prices = Prices(load(tmp_path, environ={}).prices)
    for name in ("ollama", "gpu"):
        assert prices.cost(name, "llama3", Usage(1_000_000, 0), 0.0) == cost
    assert prices.cost("openai", "llama4", Usage(1, 0), 0.0) is None or "llama*" in more


# -- the client through a gateway --------------------------------------------------------------------------------------


def script(seen: Seen) -> Answer:
    if json.loads(seen.body).get("stream", True):
        return Reply(headers=(("content-type", "application/x-ndjson"),), body=lines(*said("Hel", "lo"), LAST))
    whole = LAST | {"message": {"role": "assistant", "content": "Hello"}}
    return Reply(headers=(("content-type", "application/json"),), body=json.dumps(whole).encode())


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider"), script=script, tls=False) as one:
        yield one


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    with gateway_for(tmp_path_factory.mktemp("gateway"), provider, "ollama") as one:
        yield one


@pytest.fixture(params=["reverse", "proxy"])
def client(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[ollama.Client]:
    """By ``/ollama`` on the HTTP port, and by the proxy with the name that clients have."""
    if request.param == "reverse":
        given: dict[str, Any] = {"host": "http://{}:{}/ollama".format(*gateway.http)}
    else:
        given = {"host": "http://localhost:11434", "proxy": gateway.url}
    with ollama.Client(trust_env=False, **given) as one:
        yield one


ASKED: Any = [{"role": "user", "content": "hi"}]


def test_the_client_plain_and_streamed(client: ollama.Client, gateway: Gateway) -> None:
    assert client.chat(model="good", messages=ASKED).message.content == "Hello"
    assert "".join(one.message.content or "" for one in client.chat(model="good", messages=ASKED, stream=True)) == "Hello"
    last = gateway.last_outcome()
    assert (last["provider"], last["operation"]) == ("ollama", "ollama_chat")
    assert (last["usage"]["input"], last["usage"]["output"]) == (7, 5)


@pytest.mark.parametrize(("model", "status"), [("bad", 403), ("costly", 429)])
def test_the_client_raises_its_own_error(client: ollama.Client, provider: LocalProvider, model: str, status: int) -> None:
    before = len(provider.seen)
    for stream in (False, True):
        with pytest.raises(ollama.ResponseError) as caught:
            list(client.chat(model=model, messages=ASKED, stream=stream))
        assert caught.value.status_code == status
        assert "{" not in caught.value.error
    assert len(provider.seen) == before


def test_what_changes_the_server_is_refused(client: ollama.Client, provider: LocalProvider) -> None:
    before = len(provider.seen)
    with pytest.raises(ollama.ResponseError, match="operation"):
        client.delete("good")
    assert len(provider.seen) == before
