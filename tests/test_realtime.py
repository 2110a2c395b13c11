"""The frames of recorded Realtime sessions: all their text is walked, nothing is rewritten where nothing changes, and the usage
is what the provider says."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from douane.providers.base import Operation
from douane.providers.dialogue import SOCKET, response_id, without_keys
from douane.providers.framing import MESSAGES
from douane.providers.realtime import REALTIME
from douane.providers.table import builtin
from douane.rehydrate import Restorer
from douane.restore import RestoreFilter
from tests.wire import FOLDER

_NO_TEXT = {"type", "id", "event_id", "item_id", "response_id", "role", "model", "status", "object", "call_id",
            "voice", "format", "previous_item_id", "eagerness", "tool_choice", "output_modalities", "phase",
            "conversation_id", "language", "mode", "truncation", "effort", "input_audio_format", "output_audio_format",
            "modalities", "include"}
"""Members whose strings are identifiers and enumerations; ``audio`` is sound."""


def sessions() -> list[tuple[str, list[dict[str, Any]]]]:
    if not FOLDER.is_dir():
        pytest.skip(f"recorded traffic is absent: {FOLDER}")
    found = [json.loads(line) for name in ("openai", "azure", "xai", "pydantic-gateway")
             for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines() if '"frames"' in line]
    found = [one for one in found if one["operation"] == "realtime" and "type" in one["frames"][0]["data"]]
    assert len(found) > 20
    return [(one["provider"], one["frames"]) for one in found]


def strings(value: Any, name: str = "", path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str, str]]:
    if isinstance(value, str):
        yield path, name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(inner, key, (*path, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from strings(inner, name, (*path, at))


def test_every_string_that_a_client_sent_is_a_position_or_says_nothing() -> None:
    seen = 0
    for _, frames in sessions():
        for frame in (one["data"] for one in frames if one["dir"] == "sent"):
            walked = {one.path for one in REALTIME.walk(frame) if not one.key}
            for path, name, text in strings(frame):
                if text and path not in walked:
                    assert name in _NO_TEXT or name == "audio", (path, text)
                else:
                    seen += 1
    assert seen > 100


def test_what_nobody_changes_and_what_somebody_does() -> None:
    for _, frames in sessions():
        for frame in (one["data"] for one in frames if one["dir"] == "sent"):
            for body in (json.dumps(frame).encode(), json.dumps(frame, indent=1, ensure_ascii=False).encode()):
                document = REALTIME.read(body, b"")
                assert REALTIME.rewrite(body, b"", document, {}) == (body, document)
                for one in REALTIME.walk(document):
                    if not one.key:
                        new, read = REALTIME.rewrite(body, b"", document, {(one.path, False): "other \"words\""})
                        assert json.loads(new) == read
                        left = [text for path, _, text in strings(read) if path != one.path]
                        assert left == [text for path, _, text in strings(document) if path != one.path]


def test_usage_is_what_the_last_frame_of_each_answer_says() -> None:
    told = 0
    for provider, frames in sessions():
        for done in (one["data"] for one in frames if one["data"]["type"] == "response.done"):
            usage = done["response"].get("usage") or done.get("usage")
            meter = REALTIME.meter(MESSAGES)
            mine = [one["data"] for one in frames if one["dir"] == "received" and one["data"]["type"] != "response.done"
                    and response_id(one["data"]) == response_id(done)]
            for frame in (*mine, done):
                meter.feed(json.dumps(frame).encode() + b"\x1e")
            read = meter.reading().usage
            if not usage:
                assert read is None
                continue
            assert read is not None, provider
            given, made = usage["input_token_details"], usage["output_token_details"]
            assert (read.input, read.output) == (usage["input_tokens"], usage["output_tokens"])
            assert (read.cached_input, read.input_audio, read.output_audio) == (
                given.get("cached_tokens", 0), given.get("audio_tokens", 0), made.get("audio_tokens", 0))
            told += 1
    assert told > 20


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_placeholders_in_what_a_provider_says_come_back_however_they_are_cut(step: int) -> None:
    """In every text of every recorded answer, pieces and whole alike."""
    put, value = "<EMAIL_ADDRESS_k3v7q2ma>", "mia.o\"hara@example.org"
    pieces = 0
    for _, frames in sessions():
        planted: list[Any] = []
        channels: dict[Any, int] = {}
        for frame in (one["data"] for one in frames if one["dir"] == "received"):
            copy = json.loads(json.dumps(frame))
            for delta in REALTIME.deltas.pieces(copy):  # the whole placeholder, in three pieces
                for part in (put[:5], put[5:20], put[20:]):
                    again = json.loads(json.dumps(copy))
                    again["delta"] = part
                    planted.append(again)
                    key = (delta.channel, delta.arguments)
                    channels[key] = channels.get(key, 0) + 1
                    pieces += 1
            if not REALTIME.deltas.pieces(frame):
                planted.append(copy)
        stream = b"".join(json.dumps(one).encode() + b"\x1e" for one in planted)
        one = RestoreFilter(Restorer({put: value}, frozenset), deltas=REALTIME.deltas)
        one.headers(((b"content-type", b"application/x-douane-messages"),))
        out = b"".join(one.feed(stream[at:at + step]) for at in range(0, len(stream), step)) + one.close()
        restored: dict[Any, str] = {}
        for message in filter(None, out.split(b"\x1e")):
            document = json.loads(message)
            for delta in REALTIME.deltas.pieces(document):
                key = (delta.channel, delta.arguments)
                restored[key] = restored.get(key, "") + delta.text
        for key, count in channels.items():
            shown = json.dumps(value)[1:-1] if key[1] else value
            assert restored[key] == shown * (count // 3)
    assert pieces > 500


def test_an_assembled_answer_is_the_response_that_the_provider_ended_with() -> None:
    for _, frames in sessions():
        for done in (one["data"] for one in frames if one["data"]["type"] == "response.done"):
            mine = [one["data"] for one in frames if one["dir"] == "received" and response_id(one["data"]) == response_id(done)]
            whole = REALTIME.assembled(b"".join(json.dumps(one).encode() + b"\x1e" for one in mine), MESSAGES)
            assert whole is not None
            assert whole["output"] == done["response"]["output"]
            cut = REALTIME.assembled(b"".join(json.dumps(one).encode() + b"\x1e" for one in mine[:-1]), MESSAGES)
            assert cut is not None
            assert [one.get("id") for one in cut["output"]] == [one["id"] for one in done["response"]["output"]]


def row(provider: str, path: str) -> Operation | None:
    return builtin()[provider].operation(SOCKET, path)


@pytest.mark.parametrize(("provider", "path", "name"), [
    ("openai", "/v1/realtime", "realtime"), ("openai", "/v1/responses", "responses"), ("xai", "/v1/realtime", "realtime"),
    ("azure", "/openai/realtime", "realtime"), ("azure", "/openai/v1/realtime", "realtime"),
    ("azure", "/voice-live/realtime", "realtime"), ("openai", "/v1/chat/completions", ""), ("anthropic", "/v1/messages", ""),
    ("google", "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", "")])
def test_what_is_a_websocket(provider: str, path: str, name: str) -> None:
    found = row(provider, path)
    assert (found.name if found else "") == name
    assert builtin()[provider].operation("GET", path) is None or not name


def test_the_model_of_the_query_and_of_frames() -> None:
    found = row("azure", "/openai/realtime")
    assert found is not None
    talk = found.dialogue
    assert talk is not None
    assert talk.asked_for("api-version=1&deployment=my%2Dgpt") == "my-gpt"
    assert talk.asked_for("model=a&model=b") == "a"
    assert talk.model({"type": "session.update", "session": {"model": "x"}}) == "x"
    assert talk.model({"type": "response.create", "response": {"model": "y"}}) == "y"
    assert talk.model([]) == ""


def test_keys_among_subprotocols() -> None:
    key = "sk-" + "x"
    assert without_keys(["realtime", f"openai-insecure-api-key.{key}", "xai-client-secret.z"]) == (["realtime"], key)
    assert without_keys(["realtime"]) == (["realtime"], "")


@pytest.mark.parametrize(("session", "listens"), [
    ({"turn_detection": {"type": "server_vad"}}, True), ({"turn_detection": None}, False),
    ({"turn_detection": {"type": None}}, False), ({"audio": {"input": {"turn_detection": None}}}, False),
    ({"audio": {"input": {"turn_detection": {"type": "semantic_vad", "create_response": False}}}}, False),
    ({"voice": "x"}, None)])
def test_whether_sound_is_answered(session: dict[str, Any], listens: bool | None) -> None:
    found = row("openai", "/v1/realtime")
    assert found is not None
    assert found.dialogue is not None
    assert found.dialogue.listens({"type": "session.updated", "session": session}) is listens
