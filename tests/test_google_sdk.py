"""google-genai against a real gateway, in both its modes: what leaves, what comes back, what it raises, and how often it tries.

The local provider plays Google: it repeats what it was asked, in the form that was asked for.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials

from douane.demo.provider import LocalProvider
from douane.demo.wire import Reply, Seen
from tests.conftest import under
from tests.gateway import REAL_KEY, Gateway, Wire, answering, request, running_gateway, untouched

MAIL = "ann@example.com"
MODEL = "gemini-2.5-flash"
USAGE = {"promptTokenCount": 7, "candidatesTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 14}
PLACEHOLDER = re.compile(r"<EMAIL_ADDRESS_[a-z2-7]{8}>")


def rules(provider: LocalProvider) -> str:
    where = f'{{upstream: "{provider.url}", ca: "{provider.ca}"}}'
    return f"""version: 1
principals:
  - {{name: local, team: dev, cidr: [127.0.0.0/8, "::1/128"]}}
  - {{name: bot, team: bots, key: env:BOT_KEY}}
providers:
  google: {where}
  vertex: {where}
credentials:
  google: env:REAL_KEY
  vertex: env:REAL_KEY
prices: {{{MODEL}: {{input: 0.0, output: 1000.0}}, gemini-dear: {{input: 0.0, output: 1000000.0}}, unknown: 1 USD/million}}
audit: {{level: metadata}}
chain:
  - authenticate: {{unknown: deny}}
  - allow_models: {{models: [gemini-*, claude-*, google/*]}}
  - redact: {{entities: [EMAIL_ADDRESS], restore: true}}
  - budget: {{per: team, limit: 1 USD/day, unbounded: assume 10}}
  - swap_key: {{}}
"""


def part(text: str, **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **more}],
            "usageMetadata": USAGE, "modelVersion": MODEL}


def asked(seen: Seen) -> str:
    """The last text of a request."""
    return str(re.findall(r'"text": ?"((?:[^"\\]|\\.)*)"', seen.body.decode())[-1])


def google(seen: Seen) -> Reply:
    sse = [("content-type", "text/event-stream")]
    plain = [("content-type", "application/json; charset=UTF-8")]
    if seen.path.endswith(":countTokens"):
        return Reply(headers=plain, body=json.dumps({"totalTokens": 3}).encode())
    if seen.path.endswith("EmbedContents") or seen.path.endswith(":embedContent"):
        return Reply(headers=plain, body=json.dumps({"embeddings": [{"values": [0.5]}], "embedding": {"values": [0.5]},
                                                     "usageMetadata": {"promptTokenCount": 4}}).encode())
    if seen.path.endswith("awPredict"):
        message = {"id": "m", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "end_turn",
                   "content": [{"type": "text", "text": f"to {asked_content(seen)}"}],
                   "usage": {"input_tokens": 3, "output_tokens": 2}}
        return Reply(headers=plain, body=json.dumps(message).encode())
    if seen.path.endswith("/chat/completions"):
        choice = {"index": 0, "message": {"role": "assistant", "content": f"to {asked_content(seen)}"}, "finish_reason": "stop"}
        answer = {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice],
                  "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
        return Reply(headers=plain, body=json.dumps(answer).encode())
    if b"functionDeclarations" in seen.body and b"functionResponse" not in seen.body:
        call = {"functionCall": {"name": "send", "args": {"to": asked(seen), "note": "<b>"}}, "thoughtSignature": "QUJDRA=="}
        one = part("", finishReason="STOP")
        one["candidates"][0]["content"]["parts"] = [call]
        return Reply(headers=plain, body=json.dumps(one).encode())
    text = f"I wrote to {asked(seen)}."
    if seen.path.endswith(":generateContent"):
        return Reply(headers=plain, body=json.dumps(part(text, finishReason="STOP")).encode())
    half = text.index("<EMAIL") + 9 if "<EMAIL" in text else 3
    chunks = [part(text[:half]), part(text[half:]), part("", finishReason="STOP")]
    if "alt=sse" in seen.target:
        return Reply(headers=sse, body=[b"data: %b\r\n\r\n" % json.dumps(one).encode() for one in chunks])
    return Reply(headers=plain, body=[b"[" + json.dumps(chunks[0]).encode(), *(b"\n,\r\n" + json.dumps(one).encode()
                                                                             for one in chunks[1:]), b"\n]\n"])


def asked_content(seen: Seen) -> str:
    return str(json.loads(seen.body)["messages"][-1]["content"])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    with answering(provider, google), running_gateway(tmp_path_factory.mktemp("gateway"), rules(provider)) as one:
        yield one


@pytest.fixture(autouse=True)
def here(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    under(gateway, monkeypatch)
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["google", "vertex"])
def client(request: pytest.FixtureRequest) -> Iterator[genai.Client]:
    if request.param == "google":
        one = genai.Client(api_key="app-key")
    else:
        credentials = Credentials(token="app-token")  # type: ignore[no-untyped-call]
        one = genai.Client(vertexai=True, project="p-1", location="us-central1", credentials=credentials)
    with one:
        yield one


def test_what_leaves_and_what_comes_back(client: genai.Client, gateway: Gateway, provider: LocalProvider) -> None:
    answer = client.models.generate_content(model=MODEL, contents=f"write to {MAIL}")
    assert answer.text == f"I wrote to write to {MAIL}."
    sent = provider.seen[-1]
    assert MAIL not in sent.body.decode()
    assert PLACEHOLDER.search(sent.body.decode())
    vertex = "publishers" in sent.path
    assert sent.header("authorization" if vertex else "x-goog-api-key") == ("Bearer " if vertex else "") + REAL_KEY
    assert "app-" not in json.dumps([value.decode() for _, value in sent.headers])
    told = gateway.last_outcome()
    assert (told["provider"], told["operation"], told["model"]) == ("vertex" if vertex else "google", "generate_content", MODEL)
    assert (told["usage"]["input"], told["usage"]["output"], told["usage"]["reasoning"]) == (7, 7, 2)
    assert told["cost_usd"] == pytest.approx(0.007)


def test_streams(client: genai.Client, provider: LocalProvider, gateway: Gateway) -> None:
    chunks = [chunk.text or "" for chunk in client.models.generate_content_stream(model=MODEL, contents=f"write to {MAIL}")]
    assert "".join(chunks) == f"I wrote to write to {MAIL}."
    assert len(chunks) == 3
    assert "alt=sse" in provider.seen[-1].target
    assert gateway.last_outcome()["stream"] is True
    assert gateway.last_outcome()["usage"]["output"] == 7


def test_a_function_is_called_with_the_values_and_its_answer_goes_redacted(
        client: genai.Client, provider: LocalProvider) -> None:
    called: list[tuple[str, str]] = []

    def send(to: str, note: str) -> str:
        """Send a mail."""
        called.append((to, note))
        return f"sent to {to}"

    before = len(provider.seen)
    answer = client.models.generate_content(model=MODEL, contents=MAIL, config=types.GenerateContentConfig(tools=[send]))
    assert called == [(MAIL, "<b>")]
    assert MAIL in str(answer.text)
    first, second = provider.seen[before:]
    assert MAIL not in (first.body + second.body).decode()
    parts = [one for content in json.loads(second.body)["contents"] for one in content["parts"]]
    (call,) = [one for one in parts if "functionCall" in one]
    assert call["thoughtSignature"] == "QUJDRA=="
    assert PLACEHOLDER.fullmatch(call["functionCall"]["args"]["to"])


def test_a_chat_keeps_its_history_redacted(client: genai.Client, provider: LocalProvider) -> None:
    chat = client.chats.create(model=MODEL)
    assert MAIL in str(chat.send_message(f"write to {MAIL}").text)
    chat.send_message("again")
    body = provider.seen[-1].body.decode()
    assert MAIL not in body
    assert len(set(PLACEHOLDER.findall(body))) == 1
    assert len(PLACEHOLDER.findall(body)) == 2
    history = chat.get_history()
    assert [one.role for one in history] == ["user", "model", "user", "model"]


def test_tokens_are_counted_and_texts_embedded(client: genai.Client, gateway: Gateway, provider: LocalProvider) -> None:
    assert client.models.count_tokens(model=MODEL, contents=MAIL).total_tokens == 3
    assert (gateway.last_outcome()["operation"], gateway.last_outcome()["cost_usd"]) == ("count_tokens", 0)
    vectors = client.models.embed_content(model="gemini-embedding-2", contents=MAIL)
    assert vectors.embeddings
    assert gateway.last_outcome()["operation"] == "embeddings"
    assert MAIL not in provider.seen[-1].body.decode()


def test_denials_raise_the_sdks_own_error_after_one_attempt(client: genai.Client, gateway: Gateway,
                                                            provider: LocalProvider) -> None:
    before = len(gateway.records())
    with untouched(provider):
        with pytest.raises(errors.ClientError) as refused:
            client.models.generate_content(model="other-model", contents="x")
        assert (refused.value.code, refused.value.status) == (403, "PERMISSION_DENIED")
        assert refused.value.details["error"]["details"][0]["reason"] == "model_not_allowed"
        with pytest.raises(errors.ClientError) as refused:
            list(client.models.generate_content_stream(model="other-model", contents="x"))
        assert refused.value.code == 403
        with pytest.raises(errors.ClientError) as unpaid:
            client.models.generate_content(model="gemini-dear", contents="x")
        assert (unpaid.value.code, unpaid.value.status) == (429, "RESOURCE_EXHAUSTED")
        assert unpaid.value.details["error"]["details"][0]["reason"] == "budget_exceeded"
    assert len(gateway.records()) == before + 3


def test_a_stream_that_breaks_raises(client: genai.Client, provider: LocalProvider) -> None:
    whole = b"data: %b\r\n\r\n" % json.dumps(part("first")).encode()
    reply = Reply(headers=[("content-type", "text/event-stream")], body=[whole, b"data: {", 0.05], cut_after=len(whole) + 100)
    with answering(provider, lambda _: reply):
        seen = []
        with pytest.raises(errors.ServerError) as broken:
            seen += [chunk.text for chunk in client.models.generate_content_stream(model=MODEL, contents="x")]
    assert broken.value.details["error"]["details"][0]["reason"] == "upstream_error"


def test_a_json_array_comes_in_pieces(gateway: Gateway) -> None:
    path = f"/v1beta/models/{MODEL}:streamGenerateContent?key=app-key"
    with Wire.tls(gateway, "generativelanguage.googleapis.com") as wire:
        wire.send(request(json.dumps({"contents": [{"parts": [{"text": MAIL}]}]}).encode(), target=path,
                          host="generativelanguage.googleapis.com"))
        got = wire.answer()
    assert got.whole
    assert "".join(one["candidates"][0]["content"]["parts"][0]["text"] for one in got.json) == f"I wrote to {MAIL}."
    told = gateway.outcome(got.id)
    assert (told["stream"], told["usage"]["output"]) == (True, 7)


def test_keys_in_the_query_never_go_upstream(gateway: Gateway, provider: LocalProvider) -> None:
    for name in ("key", "access_token", "%6Bey"):
        with Wire.tls(gateway, "generativelanguage.googleapis.com") as wire:
            wire.send(request(b'{"contents": [{"parts": [{"text": "x"}]}]}', host="generativelanguage.googleapis.com",
                              target=f"/v1beta/models/{MODEL}:generateContent?{name}=bot-0123456789abcdef&alt=json"))
            got = wire.answer()
        assert got.status == 200
        assert provider.seen[-1].target == f"/v1beta/models/{MODEL}:generateContent?alt=json"
        assert provider.seen[-1].header("x-goog-api-key") == REAL_KEY
        assert gateway.outcome(got.id)["principal"]["name"] == "bot"


@pytest.mark.parametrize(("name", "value"), [
    ("content-type", "application/grpc+proto"), ("Content-Type", "application/grpc-web"), ("X-HTTP-Method-Override", "DELETE")])
def test_what_is_not_the_call_that_its_path_says_is_refused(
        gateway: Gateway, provider: LocalProvider, name: str, value: str) -> None:
    host = "aiplatform.googleapis.com"
    with untouched(provider), Wire.tls(gateway, host) as wire:
        wire.send(request(b"\0\0\0\0\0", target=f"/v1beta1/publishers/google/models/{MODEL}:generateContent", host=host,
                          headers=[(name, value)]))
        got = wire.answer()
    assert (got.status, got.code) == (403, "operation_not_allowed")
    assert got.json["error"]["status"] == "PERMISSION_DENIED"


def test_claude_on_vertex(gateway: Gateway, provider: LocalProvider) -> None:
    with anthropic.AnthropicVertex(region="us-east5", project_id="p-1", access_token="app-token") as client:
        answer = client.messages.create(model="claude-sonnet-4@20250514", max_tokens=100,
                                        messages=[{"role": "user", "content": MAIL}])
        assert answer.content[0].text == f"to {MAIL}"  # type: ignore[union-attr]
        assert provider.seen[-1].path.endswith("/publishers/anthropic/models/claude-sonnet-4@20250514:rawPredict")
        assert provider.seen[-1].header("authorization") == f"Bearer {REAL_KEY}"
        told = gateway.last_outcome()
        assert (told["provider"], told["operation"], told["model"]) == ("vertex", "messages", "claude-sonnet-4@20250514")
        with untouched(provider), pytest.raises(anthropic.PermissionDeniedError):
            client.messages.create(model="other", max_tokens=100, messages=[{"role": "user", "content": "x"}])


def test_the_openai_client_of_gemini(gateway: Gateway, provider: LocalProvider) -> None:
    with openai.OpenAI(api_key="app-key", base_url="https://generativelanguage.googleapis.com/v1beta/openai/") as client:
        answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": MAIL}])
        assert answer.choices[0].message.content == f"to {MAIL}"
        assert (gateway.last_outcome()["provider"], gateway.last_outcome()["operation"]) == ("google", "chat")
        with untouched(provider), pytest.raises(openai.PermissionDeniedError) as refused:
            client.chat.completions.create(model="other", messages=[{"role": "user", "content": "x"}])
        assert refused.value.code == "model_not_allowed"


def test_through_the_reverse_proxy(gateway: Gateway, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    base = "http://{}:{}/google".format(*gateway.http)
    with genai.Client(api_key="app-key", http_options=types.HttpOptions(base_url=base)) as client:
        assert client.models.generate_content(model=MODEL, contents=MAIL).text == f"I wrote to {MAIL}."


def test_regions_have_certificates(gateway: Gateway, provider: LocalProvider) -> None:
    with untouched(provider):
        for host in ("asia-east1-aiplatform.googleapis.com", "aiplatform.eu.rep.googleapis.com"):
            got = httpx.get(f"https://{host}/v1/projects/p/locations/l/secrets")
            assert (got.status_code, got.headers["x-douane-code"]) == (403, "operation_not_allowed")


INTERACTION = {"id": "v1_x", "object": "interaction", "status": "completed", "model": MODEL, "created": "2026-05-13T19:57:25Z",
               "updated": "2026-05-13T19:57:25Z", "usage": {"total_input_tokens": 9, "total_output_tokens": 13,
                                                            "total_thought_tokens": 1, "total_tokens": 23}}


def interaction(seen: Seen) -> Reply:
    """Repeats its input: as one document, or as events with the text in three pieces and no end."""
    text = json.loads(seen.body)["input"]
    content = [{"type": "text", "text": f"to {text}"}]
    if not json.loads(seen.body).get("stream"):
        answer = INTERACTION | {"steps": [{"type": "model_output", "content": content}]}
        return Reply(headers=[("content-type", "application/json")], body=json.dumps(answer).encode())
    events: list[Any] = [
        {"event_type": "interaction.created", "interaction": INTERACTION | {"status": "in_progress"}},
        {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}},
        *({"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": one}}
          for one in (text[:8], text[8:], "!"))]
    body = b"".join(b"event: %b\ndata: %b\n\n" % (one["event_type"].encode(), json.dumps(one).encode())
                    for one in events)
    return Reply(headers=[("content-type", "text/event-stream")], body=[body, 0.05, b": no more"], cut_after=len(body) + 95)


@pytest.mark.filterwarnings("ignore:.*[Ii]nteractions:UserWarning")
def test_interactions(gateway: Gateway, provider: LocalProvider) -> None:
    with answering(provider, interaction), genai.Client(api_key="app-key") as client:
        answer = client.interactions.create(model=MODEL, input=MAIL)
        assert answer.model_dump()["steps"][0]["content"][0]["text"] == f"to {MAIL}"
        assert MAIL not in provider.seen[-1].body.decode()
        told = gateway.last_outcome()
        assert (told["operation"], told["model"], told["usage"]["output"]) == ("interactions", MODEL, 14)
        events = [event.model_dump() for event in client.interactions.create(model=MODEL, input=MAIL, stream=True)]
        assert "".join(event["delta"]["text"] for event in events if event["event_type"] == "step.delta") == f"{MAIL}!"
        assert (events[-1]["event_type"], events[-1]["error"]["code"]) == ("error", "upstream_error"), "it broke off"
