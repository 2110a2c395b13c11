"""``douane inspect``: what is seen of a recorded exchange, and how much of the recorded traffic is."""

import base64
import collections
import functools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from douane.errors import ConfigError
from douane.exchanges import Recorded, read_exchanges
from douane.inspection import Inspector, Sight, as_object, as_text
from douane.prices import Prices
from douane.providers.table import builtin
from tests import wire as recorded
from tests.gateway import command, environ, ran

ASKED = {"model": "gpt-4o-mini", "stream": False, "messages": [{"role": "user", "content": "Hello <you>\n"}],
         "metadata": {"a b": "c"}}
SAID = {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}}
URL = "https://api.openai.com/v1/chat/completions"


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    return _inspector(tmp_path_factory.mktemp("data"))


@functools.cache
def _inspector(folder: Path) -> Inspector:
    providers = builtin()
    return Inspector(providers, Prices.open(folder, {name: one.prices for name, one in providers.items() if one.prices}))


def line(**more: Any) -> dict[str, Any]:
    kind = {"Content-Type": "application/json"}
    return {"request": {"method": "post", "url": URL, "headers": kind, "body": json.dumps(ASKED)},
            "response": {"status": 200, "headers": kind, "body": json.dumps(SAID)}, **more}


def har(**content: Any) -> dict[str, Any]:
    return {"log": {"version": "1.2", "entries": [{
        "request": {"method": "POST", "url": URL, "headers": [{"name": "Content-Encoding", "value": "br"}],
                    "postData": {"mimeType": "application/json", "text": json.dumps(ASKED)}},
        "response": {"status": 200, "headers": [{"name": "content-encoding", "value": "br"},
                                                {"name": "content-type", "value": "application/json"}], "content": content}}]}}


def seen(inspector: Inspector, path: Path) -> list[Sight]:
    return [inspector.see(one) for one in read_exchanges(path)]


def test_an_exchange(inspector: Inspector, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps(line()) + "\n\n")
    (one,) = seen(inspector, file)
    said = as_object(one)
    assert list(said) == ["provider", "operation", "model", "stream", "texts", "answer", "usage", "cost_usd", "estimated",
                          "error"]
    assert (said["provider"], said["operation"], said["model"], said["stream"]) == ("openai", "chat", "gpt-4o-mini", False)
    assert {"path": "$.messages[0].content", "role": "user", "text": "Hello <you>\n"} in said["texts"]
    assert {"path": '$.metadata["a b"]~', "role": "metadata", "text": "a b"} in said["texts"]
    assert {"path": "$.choices[0].message.content", "text": "Hi."} in said["answer"]
    assert said["usage"] == {"input": 1000, "output": 100}
    assert said["cost_usd"] == pytest.approx(1000 * 0.15e-6 + 100 * 0.60e-6)
    assert (said["estimated"], said["error"]) == (False, None)
    assert "$.messages[0].content (user) Hello <you>\\n" in as_text(one), "a text is one line, whatever it holds"


@pytest.mark.parametrize("content", [
    {"text": json.dumps(SAID)}, {"text": base64.b64encode(json.dumps(SAID).encode()).decode(), "encoding": "base64"}])
def test_a_browsers_har(inspector: Inspector, tmp_path: Path, content: dict[str, Any]) -> None:
    """Its bodies are decoded, whatever its headers say."""
    file = tmp_path / "x.har"
    file.write_text(json.dumps(har(**content)))
    (one,) = seen(inspector, file)
    assert (one.provider, one.usage, one.error) == ("openai", {"input": 1000, "output": 100}, "")
    assert len(one.texts) >= 1


def test_what_is_not_ours(inspector: Inspector) -> None:
    for url in ("https://example.com/v1/chat/completions", "https://api.openai.com.evil.example/v1/chat/completions", "x",
                "https://x-aiplatform.googleapis.com.evil.example/v1/projects/p/locations/l/publishers/google/models/g:predict"):
        said = as_object(inspector.see(Recorded("POST", url)))
        assert said["provider"] is None
        assert "not a call" in as_text(inspector.see(Recorded("POST", url)))


def test_a_server_of_this_machine_that_speaks_a_known_language(inspector: Inspector) -> None:
    body = json.dumps(ASKED).encode()
    for url in ("http://localhost:8000/v1/chat/completions", "http://10.1.2.3/router/openai/v1/chat/completions"):
        one = inspector.see(Recorded("POST", url, body=body))
        assert (one.provider, one.operation, one.model) == ("local", "chat", "gpt-4o-mini")


def test_a_session_without_an_address_is_named_after_what_it_says(inspector: Inspector, tmp_path: Path) -> None:
    def session(*messages: Any) -> Sight:
        file = tmp_path / "s.jsonl"
        frames = [{"dir": "sent" if at % 2 == 0 else "received", "data": one} for at, one in enumerate(messages)]
        file.write_text(json.dumps({"frames": frames}) + "\n")
        (one,) = seen(inspector, file)
        return one

    usage = {"input_tokens": 100, "output_tokens": 10, "input_token_details": {"audio_tokens": 40}}
    done = {"type": "response.done", "response": {"id": "r", "usage": usage}}
    one = session({"type": "session.update", "session": {"model": "gpt-realtime", "instructions": "Be kind."}}, done,
                  {"type": "response.create"}, done)
    assert (one.provider, one.operation, one.model) == ("openai", "realtime", "gpt-realtime")
    assert one.usage == {"input": 200, "output": 20, "input_audio": 80}
    assert one.cost_usd
    assert [text.text for text in one.texts] == ["Be kind."]
    assert session({"type": "session.update", "session": {"model": "grok-voice-latest"}}).provider == "xai"
    live = session({"setup": {"model": "models/g", "systemInstruction": {"parts": [{"text": "Be kind."}]}}})
    assert (live.provider, live.operation, live.model, live.usage) == ("google", "realtime", "models/g", None)
    assert [text.text for text in live.texts] == ["Be kind."]
    assert session({"type": "response.create", "model": "gpt-5", "input": "x"}).operation == "responses"
    assert session({"type": "chat", "text": "x"}).provider == session("no JSON").provider == ""


def test_what_cannot_be_read_is_said(inspector: Inspector) -> None:
    one = inspector.see(Recorded("POST", URL, body=b'{"model":', status=200, answer=b"<html>",
                                 answer_headers=((b"content-type", b"application/json"),)))
    assert (one.provider, one.operation) == ("openai", "chat")
    assert "the request cannot be read" in one.error
    assert "the answer is no JSON" in one.error
    deep = "[" * 100_000  # no parser goes so far down
    assert inspector.see(Recorded("POST", URL, status=200, answer=deep.encode(), answer_headers=(
        (b"content-type", b"application/json"),))).error == "the answer is no JSON"
    assert inspector.see(Recorded("GET", "", stream=True, frames=((True, deep),))).provider == ""


@pytest.mark.parametrize(("text", "said"), [
    ("{}\n", "x.jsonl:1: this is no exchange"), ("\nnot json\n", "x.jsonl:2: this is no exchange"),
    pytest.param("[" * 100_000, "x.jsonl:1: this is no exchange", id="deep"),
    ('{"request": {"method": "GET"}}\n', "x.jsonl:1: this is no exchange (KeyError: 'url')"),
    ('{"log": {"entries": [{}]}}\n', "x.jsonl: this is no HAR file"),
    (json.dumps(line(request={"method": "GET", "url": URL, "body_base64": "?"})), "a body is no base64")])
def test_a_file_that_is_neither(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        list(read_exchanges(file))
    assert said in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        list(read_exchanges(tmp_path / "absent"))


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    other = line(request={"method": "GET", "url": "https://example.com/"})
    file.write_text(f"{json.dumps(line())}\n{json.dumps(other)}\n")
    done = subprocess.run(command(tmp_path, "inspect", "--json", str(file)), env=environ(), capture_output=True, text=True,
                          check=True)
    assert [json.loads(one)["provider"] for one in done.stdout.splitlines()] == ["openai", None]
    wrong = ran(command(tmp_path, "inspect", str(tmp_path / "no")), environ())
    assert (wrong.returncode, wrong.stdout) == (2, "")


# -- the recorded traffic ----------------------------------------------------------------------------------------------


@functools.cache
def sights(folder: Path) -> list[tuple[dict[str, Any], Sight]]:
    if not recorded.FOLDER.is_dir():
        pytest.skip(f"recorded traffic is absent: {recorded.FOLDER}")
    inspector = _inspector(folder)
    found = []
    for file in sorted(recorded.FOLDER.glob("*.jsonl")):
        for text, one in zip(file.read_text().splitlines(), read_exchanges(file), strict=True):
            found.append((json.loads(text), inspector.see(one)))
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recorded")


def test_every_record_gets_its_label_and_nothing_else_is_claimed(data: Path) -> None:
    wrong: collections.Counter[tuple[str, ...]] = collections.Counter()
    for record, one in sights(data):
        label = ("", "") if record["provider"] == "none" else (record["provider"], record["operation"])
        if "request" in record and (one.provider, one.operation) != label:
            wrong[(*label, "→", one.provider, one.operation)] += 1
    assert wrong == {}


def test_every_request_of_theirs_can_be_read(data: Path) -> None:
    """But three, which their recorders broke: they end amid a value, or have a comma too many."""
    assert [one.error for _, one in sights(data) if not one.error.startswith("the request cannot be read") and one.error] == []
    assert sum(bool(one.error) for _, one in sights(data)) <= 3


def test_usage_and_prices(data: Path) -> None:
    """Nearly every reply that tells its usage is understood, and its model's price known where the list has it."""
    told = [(record, one) for record, one in sights(data) if record.get("response", {}).get("status") == 200
            and re.search(r'"(usage|usageMetadata)"\s*:\s*\{[^{}]*okens?"?[^{}]*\d', record["response"].get("body") or "")]
    assert len(told) > 1300
    read = [one for _, one in told if one.usage is not None]
    assert len(read) >= 0.99 * len(told)
    assert sum(one.cost_usd is not None and one.cost_usd >= 0 for one in read) == len(read), "an unknown price is the ceiling"
    assert sum(not one.estimated for one in read) >= 0.95 * len(read)
